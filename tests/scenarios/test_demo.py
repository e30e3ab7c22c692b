"""The demo's fixed contract, in both modes, with real clients."""

import json
import threading
import urllib.request
from contextlib import ExitStack, suppress
from urllib.error import HTTPError

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.conftest import Machine

SECONDS = 60


def get(url: str, data: bytes | None = None, content_type: str = "text/plain") -> tuple[int, str, bytes]:
    """Return status, content type and body."""
    request = urllib.request.Request(url, data, {"Content-Type": content_type} if data is not None else {})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            return response.status, response.headers["Content-Type"], response.read()
    except HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def test_page_is_html_without_outside_addresses(demo: Machine) -> None:
    status, content_type, body = get(demo.url + "/")
    assert (status, content_type) == (200, "text/html; charset=utf-8")
    assert b"<html" in body
    assert b"https://" not in body


def test_hello(demo: Machine) -> None:
    assert get(demo.url + "/hello") == (200, "text/plain", b"Hello, world!")


@pytest.mark.parametrize("path", ["/sync?ms=3", "/cpu?ms=3"])
def test_blocking_views_answer(demo: Machine, path: str) -> None:
    assert get(demo.url + path)[0] == 200
    assert get(demo.url + path.replace("3", "-3"))[0] == 400


def test_async_view_answers(demo: Machine) -> None:
    assert get(demo.url + "/async?ms=3")[0] == 200


@pytest.mark.parametrize("size", [0, 3, 65_536, 3_000_000])
def test_echo_returns_body_and_content_type(demo: Machine, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert get(demo.url + "/echo", body, "application/x-thing") == (200, "application/x-thing", body)


def test_where_names_mode_process_and_worker(demo: Machine) -> None:
    found = json.loads(get(demo.url + "/where")[2])
    assert found["mode"] == demo.mode
    assert found["pid"] in demo.pids()
    assert found["worker"]


def test_processes_are_those_that_run_the_application(demo: Machine) -> None:
    found = [each for each in json.loads(get(demo.url + "/processes")[2]) if each["ready"]]
    assert len(found) == 2
    assert {each["pid"] for each in found} <= set(demo.pids())
    assert all(each["release"] and each["last_exit"] is None for each in found)


def test_unknown_path_and_wrong_method(demo: Machine) -> None:
    assert get(demo.url + "/nowhere")[0] == 404
    assert get(demo.url + "/hello", b"x")[0] == 405


def test_websocket_echoes_text_and_binary_in_order(demo: Machine) -> None:
    frames: list[str | bytes] = [f"{n}·" if n % 2 else bytes([n, 0, 255]) for n in range(200)] + [
        "",
        b"",
        "x" * 100_000,
    ]
    with connect(demo.ws + "/ws/echo") as ws:
        for frame in frames:
            ws.send(frame)
        assert [ws.recv(SECONDS) for _ in frames] == frames


def test_websocket_too_large_is_closed_with_1009(demo: Machine) -> None:
    with connect(demo.ws + "/ws/echo", max_size=None) as ws:
        ws.send("x" * ((1 << 20) + 1))
        with pytest.raises(Exception, match="1009"):
            ws.recv(SECONDS)


def test_count_is_kept_in_the_state_of_each_connection(demo: Machine) -> None:
    with connect(demo.ws + "/ws/count") as one, connect(demo.ws + "/ws/count") as other:
        for number in range(1, 60):
            one.send("")
            assert one.recv(SECONDS) == str(number)
        other.send("")
        assert other.recv(SECONDS) == "1"


def test_where_socket_names_a_live_process(demo: Machine) -> None:
    with connect(demo.ws + "/ws/where") as ws:
        ws.send("?")
        assert int(ws.recv(SECONDS)) in demo.pids()


def test_unknown_websocket_path_is_404(demo: Machine) -> None:
    with pytest.raises(InvalidStatus, match="404"):
        connect(demo.ws + "/ws/nowhere")


def test_chat_reaches_the_whole_room_unchanged_and_nobody_else(demo: Machine) -> None:
    """Six sockets, so that with two in-process servers both hold members."""
    with ExitStack() as stack:
        red = [stack.enter_context(connect(demo.ws + "/ws/chat/red")) for _ in range(6)]
        blue = stack.enter_context(connect(demo.ws + "/ws/chat/blue"))
        for number, sender in enumerate(red):
            sender.send(f"hello {number}")
        for member in red:
            assert sorted(str(member.recv(SECONDS)) for _ in red) == [f"hello {number}" for number in range(len(red))]
        blue.send(b"\x00\xff")
        assert blue.recv(SECONDS) == b"\x00\xff"


def test_messages_of_one_sender_reach_every_member_in_order(demo: Machine) -> None:
    with ExitStack() as stack:
        members = [stack.enter_context(connect(demo.ws + "/ws/chat/order")) for _ in range(4)]
        for number in range(100):
            members[0].send(str(number))
        for member in members:
            assert [member.recv(SECONDS) for _ in range(100)] == [str(number) for number in range(100)]


def test_page_sockets_hear_which_process_handled_a_message(demo: Machine) -> None:
    with connect(demo.ws + "/ws/room/both") as page, connect(demo.ws + "/ws/chat/both") as chat:
        chat.send("from the terminal")
        heard = json.loads(page.recv(SECONDS))
        assert heard["text"] == "from the terminal"
        assert heard["pid"] in demo.pids()
        assert chat.recv(SECONDS) == "from the terminal"
        page.send("from the page")
        assert chat.recv(SECONDS) == "from the page"


def test_fifty_clients_at_once(demo: Machine) -> None:
    wrong: list[str] = []

    def client(number: int) -> None:
        with connect(demo.ws + "/ws/echo") as ws:
            for turn in range(20):
                ws.send(f"{number}.{turn}")
                if (heard := ws.recv(SECONDS)) != f"{number}.{turn}":
                    wrong.append(f"{number}.{turn}: {heard!r}")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def closed_with(ws: ClientConnection) -> int | None:
    """Wait for the end of a socket; returns the close code."""
    with suppress(ConnectionClosed):
        while True:
            ws.recv(SECONDS)
    return ws.close_code
