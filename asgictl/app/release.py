"""The release: the identity of the code that a process runs."""

import contextlib
import hashlib
import os
import sys
from pathlib import Path

from asgictl.machine.run_dir import RunDir

FILE = "release"  # in the run directory: the name that `start` or `reload` gave, which later processes take


def release_of(target: str, name: str = "", run_dir: Path | None = None, app_dir: str = "") -> str:
    """Return the release: the instance's --release, else this process's, else a hash of the code.

    The hash is of what was imported from the current directory and app_dir, and of TARGET's own package: the same code
    has the same on every machine. To be called once TARGET is imported. Raises RunDirectoryError.
    """
    given = ""
    if run_dir:
        with contextlib.suppress(FileNotFoundError):
            given = RunDir(run_dir).read(FILE)
    return given or name or _hash(target.partition(":")[0].partition(".")[0], os.path.abspath(app_dir))


def _hash(package: str, app_dir: str) -> str:
    here, digest = (os.getcwd() + os.sep, app_dir + os.sep), hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        is_local = file.startswith(here) and not file.startswith(sys.prefix + os.sep)
        if (is_local or name.partition(".")[0] == package) and os.path.isfile(file):
            digest.update(name.encode() + b"\0" + Path(file).read_bytes())
    return digest.hexdigest()[:8]
