"""What a worker consumes."""

from typing import Any

import pytest

from asgictl.application import Application, path
from asgictl.errors import TargetError
from asgictl.worker.server import channels_of


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Serves nothing here."""


def consumer(message: Any) -> None:
    """Does nothing."""


def test_a_worker_reads_only_the_channels_that_its_application_has_a_use_for() -> None:
    routes = [path("/a", receive=consumer), path("/b", connect=consumer, receive=consumer)]
    assert channels_of(Application(http=wsgi), "t") == ["http.request"]
    assert channels_of(Application(websocket=routes), "t") == ["websocket.connect", "websocket.receive"]
    parting = Application(websocket=[path("/c", disconnect=consumer)])
    assert channels_of(parting, "t") == ["websocket.connect", "websocket.disconnect"], "a connect leaves the farewell"
    assert len(channels_of(Application(http={"/": wsgi, "/async": asgi}, websocket=routes), "t")) == 3


@pytest.mark.parametrize(
    "application", [Application(http=asgi), Application(http=wsgi, websocket=asgi), Application(), Application({})]
)
def test_what_split_mode_does_not_serve_is_refused_by_name(application: Application) -> None:
    with pytest.raises(TargetError, match="'site:app'"):
        channels_of(application, "site:app")
