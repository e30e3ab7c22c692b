"""Whether the sides are forms of one site: before any is timed, all answer the same requests and sockets alike."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass

import websocket

from asgictl.errors import ComparisonError
from asgictl.loadtests.scenarios import Scenario
from asgictl.loadtests.servers import Server, Side, serving

SECONDS = 15
TOKEN = re.compile(rb"[0-9A-Za-z]{32,}")  # of a form, which is another each time
DEBUG = b"DEBUG = True"  # as Django's page for what it does not find says
MISSING = "/asgictl-compare-asks-for-what-is-not-there"
ECHOED = '{"message": "alike"}'  # which rooms of examples/django_site understand


@dataclass(frozen=True, slots=True)
class Said:
    """What a side answers to one request: a status, a media type, and the body without tokens."""

    status: int
    media_type: str
    body: bytes

    def __str__(self) -> str:
        return f"{self.status} {self.media_type}, {len(self.body):,} bytes"


def check(sides: Iterable[Side], scenarios: Iterable[Scenario]) -> None:
    """Start each side, and ask what the scenarios will. Raises ComparisonError, SideError when one does not start."""
    paths, sockets = set(), set()
    for scenario in scenarios:
        if scenario.unit == "request" or scenario.happenings:
            paths |= {scenario.path, scenario.slow_path} if "Mixed" in scenario.users else {scenario.path}
        if scenario.ws_path:
            sockets.add(scenario.ws_path + ("room-alike/" if "Room" in scenario.users else ""))
    heard = {}
    for side in sides:
        with serving(side) as server:
            asked = {path: ask(server, path) for path in sorted(paths | {MISSING})}
            if DEBUG in asked.pop(MISSING).body:
                raise ComparisonError(f"{side.name} runs with DEBUG on: turn it off")
            heard[side.name] = {path: str(said) for path, said in asked.items()}
            heard[side.name] |= {path: echo(server, path) for path in sorted(sockets)}
    (first, wanted), *others = heard.items()
    for name, found in others:
        for path, said in wanted.items():
            if found[path] != said:
                raise ComparisonError(
                    f"{path}: {first} answers {said}, {name} {found[path]}: they are not the same site"
                )


def ask(server: Server, path: str) -> Said:
    """Return what a side answers to GET."""
    try:
        with urllib.request.urlopen(server.url + path, timeout=SECONDS) as response:  # noqa: S310 (our own)
            return Said(response.status, response.headers.get_content_type(), TOKEN.sub(b"", response.read()))
    except urllib.error.HTTPError as error:
        with error:
            return Said(error.code, error.headers.get_content_type(), TOKEN.sub(b"", error.read()))


def echo(server: Server, path: str) -> str:
    """Return what comes back of a message."""
    connection = websocket.create_connection(server.url.replace("http", "ws", 1) + path, SECONDS)
    try:
        connection.send(ECHOED)
        return str(connection.recv())
    finally:
        connection.close()
