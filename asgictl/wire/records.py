"""What became of a job, kept for whoever asks by its id."""

import re
import secrets
import time
from enum import IntEnum
from typing import NamedTuple

from asgictl.config import RECORD_SECONDS

MILLISECONDS_DIGITS = 13  # until the year 2286


class Stage(IntEnum):
    """A record of an earlier stage never replaces one of a later stage."""

    READY = 0
    RUNNING = 1
    FINISHED = 2


class JobRecord(NamedTuple):
    """The state of one job. id: from new_id(). content: what whoever asks is given."""

    id: str
    stage: Stage
    content: bytes

    @property
    def value(self) -> bytes:
        """What keep.lua reads."""
        return b"%b %d %b" % (self.id.encode(), self.stage, self.content)


def new_id(delay_seconds: float) -> str:
    """Return an id for a job that is due after a delay. It begins with the Unix milliseconds of its record's expiry."""
    expiry = int((time.time() + delay_seconds + RECORD_SECONDS) * 1000)
    return f"{expiry:0{MILLISECONDS_DIGITS}d}{secrets.token_hex(10)[:19]}"


def is_current(id: str) -> bool:
    """Whether an id is of new_id()'s form and its record has not expired."""
    return bool(re.fullmatch(r"\d{13}[0-9a-f]{19}", id)) and int(id[:MILLISECONDS_DIGITS]) > time.time() * 1000
