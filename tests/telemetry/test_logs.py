"""What logs look like, and what they never show."""

import json
import logging
import subprocess
import sys
from datetime import datetime

import pytest

from asgictl.telemetry.logs import formatter, masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:hunter2@h:1/0 is away", "redis://***@h:1/0 is away"),
        ("at rediss://user:hun@ter/2@h", "at rediss://***@h"),
        ("unix:///run/s?db=1&password=hunter2&x=1", "unix:///run/s?db=1&password=***&x=1"),
        ("https://user:hunter2@h/a@b?c", "https://***@h/a@b?c"),
        ("backlog=3 'ssl_keyfile_password=hunter 2'", "backlog=3 'ssl_keyfile_password=***"),
        ("redis://h:1 and http://h/a?mail=a@b", "redis://h:1 and http://h/a?mail=a@b"),
        ("['redis://:a@h', 'http://:b@g']", "['redis://***@h', 'http://***@g']"),
    ],
)
def test_a_password_in_a_url_is_masked_and_the_rest_is_kept(text: str, shown: str) -> None:
    assert masked(text) == shown


def record(error: Exception | None = None) -> logging.LogRecord:
    raised = (type(error), error, None) if error else None
    return logging.LogRecord("shop", logging.WARNING, "f", 1, "at %s", ("redis://:hunter2@h",), raised)


def test_a_line_for_people_says_when_how_grave_who_and_what() -> None:
    line = formatter("human", "worker-00").format(record(ValueError("redis://:hunter2@g")))
    assert "WARNING shop: at redis://***@h\nValueError: redis://***@g" in line


def test_a_line_for_programs_is_one_json_object() -> None:
    line = formatter("json", "worker-00").format(record(ValueError("redis://:hunter2@g\nand more")))
    assert "\n" not in line
    fields = json.loads(line)
    assert datetime.fromisoformat(fields.pop("time")).utcoffset() is not None
    assert fields == {
        "level": "WARNING",
        "logger": "shop",
        "message": "at redis://***@h",
        "process": "worker-00",
        "exc_info": "ValueError: redis://***@g\nand more",
    }
    assert "exc_info" not in json.loads(formatter("json", "x").format(record()))


@pytest.mark.parametrize("place", ["fail()", "t = threading.Thread(target=fail); t.start(); t.join()"])
def test_what_ends_a_process_or_a_thread_is_logged_like_the_rest(place: str) -> None:
    source = (
        "import threading\nfrom asgictl.telemetry.logs import set_up\nset_up('json', 'p')\n"
        f"def fail(): raise ValueError('redis://:hunter2@h')\n{place}\n"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    fields = json.loads(done.stderr)
    assert fields["level"] == "CRITICAL"
    assert fields["exc_info"].endswith("ValueError: redis://***@h")
