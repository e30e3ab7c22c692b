"""The ends of logs, for people."""

import logging
import os
import time
from pathlib import Path

import pytest

from asgictl.control.log_tail import BLOCK_BYTES, TAIL_LINES, Logs, tail


def test_a_tail_is_the_last_lines_and_an_absent_log_has_none(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    assert tail(log) == ""
    log.write_text("".join(f"{number}\n" for number in range(100)))
    assert tail(log).splitlines() == [str(number) for number in range(100 - TAIL_LINES, 100)]


@pytest.mark.parametrize("log_format", ["human", "json"])
def test_logs_are_shown_as_their_format_has_them(
    log_format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = Logs(tmp_path, as_json=log_format == "json")
    (tmp_path / "worker-00.log").write_text('{"message": "a"}\nprinted\n')
    logs.show()
    expected = {
        "human": ['worker-00 | {"message": "a"}', "worker-00 | printed"],
        "json": ['{"message": "a"}', '{"process": "worker-00", "message": "printed"}'],
    }
    assert capsys.readouterr().out.splitlines() == expected[log_format]


def line(second: int, text: str, level: str = "INFO") -> str:
    return f"2026-11-29 09:45:{second:02},000 {level} shop: {text}\n"


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was printed: the process and the last word of each line."""
    return [f"{each.split()[0]} {each.split()[-1]}" for each in capsys.readouterr().out.splitlines()]


def test_lines_of_all_processes_come_in_the_order_of_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "worker-00.log").write_text(line(1, "a") + line(3, "c", "ERROR") + "Traceback\n")
    (tmp_path / "worker-01.log").write_text(line(2, "b") + line(3, "d"))
    logs = Logs(tmp_path)
    logs.show_last(100)
    everything = ["worker-00 a", "worker-01 b", "worker-00 c", "worker-00 Traceback", "worker-01 d"]
    assert shown(capsys) == everything
    logs.show_last(2)
    assert shown(capsys) == everything[-2:]
    logs.show()
    assert shown(capsys) == []
    (tmp_path / "worker-02.log").write_text(line(4, "e"))
    with (tmp_path / "worker-01.log").open("a") as more:
        more.write(line(5, "f") + "half a li")
    logs.show()
    assert shown(capsys) == ["worker-02 e", "worker-01 f"]


def test_since_leaves_out_lines_that_no_time_precedes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "worker-00.log").write_text("printed\n" + line(3, "a") + "Traceback\n")
    (tmp_path / "worker-01.log").write_text("all is printed\n")
    later = time.mktime((2026, 11, 29, 9, 45, 9, 0, 0, -1))
    os.utime(tmp_path / "worker-01.log", (later, later))
    (tmp_path / "worker-02.log").write_text("long ago\n")
    os.utime(tmp_path / "worker-02.log", (0, 0))
    logs = Logs(tmp_path)
    logs.show_last(100, time.mktime((2026, 11, 29, 9, 45, 2, 0, 0, -1)))
    assert shown(capsys) == ["worker-00 a", "worker-00 Traceback", "worker-01 printed"]
    logs.show_last(100)
    assert "worker-00 printed" in shown(capsys)


def test_only_what_is_as_grave_and_not_older_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "worker-00.log").write_text(line(1, "a", "ERROR") + line(2, "b") + line(3, "c", "ERROR"))
    since = time.mktime((2026, 11, 29, 9, 45, 2, 0, 0, -1))
    Logs(tmp_path, level=logging.WARNING).show_last(100, since)
    assert shown(capsys) == ["worker-00 c"]


def test_a_role_has_its_processes_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "controller.log").write_text(line(1, "a"))
    (tmp_path / "worker-00.log").write_text(line(2, "b"))
    logs = Logs(tmp_path, "worker")
    logs.show_last(100)
    assert shown(capsys) == ["worker-00 b"]
    assert logs.files() == [tmp_path / "worker-00.log"]


def test_the_last_lines_reach_into_what_a_log_was_rotated_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "worker-00.log.2").write_text(line(1, "a"))
    (tmp_path / "worker-00.log.1").write_text(line(2, "b" * BLOCK_BYTES))
    (tmp_path / "worker-00.log").write_text(line(3, "c") + "half a li")
    Logs(tmp_path).show_last(3)
    assert [each[:12] for each in shown(capsys)] == ["worker-00 a", "worker-00 bb", "worker-00 c"]


def test_a_log_that_is_rotated_meanwhile_is_shown_whole_and_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "worker-00.log"
    log.write_text(line(1, "before") * 9)
    logs = Logs(tmp_path)
    with log.open("a") as more:
        more.write(line(2, "last"))
    log.rename(tmp_path / "worker-00.log.1")
    log.write_text(line(3, "new"))
    logs.show()
    logs.show()
    assert shown(capsys) == ["worker-00 last", "worker-00 new"]


def test_a_terminal_is_given_a_colour_for_each_process_unless_it_wants_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "worker-00.log").write_text(line(1, "a"))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    Logs(tmp_path).show_last(1)
    assert capsys.readouterr().out.startswith("\x1b[")
    monkeypatch.setenv("NO_COLOR", "1")
    Logs(tmp_path).show_last(1)
    assert capsys.readouterr().out.startswith("worker-00 |")
