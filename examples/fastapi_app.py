"""FastAPI: server-sent events, a WebSocket, an upload, and state that the lifespan makes once in each process."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict

from fastapi import Depends, FastAPI, Request, UploadFile, WebSocket
from fastapi.sse import EventSourceResponse, ServerSentEvent


class State(TypedDict):
    """One queue for each client that listens to this process."""

    listeners: set[asyncio.Queue[str]]


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[State]:
    yield {"listeners": set()}


app = FastAPI(lifespan=lifespan)


async def listening(request: Request) -> AsyncIterator[asyncio.Queue[str]]:
    """What is published from now on until the client leaves."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    request.state.listeners.add(queue)
    try:
        yield queue
    finally:
        request.state.listeners.discard(queue)


@app.get("/events", response_class=EventSourceResponse)
async def events(queue: Annotated[asyncio.Queue[str], Depends(listening)]) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(event="listening")
    while True:
        yield ServerSentEvent(event="news", raw_data=await queue.get())


@app.post("/publish")
async def publish(request: Request, text: str) -> dict[str, int]:
    for queue in request.state.listeners:
        queue.put_nowait(text)
    return {"listeners": len(request.state.listeners)}


@app.websocket("/ws/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


@app.post("/upload")
async def upload(file: UploadFile) -> dict[str, Any]:
    """Reads the file piece by piece; it may be larger than memory."""
    digest = hashlib.sha256()
    while data := await file.read(64 << 10):
        digest.update(data)
    return {"name": file.filename, "bytes": file.size, "sha256": digest.hexdigest()}
