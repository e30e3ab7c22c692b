"""Channels 4's own consumers and sync views on our layer: under asgictl, and under other servers without it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.conftest import MODES, Machine, free_port, redis_server, until
from tests.scenarios.test_demo import SECONDS, get

CHAT = """
import os
from django.conf import settings

hosts = {"CONFIG": {"hosts": [os.environ["CHAT_REDIS"]]}} if "CHAT_REDIS" in os.environ else {}
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x",
    CHANNEL_LAYERS={"default": {"BACKEND": "asgictl.layers.RedisChannelLayer", **hosts}})
from django.core.asgi import get_asgi_application
http = get_asgi_application()
from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.http import HttpResponse
from django.urls import path

def say(request, how):
    layer, message = get_channel_layer(), {"type": "said", "text": f"a view, {how}"}
    if how == "sync":
        layer.group_send_sync("hall", message)
    else:
        async_to_sync(layer.group_send)("hall", message)
    return HttpResponse(str(os.getpid()))

urlpatterns = [path("<how>", say)]

class Async(AsyncWebsocketConsumer):
    groups = ["hall"]

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send("hall", {"type": "said", "text": text_data})

    async def said(self, event):
        await self.send(text_data=event["text"])

class Sync(WebsocketConsumer):
    def connect(self):
        self.accept()
        async_to_sync(self.channel_layer.group_add)("hall", self.channel_name)

    def disconnect(self, code):
        async_to_sync(self.channel_layer.group_discard)("hall", self.channel_name)

    def receive(self, text_data=None, bytes_data=None):
        async_to_sync(self.channel_layer.group_send)("hall", {"type": "said", "text": text_data})

    def said(self, event):
        self.send(text_data=event["text"])

sockets = URLRouter([path("async", Async.as_asgi()), path("sync", Sync.as_asgi())])
application = ProtocolTypeRouter({"http": http, "websocket": sockets})
"""
SERVERS = {
    "uvicorn": "uvicorn chat:application --port {port} --log-level warning --ws websockets-sansio",
    "daphne": "daphne chat:application --port {port} -v 0",
}


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    (tmp_path / "chat.py").write_text(CHAT)
    return tmp_path


@contextmanager
def served(server: str, directory: Path, redis_url: str) -> Iterator[int]:
    """Run another server than asgictl; yields its port."""
    port = free_port()
    command = [sys.executable, "-m", *SERVERS[server].format(port=port).split()]
    environment = os.environ | {"CHAT_REDIS": redis_url, "PYTHONPATH": str(directory)}
    with subprocess.Popen(command, cwd=directory, env=environment) as process:
        try:
            until(lambda: answers(port), f"{server} serves")
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) in (0, -signal.SIGTERM)


def answers(port: int) -> bool:
    try:
        return get(f"http://127.0.0.1:{port}/nobody")[0] == 200
    except OSError:
        return False


def talk(ports: list[int]) -> None:
    """Everybody hears everybody, each sender's words in order; and what a sync view says."""
    with ExitStack() as stack:
        urls = [f"ws://127.0.0.1:{port}/{kind}" for port in ports for kind in ("async", "sync")]
        sockets = [stack.enter_context(connect(url)) for url in urls]
        for number, socket in enumerate(sockets):  # heard back: whoever joins behind its handshake has joined
            socket.send(f"hello {number}")
            while socket.recv(SECONDS) != f"hello {number}":
                pass
        for socket in sockets:
            socket.send("all here")
        for socket in sockets:
            seen = 0
            while seen < len(sockets):
                seen += socket.recv(SECONDS) == "all here"
        for number in range(20):
            for index, socket in enumerate(sockets):
                socket.send(f"{index} {number}")
        for socket in sockets:
            heard = [str(socket.recv(SECONDS)).split() for _ in range(20 * len(sockets))]
            for index in range(len(sockets)):
                assert [int(number) for who, number in heard if int(who) == index] == list(range(20))
        for how in ("sync", "async"):
            assert get(f"http://127.0.0.1:{ports[0]}/{how}")[0] == 200
            assert {socket.recv(SECONDS) for socket in sockets} == {f"a view, {how}"}


def test_under_other_servers(chat: Path) -> None:
    with redis_server("valkey-8") as url, served("uvicorn", chat, url) as one, served("daphne", chat, url) as two:
        talk([one, two])


@pytest.mark.parametrize("mode", MODES)
def test_under_asgictl_in_the_redis_of_the_instance(machine: Machine, chat: Path, mode: str) -> None:
    machine.directory = chat
    machine.start("chat:application", "--mode", mode, "--workers", "2")
    talk([machine.port] * 2)
