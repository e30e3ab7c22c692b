"""One interface server: checked first, then served, and its address let go of at the end."""

import gc
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgictl.config import Bind, InterfaceConfig
from asgictl.errors import RedisError
from asgictl.interface import process
from asgictl.interface.forwarder import Forwarder
from asgictl.telemetry.controller_client import Readiness

READINESS = Readiness(None, "interface", "interface")


@pytest.fixture(autouse=True)
def _garbage() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_a_forwarder_is_served_on_the_address(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def host(backend: Any, listener: socket.socket, name: str, *_: Any) -> bool:
        seen.extend([type(backend), name, Path(listener.getsockname()).exists()])
        listener.close()
        return True

    monkeypatch.setattr(process, "host", host)
    path = tmp_path / "s"
    assert process.serve(InterfaceConfig("shop", url, Bind(f"unix:{path}")), READINESS) == 0
    assert seen == [Forwarder, "uvicorn", True]
    assert not path.exists()


@pytest.mark.parametrize(("fenced", "started", "status"), [(False, False, 1), (True, True, 76)])
def test_the_exit_status_says_how_it_ended(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fenced: bool, started: bool, status: int
) -> None:
    def host(backend: Any, listener: socket.socket, *_: Any) -> bool:
        backend.is_fenced = fenced
        listener.close()
        return started

    monkeypatch.setattr(process, "host", host)
    assert process.serve(InterfaceConfig("shop", url, Bind(f"unix:{tmp_path / 's'}")), READINESS) == status


def test_without_a_redis_nothing_is_listened_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(RedisError):
        process.serve(InterfaceConfig("shop", "unix:///nowhere", Bind(f"unix:{path}")), READINESS)
    assert not path.exists()
