"""Lines of logs, of whatever format."""

import json
import logging
from datetime import UTC, datetime

import pytest

from asgictl.control.log_lines import Line, Lines

AT = datetime(2026, 11, 29, 9, 45, 28, 886000).timestamp()  # local, as logs have it
STAMP = "2026-11-29 09:45:28,886"


def parsed(process: str, *texts: str, at: float = 1.0) -> list[Line]:
    return Lines(process).parse(texts, at)


def test_a_line_of_ours_has_a_time_and_a_level_and_what_follows_has_them_too() -> None:
    first = f"{STAMP} ERROR shop: oh"
    found = parsed("worker-00", first, "Traceback (most recent call last):", "ValueError: no")
    assert found[0] == Line(AT, "worker-00", logging.ERROR, first)
    assert {(line.at, line.level) for line in found} == {(AT, logging.ERROR)}


def test_what_no_time_precedes_has_that_of_the_next_or_of_the_file() -> None:
    assert [line.at for line in parsed("worker-00", "printed", f"{STAMP} INFO shop: x")] == [AT, AT]
    assert parsed("worker-00", "printed") == [Line(1.0, "worker-00", logging.INFO, "printed")]


def test_a_line_of_basic_config_has_its_own_level() -> None:
    levels = [line.level for line in parsed("w", f"{STAMP} ERROR shop: x", "DEBUG:mine:a detail", "WARNING: x")]
    assert levels == [logging.ERROR, logging.DEBUG, logging.WARNING]


def test_a_line_of_flask_s_own_handler_has_its_time_and_level() -> None:
    found = parsed("w", f"[{STAMP}] ERROR in app: Exception on /boom [GET]", "Traceback (most recent call last):")
    assert {(line.at, line.level) for line in found} == {(AT, logging.ERROR)}
    assert parsed("w", "[ERROR] x", "[x] ERROR in y", f"[{STAMP} is a time")[-1].level == logging.INFO


def test_digits_that_are_no_time_change_nothing() -> None:
    found = parsed("w", f"{STAMP} INFO shop: x", "2026-99-99 99:99:99,999 ERROR shop: y")
    assert found[1] == Line(AT, "w", logging.ERROR, "2026-99-99 99:99:99,999 ERROR shop: y")


def test_a_json_line_is_shown_as_it_is() -> None:
    text = json.dumps({"time": datetime.fromtimestamp(AT, UTC).isoformat(), "level": "WARNING", "message": "x"})
    found = parsed("worker-00", text, "printed", '{"an": "application"}')
    assert found[0] == Line(AT, "worker-00", logging.WARNING, text)
    assert found[0].as_json() == text
    assert json.loads(found[1].as_json()) == {"process": "worker-00", "message": "printed"}
    assert found[2].at == AT


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"{STAMP} WARN exited: worker-00 (terminated by SIGKILL; not expected)", "WARNING"),
        (f"{STAMP} INFO exited: worker-00 (exit status 0; expected)", "INFO"),
        (f"{STAMP} INFO gave up: worker-00 entered FATAL state, too many start retries too quickly", "ERROR"),
        (f"{STAMP} ERRO pool dog event buffer overflowed", "WARNING"),
        (f"{STAMP} INFO spawned: 'worker-00' with pid 7", ""),
        (f"{STAMP} CRIT Server 'unix_http_server' running without any HTTP authentication checking", ""),
    ],
)
def test_of_supervisord_the_ends_of_processes_are_shown(text: str, shown: str) -> None:
    found = parsed("supervisord", text)
    message = text.split(maxsplit=3)[3]
    assert [line.text for line in found] == ([f"{STAMP} {shown} supervisord: {message}"] if shown else [])
    for line in found:
        fields = json.loads(line.as_json())
        assert fields.pop("time") == datetime.fromtimestamp(AT, UTC).isoformat(timespec="milliseconds")
        assert fields == {"level": shown, "logger": "supervisord", "message": message, "process": "supervisord"}


def test_of_redis_the_warnings_are_shown_without_its_banner() -> None:
    begin = "7:M 29 Nov 2026 09:45:28.886"
    found = parsed(
        "redis",
        f"{begin} # oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo",
        "   .-.",
        f"{begin} * Ready to accept connections unix",
        f"{begin} # Error writing to the AOF file: No space left on device",
        "what follows",
    )
    warning = f"{STAMP} WARNING redis: Error writing to the AOF file: No space left on device"
    assert found == [Line(AT, "redis", logging.WARNING, text) for text in (warning, "what follows")]
