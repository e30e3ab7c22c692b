"""What needs attention."""

from typing import Any

import pytest

from asgictl.control.needs import needs, unserved
from asgictl.control.status_schema import Process
from tests.control.samples import end, process, status

GOOD = process("interface-00"), process("worker-00")


def of(*processes: Process, failed: tuple[dict[str, Any], ...] = (), **fields: Any) -> list[str]:
    return needs(status(*processes, **fields), list(failed))


def test_a_healthy_instance_needs_nothing() -> None:
    assert of(*GOOD, process("controller", ready=False), process("redis", ready=False)) == []


def test_what_does_not_start_says_why_unless_it_is_gone() -> None:
    failed = [{"process": f"worker-0{number}", "reason": "Traceback\nSyntaxError"} for number in (0, 1)]
    assert of(*GOOD, failed=tuple(failed)) == ["worker-00 does not start: SyntaxError; fix that, then asgictl reload"]


def test_what_is_given_up_is_told_though_it_is_gone() -> None:
    (line,) = of(*GOOD, failed=({"process": "worker-01", "reason": "", "is_given_up": True},))
    assert line == "worker-01 is not started again: it did not start: see asgictl logs; fix that, then asgictl reload"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"last_exit": end("SIGSEGV"), "restarts": 1}, "worker-00 ended 3 s ago: SIGSEGV; asgictl logs worker-00"),
        ({"last_exit": end("x"), "restarts": 3}, "worker-00 ended 3 s ago for the 3rd time: x; asgictl logs worker-00"),
        (
            {"last_exit": end("x"), "restarts": 12},
            "worker-00 ended 3 s ago for the 12th time: x; asgictl logs worker-00",
        ),
        ({"heard_seconds_ago": 4.2}, "worker-00 has not reported for 4 s; --silent-seconds will end it"),
        ({"redis_silent_seconds": 5.0}, "worker-00 last heard from Redis 5 s ago; check that Redis answers"),
        ({"full": 1}, "worker-00 has reached its open file limit and closes connections; raise ulimit -n"),
    ],
)
def test_what_is_wrong_with_a_process(fields: dict[str, Any], line: str) -> None:
    assert of(GOOD[0], process("worker-00", **fields)) == [line]


@pytest.mark.parametrize("last", [end("SIGSEGV", seconds_ago=61), end("exit status 0", status=0)])
def test_an_end_long_ago_and_one_in_order_need_nothing(last: Any) -> None:
    assert of(GOOD[0], process("worker-00", last_exit=last, restarts=1)) == []


def test_the_end_of_what_does_not_start_is_told_once() -> None:
    lost = process("worker-00", last_exit=end("exit status 3"), restarts=1)
    assert len(of(GOOD[0], lost, failed=({"process": "worker-00", "reason": "no module"},))) == 1


def test_roles_that_lack_processes_are_named() -> None:
    lines = of(process("interface-00", ready=False), process("worker-00"), workers=2)
    assert [line.partition(";")[0] for line in lines] == ["0 of 1 interfaces are ready", "1 of 2 workers are ready"]
    assert of(process("server-00/7"), mode="inprocess") == []
    assert of(process("server-00", ready=False), mode="inprocess")[0].startswith("0 of 1 servers are ready")


def test_while_the_controller_is_away_nobody_knows_what_is_ready() -> None:
    assert of(process("worker-00", ready=False), requests=None) == []


def test_mixed_releases_are_named_but_for_what_drains() -> None:
    mixed = process("worker-00", release="b"), process("worker-01", release="a")
    assert of(GOOD[0], *mixed) == ["mixed releases: a, b; asgictl reload makes them one"]


def test_a_channel_whose_events_wait_is_named_and_whether_anybody_serves_it() -> None:
    channels = {
        name: {"depth": 1, "taken": 0, "oldest_seconds": seconds, "readers": readers}
        for name, seconds, readers in [("quick", 9.0, 0), ("http.request.slow", 12.0, 0), ("http.request", 11.0, 2)]
    }
    assert list(unserved(channels)) == ["http.request.slow", "http.request"]
    lone, late = of(*GOOD, channels=channels)
    assert "waited for 12 s; no worker serves this channel: start one, as with --only-channels" in lone
    assert "waited for 11 s; asgictl scale starts more workers" in late
