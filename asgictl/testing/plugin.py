"""pytest's part, which pytest finds by itself: the fixture asgictl_instance, of the TARGET in `asgictl_target`.

Without an Instance a test sends nothing: it would reach whatever instance runs on this machine.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import pytest

from asgictl.app import outside
from asgictl.errors import ConsumerError
from asgictl.wire.messages import Broadcast, Job, Sent

if TYPE_CHECKING:
    from asgictl.testing import Instance

BEFORE = pytest.StashKey[outside.StandIn | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the settings."""
    parser.addini("asgictl_target", "TARGET that the fixture asgictl_instance runs, as mysite.asgictl_app:application")
    parser.addini("asgictl_real_sends", "Let tests without an Instance send to a real one.", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse sends, from here to the end of the run, while no Instance takes them."""
    if not config.getini("asgictl_real_sends"):
        config.stash[BEFORE] = outside.use(outside.StandIn(_refuse, _refuse))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Have whoever took what is sent before take it again."""
    if BEFORE in config.stash:
        outside.use(config.stash[BEFORE])


def _refuse(sent: Sent | str) -> NoReturn:
    what = "the result of a task"
    if isinstance(sent, Broadcast):
        what = f"group {sent.group!r}"
    elif isinstance(sent, Job):
        what = f"background channel {sent.name!r}"
    raise ConsumerError(
        f"a test uses {what}, and no asgictl.testing.Instance is open: write `with Instance(app) as"
        " instance:` around it; asgictl_real_sends = true in pytest's settings lets tests send to a real instance"
    )


@pytest.fixture
def asgictl_instance(pytestconfig: pytest.Config) -> "Iterator[Instance]":
    """An instance of the TARGET in pytest's setting asgictl_target, in this test's memory."""
    from asgictl.testing import Instance

    target = pytestconfig.getini("asgictl_target")
    if not target:
        raise pytest.UsageError("asgictl_instance needs the setting asgictl_target, such as app:application")
    with Instance(target) as instance:
        yield instance
