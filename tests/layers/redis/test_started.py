"""What a worker notes, and what is found of it after its death."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from asgictl.layers.redis.started import PART_BYTES, SLOT_BYTES, SLOTS, UNKNOWN, Begun, Started, begun, take_started


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "started-7"


def test_what_was_noted_is_found_once(path: Path) -> None:
    started = Started(path, 0)
    started.note(b"ch", b"1-0")
    started.note(b"other", b"1-0")
    assert take_started(path) == ("ch 1-0", "other 1-0")
    assert take_started(path) == UNKNOWN


def test_what_was_cleared_is_not_found(path: Path) -> None:
    started = Started(path, 0)
    started.note(b"ch", b"1000-0")
    started.note(b"ch", b"2000-0")
    started.clear()
    assert take_started(path) == ()
    started = Started(path, 0)
    started.note(b"ch", b"1000-0")
    started.clear()
    started.note(b"ch", b"3-0")
    assert take_started(path) == ("ch 3-0",)


@pytest.mark.parametrize("parts", [(0, 1, 2), (2, 1, 0)])
def test_every_thread_has_a_part(path: Path, parts: tuple[int, ...]) -> None:
    threads = {part: Started(path, part) for part in parts}
    for part in (0, 2):
        threads[part].note(b"ch", b"%d-0" % part)
    assert take_started(path) == ("ch 0-0", "ch 2-0")


def test_more_than_a_part_holds_may_be_any(path: Path) -> None:
    first, second = Started(path, 0), Started(path, 1)
    for number in range(PART_BYTES):
        first.note(b"ch", b"1700000000000-%d" % number)
        second.clear()
        second.note(b"ch", b"%d-0" % number)
    found = take_started(path)
    assert "?" in found
    assert found[-1] == f"ch {PART_BYTES - 1}-0", "the next part is whole"
    assert sum(map(len, found)) < 2 * PART_BYTES


def test_a_worker_that_nobody_looks_after_notes_nothing() -> None:
    started = Started(None, 0)
    started.note(b"ch", b"1-0")
    started.clear()


def test_where_events_run_side_by_side_any_may_have_started(path: Path) -> None:
    started = Started(path, 0, is_exact=False)
    started.note(b"ch", b"1-0")
    started.clear()
    assert take_started(path) == ("?", "ch 1-0")


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A disk that has room for one part, and the rest of it is a hole."""
    if os.geteuid():
        pytest.skip("NOT RUN: only root mounts")
    size = f"size={PART_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_on_a_full_disk_nothing_is_noted_and_any_may_have_started(full: Path) -> None:
    path = full / "started-7"
    threads = [Started(path, part) for part in range(2)]
    for thread in threads:
        thread.note(b"ch", b"1-0")
        thread.clear()
    assert take_started(path) == UNKNOWN
    with suppress(OSError):
        (full / "more").write_bytes(bytes(2 * PART_BYTES))
    server = Begun(full / "begun-7")
    server.end(server.begin("GET", "/"))
    assert not (full / "begun-7").exists()


def test_what_a_server_has_begun_and_not_ended_is_found(path: Path) -> None:
    noted = Begun(path)
    counts = [noted.begin("GET", f"/{number}") for number in range(SLOTS + 1)]
    for count in counts[:2]:
        noted.end(count)
    assert sorted(begun(path)) == sorted(f"GET /{number}" for number in range(2, SLOTS + 1))
    noted.begin("GET", "/" + "x" * 2 * SLOT_BYTES)
    assert max(map(len, begun(path))) == SLOT_BYTES - 1
