"""Channel layers of Channels 4 under measurement: a group's members, and one pair of processes.

python -m benchmarks.layers LAYER REDIS_URL SECONDS prints the median seconds from send to receive in another process.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import uvloop

from asgictl.control.preflight import find_redis_server

LAYERS = {
    "ours": "asgictl.layers.RedisChannelLayer",
    "memory": "asgictl.layers.InMemoryChannelLayer",  # the least that a layer can cost
    "core": "channels_redis.core.RedisChannelLayer",
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
}


def start_redis(directory: str) -> tuple[str, subprocess.Popen[bytes]]:
    """Start a Redis that ends with whoever asked for it; returns its URL."""
    path = f"{directory}/redis.sock"
    command = [find_redis_server(), "--port", "0", "--save", "", "--loglevel", "warning", "--unixsocket", path]
    return f"unix://{path}", subprocess.Popen(command)


def configure(layer: str, redis_url: str) -> Any:
    """Make it the default layer of this process's Django; returns it."""
    from channels.layers import get_channel_layer
    from django.conf import settings

    if not settings.configured:
        settings.configure()
    config = {} if layer == "memory" else {"hosts": [redis_url]}
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": LAYERS[layer], "CONFIG": config}}
    return get_channel_layer()


def broadcast(layer: str, bare: str = "") -> Any:
    """Return a consumer of Channels 4 whose group `layer` keeps.

    bare: Channels 4.3 closes old database connections before each message, in another thread, which costs more than
    all else; this one passes over that, as a site without a database may.
    """
    from channels.consumer import get_handler_name
    from channels.generic.websocket import AsyncWebsocketConsumer

    configure(layer, start_redis(os.environ["XDG_RUNTIME_DIR"])[0])

    class Member(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
        groups = ("all",)

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.channel_layer.group_send("all", {"type": "said", "text": text_data})

        async def said(self, event: dict[str, Any]) -> None:
            await self.send(text_data=event["text"])

    class Bare(Member):
        async def dispatch(self, message: dict[str, Any]) -> None:
            await getattr(self, get_handler_name(message))(message)

    return (Bare if bare else Member).as_asgi()


async def ask(layer: Any, there: str, seconds: float) -> list[float]:
    """Send to whoever answers in a channel, for a while; returns what each message took."""
    here = await layer.new_channel()
    taken, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        await layer.send(there, {"sent": time.perf_counter(), "to": here})
        taken.append((await layer.receive(here))["took"])
    return taken[len(taken) // 4 :]  # the first ones warm up


async def answer(layer: Any) -> None:
    """Tell whoever asks what its message took; one clock serves all processes of a machine."""
    here = await layer.new_channel()
    print(here, flush=True)
    while True:
        message = await layer.receive(here)
        await layer.send(message["to"], {"took": time.perf_counter() - message["sent"]})


@contextmanager
def redis_url() -> Iterator[str]:
    """Run a Redis of one's own."""
    with TemporaryDirectory(prefix="ab-", dir="/tmp") as directory:
        url, process = start_redis(directory)
        with process:
            yield url
            process.terminate()


def took(layer: str, url: str, seconds: float) -> float:
    """Return the median seconds from send to receive, between two processes of which this is neither."""
    command = [sys.executable, "-m", "benchmarks.layers", layer, url, str(seconds)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    made = configure(*sys.argv[1:3])
    if len(sys.argv) > 3:
        command = [sys.executable, "-m", "benchmarks.layers", *sys.argv[1:3]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None  # noqa: S101 - it was asked for
            print(median(uvloop.run(ask(made, other.stdout.readline().strip(), float(sys.argv[3])))))
            other.terminate()
    else:
        uvloop.run(answer(made))
