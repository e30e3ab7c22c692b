"""What a worker notes, and what is found of it after its death."""

from pathlib import Path

import pytest

from asgictl.started import PART_BYTES, UNKNOWN, Started, take_started


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
