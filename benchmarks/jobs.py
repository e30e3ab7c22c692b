"""Background jobs that note when they ran; the load of `make bars background` and of its scenario in short form."""

import os
import time
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from asgictl import Application, BackgroundMessage, Channel
from benchmarks import applications


class Note(NamedTuple):
    """One run. id: of the message; late_seconds: by how much after its time, below 0 if early."""

    number: int
    id: str
    late_seconds: float


def note(message: BackgroundMessage) -> None:
    """Append a line, with one system call: many processes do."""
    number, due = message.content["number"], message.content["due"]
    line = f"{number} {message.id} {time.time() - due:.6f}\n"
    log = os.open(message.content["log"], os.O_WRONLY | os.O_APPEND)
    os.write(log, line.encode())
    os.close(log)


def relay(message: BackgroundMessage) -> None:
    """Send on what came, as a job of its own, and take a while, so that a kill finds one that runs."""
    Channel("note").send({**message.content, "due": time.time()})
    time.sleep(0.02)


app = Application(http=applications.wsgi, background={"note": note, "relay": relay})


def send_all(redis_url: str, log: Path, delays: list[float], channel: str = "note", first: int = 0) -> None:
    """Send a message for each delay, from outside of any event; they are numbered from `first` on."""
    log.touch()
    with patch.dict(os.environ, {"ASGICTL_REDIS": redis_url, "ASGICTL_NAME": "default"}):
        for number, delay in enumerate(delays, first):
            content = {"number": number, "due": time.time() + delay, "log": str(log)}
            Channel(channel).send(content, delay_seconds=delay)


def notes(log: Path) -> list[Note]:
    """Return what has run until now."""
    lines = [line.split() for line in log.read_text().splitlines()]
    return [Note(int(number), id, float(late)) for number, id, late in lines]
