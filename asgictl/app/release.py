"""The release: the identity of the code that a process runs."""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from asgictl.machine.run_dir import RunDir

NOT_OF_SITE = {"__main__", "__mp_main__"}  # what starts the process; it may lie in the site's directory
INSTALLED = {"site-packages", "dist-packages"}
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
    here = os.getcwd() if os.getcwd() != os.sep else app_dir  # all lies below /, where services start unless told
    roots = [os.path.join(each, "") for each in (here, app_dir)]
    digest, files = hashlib.sha256(), dict[str, str]()
    own = {name: file for name, file in _imported() if _top(name) == package or _is_of_site(file, roots)}
    for top in {package, *map(_top, own)}:
        for place in getattr(sys.modules.get(top), "__path__", ()):
            if top == package or _is_of_site(os.path.join(place, ""), roots):
                files |= dict(_sources(top, place))
    for name, file in sorted((files | own).items()):
        with contextlib.suppress(OSError):  # it is being replaced, or nobody could import it
            digest.update(name.encode() + b"\0" + Path(file).read_bytes())
    return digest.hexdigest()[:8]


def _top(name: str) -> str:
    return name.partition(".")[0]


def _imported() -> Iterator[tuple[str, str]]:
    """Yield name and file of each module."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name not in NOT_OF_SITE:
            yield name, file


def _is_of_site(file: str, roots: list[str]) -> bool:
    """Whether a file lies below a root, and does not belong to Python or to an installed package."""
    pythons = {os.path.join(each, "") for each in (sys.prefix, sys.base_prefix)}
    return INSTALLED.isdisjoint(file.split(os.sep)) and any(
        file.startswith(root) and not any(file.startswith(each) and not root.startswith(each) for each in pythons)
        for root in roots
    )


def _sources(package: str, place: str) -> Iterator[tuple[str, str]]:
    """Yield name and file of each module of a package; not of a folder that is no package, such as node_modules."""
    for directory, folders, names in os.walk(place):
        folders[:] = [each for each in folders if os.path.isfile(os.path.join(directory, each, "__init__.py"))]
        inner = [] if directory == place else os.path.relpath(directory, place).split(os.sep)
        for name in names:
            if name.endswith(".py"):
                last = [] if name == "__init__.py" else [name.removesuffix(".py")]
                yield ".".join([package, *inner, *last]), os.path.join(directory, name)
