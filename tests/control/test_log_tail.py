"""The ends of logs, for people."""

from pathlib import Path

import pytest

from asgictl.control.log_tail import TAIL_LINES, Logs, tail


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


def test_of_a_role_the_last_bytes_are_shown_then_what_follows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "worker-00.log"
    (tmp_path / "redis.log").write_text("no worker\n")
    log.write_text("0123456789\nlast\n")
    logs = Logs(tmp_path, "worker", tail_bytes=5)
    logs.show()
    with log.open("a") as more:
        more.write("new\nhalf a li")
    logs.show()
    assert capsys.readouterr().out == "worker-00 | last\nworker-00 | new\n"


def test_a_log_that_was_rotated_is_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "worker-00.log"
    log.write_text("of before\n" * 9)
    logs = Logs(tmp_path)
    log.write_text("new\n")
    logs.show()
    logs.show()
    assert capsys.readouterr().out == "worker-00 | new\n"
