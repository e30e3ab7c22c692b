"""Which events a worker had started when it died: noted in a small file that outlives it.

An event that was only in its hands, not started, is sent again as if nothing had happened; one that had started may
have done half its work. The file is mapped into memory, so a note costs no system call. It holds `stream entry`, one
a line, up to a NUL; a worker of several threads has one part for each. Read by the controller of the same machine;
where there is none, every event of a dead worker counts as started.
"""

import contextlib
import mmap
from pathlib import Path

PART_BYTES = 16384
UNKNOWN = ("?",)  # more than a part holds, or no file: any may have started


class Started:
    """One thread's part of the file. path: None notes nothing."""

    def __init__(self, path: Path | None, part: int) -> None:
        self._map: mmap.mmap | None = None
        self._end = 0
        if path is not None:
            with path.open("ab+") as file:
                file.truncate(max(PART_BYTES * (part + 1), path.stat().st_size))
                self._map = mmap.mmap(file.fileno(), PART_BYTES, offset=PART_BYTES * part)

    def clear(self) -> None:
        """All that was noted is committed."""
        if self._map is not None:
            self._map[0] = self._end = 0

    def note(self, stream: bytes, entry: bytes) -> None:
        """This event starts now."""
        if self._map is not None:
            line = b"\n%b %b\0" % (stream, entry)
            if self._end + len(line) > PART_BYTES:
                self._end, line = 0, b"\n?\0"
            self._map[self._end + 1 : self._end + len(line)] = line[1:]  # first what the line feed then makes valid
            self._map[self._end] = line[0]
            self._end += len(line) - 1


def take_started(path: Path) -> tuple[str, ...]:
    """Return the entries that a dead worker had started, and remove its file."""
    try:
        data = path.read_bytes()
    except OSError:
        return UNKNOWN
    with contextlib.suppress(OSError):
        path.unlink()
    parts = [data[begin : begin + PART_BYTES] for begin in range(0, len(data), PART_BYTES)]
    return tuple(entry.decode() for part in parts for entry in part.partition(b"\0")[0].split(b"\n") if entry)
