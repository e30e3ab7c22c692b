"""Which events a process has started: noted in small files that outlive it.

An event that a worker only held, not started, is sent again as if nothing had happened; one that had started may have
done half its work. The file is mapped into memory, so a note costs no system call. It holds `stream entry`, one a line,
up to a NUL; a worker of several threads has one part for each. Read by the controller of the same machine; where there
is none, every event of a dead worker counts as started.

A server notes what it begins in a file of its own: method and path, or channel and path.
"""

import contextlib
import mmap
import os
from pathlib import Path

PART_BYTES = 16384
UNKNOWN = ("?",)  # more than a part holds, or no file: any may have started
SLOTS = 8  # of what a server has begun; the last ones are kept
SLOT_BYTES = 256


def mapped(path: Path, offset: int, size: int) -> mmap.mmap | None:
    """Map a part of a file that has its room on the disk: writing into a hole of a full one would be SIGBUS."""
    with path.open("ab+") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), offset, size)
            else:  # macOS
                file.truncate(max(offset + size, path.stat().st_size))
            return mmap.mmap(file.fileno(), size, offset=offset)
        except OSError:  # no room: whoever reads must not take a part that is missing for one that is empty
            path.unlink()
            return None


class Started:
    """One thread's part of the file of a worker. path: None notes nothing.

    is_exact: whether clear() tells all that has ended. Where events run side by side any may have started, and notes
    only name the last ones.
    """

    def __init__(self, path: Path | None, part: int, *, is_exact: bool = True) -> None:
        self._map = mapped(path, PART_BYTES * part, PART_BYTES) if path else None
        self._end = 0
        self._is_exact = is_exact
        if not is_exact:
            self._write(b"\n?\0")

    def clear(self) -> None:
        """All that was noted is committed."""
        if self._map is not None and self._is_exact:
            self._map[0] = self._end = 0

    def note(self, stream: bytes, entry: bytes) -> None:
        """This event starts now."""
        if self._map is not None:
            line = b"\n%b %b\0" % (stream, entry)
            if self._end + len(line) > PART_BYTES:
                self._end, line = 0, b"\n?" + line
            self._write(line)

    def _write(self, line: bytes) -> None:
        if self._map is not None:
            self._map[self._end + 1 : self._end + len(line)] = line[1:]  # first what the line feed then makes valid
            self._map[self._end] = line[0]
            self._end += len(line) - 1


def started(path: Path) -> list[list[str]]:
    """Return what each thread of a worker has started, `stream entry` or "?" for any, the last ones last.

    Raises OSError where there are no notes.
    """
    data = path.read_bytes()
    parts = [data[begin : begin + PART_BYTES] for begin in range(0, len(data), PART_BYTES)]
    return [[entry.decode() for entry in part.partition(b"\0")[0].split(b"\n") if entry] for part in parts]


def take_started(path: Path) -> tuple[str, ...]:
    """Return the entries that a dead worker had started, and remove its file."""
    try:
        found = started(path)
    except OSError:
        return UNKNOWN
    with contextlib.suppress(OSError):
        path.unlink()
    return tuple(entry for part in found for entry in part)


class Begun:
    """The last things that a server has begun and not ended. path: None notes nothing. For one thread."""

    def __init__(self, path: Path | None) -> None:
        self._map = mapped(path, 0, SLOTS * SLOT_BYTES) if path else None
        self.is_noting: bool = self._map is not None
        self._count = 0
        self._owners = [0] * SLOTS

    def begin(self, kind: str, path: str) -> int:
        """Note what begins now; returns what end() is to be given."""
        self._count += 1
        slot = self._count % SLOTS
        self._owners[slot] = self._count
        if self._map is not None:
            text = f"{kind} {path}".encode("utf-8", "replace")[: SLOT_BYTES - 1] + b"\0"
            self._map[slot * SLOT_BYTES : slot * SLOT_BYTES + len(text)] = text
        return self._count

    def end(self, count: int) -> None:
        """It has ended; should others have taken its place, nothing changes."""
        slot = count % SLOTS
        if self._map is not None and self._owners[slot] == count:
            self._map[slot * SLOT_BYTES] = 0


def begun(path: Path) -> list[str]:
    """Return what a server has begun and not ended. Raises OSError where there are no notes."""
    data = path.read_bytes()
    slots = (data[begin : begin + SLOT_BYTES] for begin in range(0, len(data), SLOT_BYTES))
    return [text.decode("utf-8", "replace") for slot in slots if (text := slot.partition(b"\0")[0])]
