"""What asgictl's plugin does to the tests of a project, each time in a pytest of its own."""

from pathlib import Path

import pytest

from tests.testing.test_docs import run

PROJECT = """
import pytest
from asgictl import Channel, Group
from asgictl.errors import ConsumerError, RedisError
"""
TESTS = """
def test_a_group_is_refused():
    with pytest.raises(ConsumerError, match=r"'room', and no asgictl.testing.Instance is open"):
        Group("room").send(text="hello")

def test_a_job_is_refused():
    with pytest.raises(ConsumerError, match=r"background channel 'mail'.* asgictl_real_sends"):
        Channel("mail").send({})
"""
REAL = """
def test_it_goes_to_an_instance():
    with pytest.raises(RedisError, match="no instance 'default' is running"):
        Channel("mail").send({})
"""


@pytest.mark.parametrize(
    ("tests", "setting", "passed"), [(TESTS, "", 2), (REAL, "asgictl_real_sends = true", 1)], ids=["refused", "real"]
)
def test_a_test_without_an_instance_reaches_a_real_one_only_where_it_is_to(
    tmp_path: Path, tests: str, setting: str, passed: int
) -> None:
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{setting}\n")
    (tmp_path / "test_sends.py").write_text(PROJECT + tests)
    said = run(tmp_path)
    assert f"{passed} passed" in said, said
