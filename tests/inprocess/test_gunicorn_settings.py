"""gunicorn's settings, of whom and in which order."""

import os
import sys
from pathlib import Path

import pytest
from gunicorn.arbiter import Arbiter

from asgictl.inprocess.gunicorn_settings import Gunicorn


@pytest.mark.parametrize(
    ("file", "option", "timeout"), [("", "", 30), ("timeout = 2", "", 6), ("", "timeout=3", 6), ("timeout = 0", "", 0)]
)
def test_a_timeout_is_never_below_the_silence_that_is_let_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, option: str, timeout: int
) -> None:
    monkeypatch.setitem(os.environ, "GUNICORN_CMD_ARGS", f"-c {tmp_path}/gunicorn.conf.py")
    (tmp_path / "gunicorn.conf.py").write_text(file)
    monkeypatch.setattr(sys, "argv", ["gunicorn", "--workers", "3", "m:app"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(os.environ, "ASGICTL_GUNICORN_OPTION", option)
    cfg = Gunicorn(5.5).cfg
    assert (cfg.timeout, cfg.workers) == (timeout, 3)


def test_what_is_refused_ends_it_with_a_line_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.environ, "GUNICORN_CMD_ARGS", f"-c {tmp_path}/gunicorn.conf.py")
    (tmp_path / "gunicorn.conf.py").write_text("preload_app, chdir = True, '/'")
    monkeypatch.setattr(sys, "argv", ["gunicorn", "m:app"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit):
        Gunicorn(6)
    said = capsys.readouterr().err
    assert "chdir cannot be set: use --app-dir\n" in said
    assert "preload_app cannot be set: each process loads the application itself\n" in said


def test_gunicorn_leaves_the_path_of_a_unix_socket_alone_beside_a_users_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "GUNICORN_CMD_ARGS", f"-c {tmp_path}/gunicorn.conf.py")
    (tmp_path / "gunicorn.conf.py").write_text("def when_ready(arbiter):\n    arbiter.hooked = True")
    monkeypatch.setattr(sys, "argv", ["gunicorn", "m:app"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    arbiter = Arbiter(Gunicorn(6))
    assert arbiter.systemd is False
    arbiter.cfg.when_ready(arbiter)
    assert (arbiter.systemd, arbiter.hooked) == (True, True)
