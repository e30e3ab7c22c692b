"""supervisord's listening sockets."""

import socket

import pytest

from asgictl.supervisord import Options


def parsed(url: str) -> socket.socket:
    listener: socket.socket = Options().parse_fcgi_socket(url, None, None, None, 5).create_and_bind()
    return listener


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_a_socket_is_bound_whichever_family_its_address_is_of(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with parsed(f"tcp://{address}:{port}") as listener:
        assert listener.getsockname()[:2] == (address.strip("[]"), port)


def test_a_file_is_supervisords_own() -> None:
    assert Options().parse_fcgi_socket("unix:///tmp/x.sock", None, None, None, 5).url == "unix:///tmp/x.sock"
