"""What a server is told, and what a user is who chose one that is not there."""

import socket
from collections.abc import Iterator

import pytest
from uvicorn.importer import import_from_string

from asgictl.config import SERVERS, Limits
from asgictl.errors import StartError
from asgictl.interface.edge_http import HTTPProtocol
from asgictl.interface.hosting import check_server, host, uvicorn_settings


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as made:
        yield made


@pytest.mark.parametrize("server", SERVERS)
def test_every_server_is_here_for_these_tests(server: str) -> None:
    check_server(server)


@pytest.mark.parametrize("server", ["daphne", "hypercorn"])
def test_a_server_that_is_not_installed_is_named_with_its_remedy(
    server: str, monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StartError, match=rf"--server={server}: .*pip install 'asgictl\[{server}\]'"):
        host(None, listener, server, "", "", {})  # type: ignore[arg-type]


def test_uvicorn_is_told_of_the_limits() -> None:
    settings = uvicorn_settings(Limits(message_bytes=7, drain_seconds=3), "/below", {"ws_per_message_deflate": True})
    assert (settings["ws_max_size"], settings["timeout_graceful_shutdown"]) == (7, 3)
    assert (settings["root_path"], settings["server_header"]) == ("/below", False)
    assert settings["ws_per_message_deflate"], "a user's own option comes first"


def test_uvicorn_speaks_our_protocol_and_leaves_to_it_what_proxies_say() -> None:
    settings = uvicorn_settings(Limits(), "", {})
    assert import_from_string(settings["http"]) is HTTPProtocol
    assert (settings["ws"], settings["proxy_headers"]) == ("none", False)
