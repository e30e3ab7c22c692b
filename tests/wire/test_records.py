"""What became of a job: its id says until when it is kept."""

import time

import pytest

from asgictl.config import RECORD_SECONDS
from asgictl.wire.records import JobRecord, Stage, is_current, new_id


def test_an_id_begins_with_the_milliseconds_of_its_expiry() -> None:
    before = time.time()
    expiry = int(new_id(60)[:13]) / 1000
    assert before - 0.001 <= expiry - RECORD_SECONDS - 60 <= time.time()


def test_ids_differ_and_are_as_long_as_those_of_django() -> None:
    ids = {new_id(0) for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(id) for id in ids} == {32}


@pytest.mark.parametrize("id", ["", "x", "1" * 32 + "\n", "9" * 12 + "g" * 20])
def test_an_id_that_is_none_is_not_current(id: str) -> None:
    assert not is_current(id)


def test_an_id_that_has_expired_is_not_current() -> None:
    assert is_current(new_id(0))
    assert not is_current(new_id(-RECORD_SECONDS - 1))


def test_a_value_holds_id_stage_and_content() -> None:
    id = new_id(0)
    assert JobRecord(id, Stage.RUNNING, b"a b").value == id.encode() + b" 1 a b"
