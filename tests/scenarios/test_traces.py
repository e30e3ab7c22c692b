"""One trace from the client's header to background work, with the SDK that an application configures."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.conftest import MODES, Machine, until

pytest.importorskip("opentelemetry.sdk.trace", reason="NOT RUN: opentelemetry-sdk is not installed")
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
APPLICATION = """
import os
import asgictl
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

file = open("spans", "a", buffering=1)
exporter = ConsoleSpanExporter(out=file, formatter=lambda span: span.to_json(None) + "\\n")
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

def view(environ, start_response):
    asgictl.Channel("thumbs").send({})
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

async def echo(message):
    message.reply(text=message.text)

async def job(message):
    pass

app = asgictl.Application(http=view, websocket=[asgictl.path("/ws", receive=echo)], background={"thumbs": job})
"""


@pytest.mark.parametrize("mode", MODES)
def test_requests_sockets_and_jobs_join_the_trace_of_their_client(machine: Machine, tmp_path: Path, mode: str) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    machine.directory = tmp_path
    machine.start("app:app", "--mode", mode, "--workers", "1")

    def spans() -> dict[tuple[str, str], dict[str, Any]]:
        lines = (tmp_path / "spans").read_text().splitlines()
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return {(each["name"], each["attributes"]["asgictl.event"]): each for each in found}

    with urllib.request.urlopen(urllib.request.Request(f"{machine.url}/a", headers=HEADERS), timeout=60) as answer:
        assert answer.read() == b"ok"
    with connect(machine.ws + "/ws", additional_headers=HEADERS) as ws:
        ws.send("x")
        assert ws.recv(60) == "x"
    events = ["GET /a", "websocket.receive /ws", "background.thumbs"]
    wanted = {("run", event) for event in events}
    wanted |= {("wait", event) for event in (events if mode == "split" else events[2:])}
    until(lambda: spans().keys() >= wanted, "all spans are there")
    found = spans()
    assert {each["context"]["trace_id"] for each in found.values()} == {"0x" + TRACE}
    assert found["run", "GET /a"]["parent_id"] == found["run", "websocket.receive /ws"]["parent_id"] == "0x" + PARENT
    assert found["run", "background.thumbs"]["parent_id"] == found["run", "GET /a"]["context"]["span_id"]
