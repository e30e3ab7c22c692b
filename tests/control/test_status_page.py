"""What `asgictl status` shows, in terminals of several widths."""

import time

import pytest

from asgictl.control.status_page import HEADING, WRONG, Line, page, summary
from asgictl.control.status_schema import Process, Status
from tests.control.samples import end, process, status, times

WIDTHS = 80, 100, 200


def text(found: Status, width: int = 200) -> str:
    return "\n".join(line.text for line in page(found, width))


def shown(found: Status, name: str, width: int = 200) -> str:
    (line,) = [line for line in text(found, width).split("\n\n")[1].splitlines() if line.startswith(name)]
    return line


def crowd() -> list[Process]:
    """Ten of each kind, with figures as wide as they get."""
    busy = {"cpu_share": 1.0, "busy_share": 1.0, "http": 10_000, "websockets": 20_000, "running": 999, "restarts": 99}
    return [
        process("controller", ready=False, cpu_share=0.5),
        process("redis", ready=False),
        *(process(f"interface-{number:02}", **busy) for number in range(10)),
        *(process(f"worker-{number}", **busy, release="2026-11-29.1", rss_bytes=9 << 30) for number in range(95, 105)),
        process("worker-105", state="STOPPING", **busy),
        process("worker-106", heard_seconds_ago=123.0, **busy),
        process("server-00/4000000", **busy),
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_all_processes_are_there_and_no_pid_or_state_is_cut(width: int) -> None:
    found = status(*crowd(), warnings=["worker-106 has not reported for 123 s; --silent-seconds will end it " * 2])
    lines = page(found, width)
    assert max(len(line.text) for line in lines) <= width
    for each in crowd():
        words = [line.text for line in lines if line.text.startswith(each["process"] + " ")]
        assert len(words) == 1
        assert str(each["pid"]) in words[0]
    assert "silent 123 s" in shown(found, "worker-106", width)
    assert "draining" in shown(found, "worker-105", width)


def test_a_wide_terminal_has_every_column() -> None:
    heading = next(line.text for line in page(status(*crowd()), 200) if line.style == HEADING)
    assert heading.split() == [
        "process",
        "state",
        "pid",
        "up",
        "restarts",
        "CPU",
        "RSS",
        "busy",
        "runs",
        "HTTP",
        "sockets",
        "release",
    ]


def test_what_is_wrong_comes_first_and_alone_has_the_style_for_it() -> None:
    lost = process("worker-07", state="BACKOFF", ready=False, pid=0)
    young = process("worker-00", state="STARTING")  # supervisord's word for its first second
    lines = page(status(process("interface-00"), lost, young, warnings=["mend it"]), 80)
    assert lines[1:3] == [Line("Needs attention:", WRONG), Line("  - mend it", WRONG)]
    processes = [line for line in lines if line.text.startswith(("worker", "interface-00 "))]
    assert [line.text.split()[0] for line in processes] == ["worker-07", "interface-00", "worker-00"]
    assert [line.style for line in processes] == [WRONG, "", ""]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "ready"),
        ({"running": 1}, "busy"),
        ({"running": 1, "heard_seconds_ago": 12.0}, "silent 12 s"),
        ({"state": "STOPPING", "running": 1}, "draining"),
        ({"state": "FATAL", "ready": False}, "FATAL"),
    ],
)
def test_ready_busy_draining_and_silent_are_told_apart(fields: dict[str, object], word: str) -> None:
    assert shown(status(process("worker-00", **fields)), "worker-00").split("  ")[1].strip() == word


def test_a_hand_over_is_one_line_below_the_processes() -> None:
    until = time.mktime((2026, 11, 29, 12, 30, 5, 0, 0, -1))
    found = status(process("interface-00", moved=180, waiting=20, until=until), process("interface-01", moved=200))
    processes = text(found).split("\n\n")[1].splitlines()
    assert processes[-1] == "interface-00 hands over: 180 moved, 20 wait, until 12:30:05"
    assert text(found).count("hands over") == 1


def test_what_runs_for_long_is_named_the_longest_first() -> None:
    runs = [{"what": "GET /quick", "seconds": 0.9}, {"what": "GET /slow", "seconds": 12.34}]
    found = status(process("worker-00", runs=runs), process("worker-01", runs=[{"what": "GET /x", "seconds": 130.0}]))
    block = text(found).partition("running now")[2].split("\n\n")[0].splitlines()[1:]
    assert [line.split() for line in block] == [
        ["worker-01", "2", "min", "GET", "/x"],
        ["worker-00", "12.3", "s", "GET", "/slow"],
    ]


def test_last_exits_have_their_reasons_the_newest_first() -> None:
    found = status(
        process("worker-00", last_exit=end("exit status 9", 130.0)),
        process("worker-01", last_exit=end("killed by the kernel: out of memory (SIGKILL)", 3.2)),
    )
    block = text(found).partition("last exits")[2].split("\n\n")[0].splitlines()[1:]
    assert block == [
        "worker-01    77  3.2 s  killed by the kernel: out of memory (SIGKILL)",
        "worker-00    77  2 min  exit status 9",
    ]


def test_channels_and_the_databases_ceiling_are_shown() -> None:
    channels = {"http.request.slow": {"depth": 5, "taken": 2, "oldest_seconds": 12.25, "readers": 4}}
    shown = text(status(channels=channels, database_connections_at_most=6))
    (line,) = [line for line in shown.splitlines() if line.startswith("http.request.slow")]
    assert line.split() == ["http.request.slow", "5", "2", "12.2", "s", "4"]
    assert "database connections at most: 6" in shown


def test_an_asgi_application_that_serves_sockets_has_neither_turns_nor_a_known_number_of_database_connections() -> None:
    found = status()
    assert [word in text(found) for word in ("requests", "turns", "database")] == [True] * 3
    found["ready"][1]["websocket"] = "ASGI"
    assert [word in text(found) for word in ("requests", "turns", "database")] == [True, False, False]


def test_quantiles_have_the_digits_that_they_have() -> None:
    run = {"p50_seconds": 0.000_049_9, "p95_seconds": None, "p99_seconds": None}
    found = status(requests=times(p50_seconds=0.000_432_1, p95_seconds=0.012_34, p99_seconds=1.234_5, run=run, total=9))
    (line,) = [line for line in text(found).splitlines() if line.startswith("requests")]
    assert line.split() == ["requests", "0.0", "0.43", "12", "1200", "–", "0.050", "9"]


def test_while_the_controller_is_away_there_are_no_times() -> None:
    assert "last 10 s" not in text(status(requests=None, turns=None))


def brief(found: Status, width: int = 200) -> str:
    return "\n".join(line.text for line in summary(found, width))


def test_a_split_summary_counts_both_roles_and_says_that_sockets_survive() -> None:
    found = status(redis="embedded", redis_url="unix:///run/redis.sock", workers=2)
    found["ready"] += [{"role": "worker", "process": "worker-01", "pid": 9, "websocket": "consumers"}]
    assert brief(found).split("\n")[0] == "asgictl 0 · shop · split · m:a · http://h:1"
    assert (
        "redis 1 embedded unix:///run/redis.sock   interface 1 ready on uvicorn   worker 2 ready (3 threads)"
        in brief(found)
    )
    assert "WebSockets: consumers, survive deploys" in brief(found)


@pytest.mark.parametrize(
    ("websocket", "keeps", "reason"),
    [
        ("consumers", "TLS ends here", "TLS ends here"),
        ("consumers", "", None),
        ("ASGI", "", "ASGI applications' sockets"),
        ("none", "daphne", None),
    ],
)
def test_a_summary_says_which_sockets_cannot_move(websocket: str, keeps: str, reason: str | None) -> None:
    found = status()
    found["ready"][0]["keeps"], found["ready"][1]["websocket"] = keeps, websocket
    told = [line.text for line in summary(found, 200) if "replaced" in line.text]
    assert told == ([] if reason is None else [f"  closed when their interface is replaced: {reason}"])


def test_an_inprocess_summary_says_that_a_deploy_closes_sockets() -> None:
    found = status(process("server-00/7"), mode="inprocess", redis="none")
    found["ready"][0]["websocket"] = "ASGI"
    assert "groups in memory   server 1 ready (3 threads) on uvicorn" in brief(found)
    assert "WebSockets: ASGI, closed by a deploy" in brief(found)


def test_a_summary_says_what_is_missing_and_what_was_refused() -> None:
    found = brief(status(process("worker-00"), workers=2, shed={"late": 3}))
    assert "interface 0 of 1 ready" in found
    assert "worker 1 of 2 ready" in found
    assert "WebSockets: none (give Application websocket=)" in found
    assert found.endswith("rejected: 3 × late")


def test_a_summary_says_how_many_files_a_process_may_open() -> None:
    found = status()
    found["ready"][0]["file_limit"], found["ready"][1]["file_limit"] = 20000, 1024
    assert "files at most 1,024 a process" in brief(found)


def test_a_summary_breaks_into_lines_where_there_is_no_room() -> None:
    found = status(redis="embedded", redis_url="unix:///tmp/asgictl-1000/default/redis.sock")
    assert max(map(len, brief(found, 80).split("\n"))) <= 80
    assert brief(found, 80).split() == brief(found).split()
