"""What logs look like, and what they never show."""

import json
import logging
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

import asgictl
from asgictl.telemetry.logs import OURS, formatter, masked


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


def logged(source: str) -> list[str]:
    """Return what a process of ours logs that runs this code once its logs are set up, without times."""
    begin = (
        "import logging, logging.config\nfrom asgictl.telemetry.logs import set_up, take_rest\nset_up('human', 'p')\n"
    )
    done = subprocess.run([sys.executable, "-c", begin + source], capture_output=True, text=True, check=True)
    return [re.sub(r"^[\d-]+ [\d:,]+ ", "", line) for line in done.stderr.splitlines()]


OWN = "logging.getLogger('asgictl.worker').info('ours')\n"
THEIRS = "logging.getLogger('shop').warning('theirs')\n"


@pytest.mark.parametrize(
    "source",
    [
        "take_rest()\n" + OWN + THEIRS,
        OWN + THEIRS + "take_rest()",  # while TARGET is imported
        "logging.getLogger('shop').info('a detail')\ntake_rest()\n" + OWN + THEIRS,  # the root logger's own level
        "logging.getLogger('shop').addHandler(logging.NullHandler())\ntake_rest()\n" + OWN + THEIRS,
    ],
)
def test_what_no_handler_of_the_application_writes_is_written_like_the_rest(source: str) -> None:
    assert logged(source) == ["INFO asgictl.worker: ours", "WARNING shop: theirs"]


@pytest.mark.parametrize(
    "source",
    [
        "logging.basicConfig(format='%(message)s')\ntake_rest()\n" + OWN + THEIRS,
        "handler = logging.StreamHandler()\nlogging.getLogger('shop').addHandler(handler)\ntake_rest()\n"
        + OWN
        + THEIRS,
        "logging.config.dictConfig({'version': 1, 'handlers': {'c': {'class': 'logging.StreamHandler'}},"
        f"'root': {{'handlers': ['c']}}}})\ntake_rest()\n{OWN}{THEIRS}",
    ],
)
def test_what_the_application_writes_itself_is_written_once(source: str) -> None:
    assert logged(source) == ["INFO asgictl.worker: ours", "theirs"]


def test_an_application_that_names_our_loggers_has_them_as_it_likes() -> None:
    assert logged("logging.getLogger('asgictl.worker').setLevel('ERROR')\n" + OWN) == []


def test_each_logger_of_ours_is_one_that_no_application_disables_unasked() -> None:
    (root,) = asgictl.__path__
    folders = [Path(root).parent / folder for folder in ("asgictl", "interface", "worker")]
    sources = [path.read_text() for folder in folders for path in folder.rglob("*.py")]
    found = {name for source in sources for name in re.findall(r'getLogger\("(asgictl[^"]*)"\)', source)}
    assert found == set(OURS)
