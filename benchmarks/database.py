"""The database of examples/django_site while it is measured: PostgreSQL where this machine has it, else SQLite."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

from asgictl.loadtests.command import share_cores
from asgictl.loadtests.servers import pin

ROOT = Path(__file__).parents[1]
SITE = ROOT / "examples" / "django_site"
DEBIAN = "/usr/lib/postgresql/*/bin"
USER = "postgres"  # whom Debian's package makes: a server of root's does not start
STARTS_SECONDS = 30


@contextmanager
def prepared() -> Iterator[dict[str, str]]:
    """Make the site's database, which goes in the end; give the environment in which the site finds it."""
    with tempfile.TemporaryDirectory() as folder, database() as found:
        environment = {"DJANGO_SITE_DATA": folder, "DJANGO_SITE_DEBUG": "0", **found}
        subprocess.run([sys.executable, "manage.py", "prepare"], cwd=SITE, env=os.environ | environment, check=True)
        yield environment


@contextmanager
def database() -> Iterator[dict[str, str]]:
    """Run a PostgreSQL on the cores of servers; give libpq's variables for it: none where there is no PostgreSQL."""
    if (programs := at_hand()) is None:
        yield {}
        return
    user = USER if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:
        data, environment = Path(folder) / "data", {"PGHOST": folder, "PGUSER": USER, "PGDATABASE": "postgres"}
        if user:
            shutil.chown(folder, user)
        initdb = [str(programs / "initdb"), "-D", str(data), "-U", USER, "-A", "trust"]
        subprocess.run(initdb, user=user, cwd="/", check=True, stdout=subprocess.DEVNULL)
        with (Path(folder) / "log").open("wb") as log:
            server = subprocess.Popen(
                [str(programs / "postgres"), "-D", str(data), "-k", folder, "-c", "listen_addresses="],
                user=user, cwd="/", stdout=log, stderr=log,
            )  # fmt: skip
        pin([server.pid], share_cores()[0])
        try:
            deadline = time.monotonic() + STARTS_SECONDS
            while subprocess.run([programs / "pg_isready", "-q"], env=environment, check=False).returncode:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("PostgreSQL does not start:\n" + (Path(folder) / "log").read_text())
                time.sleep(0.1)
            yield environment
        finally:
            server.terminate()
            server.wait()


def at_hand() -> Path | None:
    """Return where PostgreSQL's programs are; None without them, or without Django's driver for it."""
    places = [Path(place) for place in glob(DEBIAN)] + [Path(shutil.which("initdb") or "/").parent]
    driver = importlib.util.find_spec("psycopg") and importlib.util.find_spec("psycopg_pool")
    return next((place for place in places if driver and (place / "initdb").exists()), None)
