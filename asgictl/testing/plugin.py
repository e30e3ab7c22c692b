"""pytest's part, which pytest finds by itself: the fixture asgictl_instance, of the TARGET in `asgictl_target`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from asgictl.testing import Instance


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting."""
    parser.addini("asgictl_target", "TARGET that the fixture asgictl_instance runs, as mysite.asgictl_app:application")


@pytest.fixture
def asgictl_instance(pytestconfig: pytest.Config) -> "Iterator[Instance]":
    """An instance of the TARGET in pytest's setting asgictl_target, in this test's memory."""
    from asgictl.testing import Instance

    target = pytestconfig.getini("asgictl_target")
    if not target:
        raise pytest.UsageError("asgictl_instance needs the setting asgictl_target, such as app:application")
    with Instance(target) as instance:
        yield instance
