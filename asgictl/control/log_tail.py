"""The ends of logs, for people: of one process, or of all in the order of time."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import click

from asgictl.control.log_lines import Line, Lines

TAIL_LINES = 20
FOLLOW_SECONDS = 0.2
BLOCK_BYTES = 64 << 10  # of a log that are read at first
MOST_BYTES = 16 << 20  # that are read of it in the end
BACKUPS = 10  # that supervisord keeps of a log (stdout_logfile_backups)
COLOURS = ("cyan", "green", "yellow", "blue", "magenta", "bright_cyan", "bright_green", "bright_blue")


def size(log: Path) -> int:
    """Return how many bytes a log has, which may not be there."""
    with suppress(FileNotFoundError):
        return log.stat().st_size
    return 0


def tail(log: Path, since: int = 0) -> str:
    """Return the last lines of a log, of those behind so many bytes."""
    logged = b""
    with suppress(FileNotFoundError):
        logged = log.read_bytes()
    return "\n".join(logged[since if since <= len(logged) else 0 :].decode(errors="replace").splitlines()[-TAIL_LINES:])


class Log:
    """One process's log, and those that it was rotated to: the last lines of now, then what comes."""

    def __init__(self, path: Path, shown: int = 0) -> None:
        self._path = path
        self._shown = shown  # bytes
        self._lines = Lines(path.stem)

    def last(self, count: int, since: float, level: int) -> list[Line]:
        """Return so many of the last lines that are as grave, and were written since then."""
        wanted = BLOCK_BYTES
        while True:
            data, is_all = self._end(wanted)
            lines = Lines(self._path.stem).parse(_texts(data), self._written_at(), is_strict=since > 0)
            found = [line for line in lines if line.level >= level and line.at >= since]
            if is_all or len(found) >= count or wanted >= MOST_BYTES or (lines and lines[0].at < since):
                return found[-count:]
            wanted *= 4

    def _end(self, wanted: int) -> tuple[bytes, bool]:
        """Return the last whole lines in so many bytes, and whether there are no more."""
        data = b""
        for path in self._rotated():
            end = self._shown if path == self._path else size(path)
            begin = max(end - (wanted - len(data)), 0)
            data = _read(path, begin, end) + data
            if path == self._path:
                data, newline, rest = data.rpartition(b"\n")
                data, self._shown = data + newline, self._shown - len(rest)
            if begin:
                return data.partition(b"\n")[2], False
        return data, True

    def _rotated(self) -> Iterator[Path]:
        yield self._path
        yield from (path for n in range(1, BACKUPS + 1) if (path := Path(f"{self._path}.{n}")).exists())

    def new(self) -> list[Line]:
        """Return the whole lines that were written since the last look."""
        data = b""
        if self._shown > size(self._path):  # it was rotated
            data, self._shown = _read(Path(f"{self._path}.1"), self._shown), 0
        whole, newline, _ = _read(self._path, self._shown).rpartition(b"\n")
        self._shown += len(whole + newline)
        return self._lines.parse(_texts(data + whole), self._written_at())

    def _written_at(self) -> float:
        with suppress(FileNotFoundError):
            return self._path.stat().st_mtime
        return 0.0


def _read(path: Path, begin: int, end: int | None = None) -> bytes:
    with suppress(FileNotFoundError), path.open("rb") as file:  # it is rotated, or the instance was stopped
        file.seek(begin)
        return file.read(-1 if end is None else end - begin)
    return b""


def _texts(data: bytes) -> list[str]:
    return data.decode(errors="replace").splitlines()


class Logs:
    """Shows on the terminal what processes of a role log, by time: the last lines of now, then what comes.

    level: the least that is shown, as logging has it. as_json: as the instance's --log-format.
    """

    def __init__(self, directory: Path, role: str = "", level: int = 0, *, as_json: bool = False) -> None:
        self._role = role
        self._directory = directory
        self._level = level
        self._as_json = as_json
        self._logs = {path: Log(path, size(path)) for path in self.files()}

    def files(self) -> list[Path]:
        """Return where the logs are."""
        return sorted(each for each in self._directory.glob("*.log") if each.name.startswith(self._role))

    def roles(self) -> list[str]:
        """Return the roles that have logs."""
        return sorted({each.stem.partition("-")[0] for each in self._directory.glob("*.log")})

    def show_last(self, count: int, since: float = 0.0) -> None:
        """Print so many of the last lines of all, written since then (by time.time())."""
        found = (line for log in self._logs.values() for line in log.last(count, since, self._level))
        self._print(_by_time(found)[-count:])

    def show(self) -> None:
        """Print what is new, whole lines only."""
        for path in self.files():
            self._logs.setdefault(path, Log(path))
        new = (line for log in self._logs.values() for line in log.new() if line.level >= self._level)
        self._print(_by_time(new))

    def _print(self, lines: Iterable[Line]) -> None:
        colours = False if os.environ.get("NO_COLOR") else None  # https://no-color.org; None: where a terminal reads
        for line in lines:
            if self._as_json:
                click.echo(line.as_json())
            else:
                process = click.style(f"{line.process} |", fg=COLOURS[crc32(line.process.encode()) % len(COLOURS)])
                click.echo(f"{process} {line.text}", color=colours)


def _by_time(lines: Iterable[Line]) -> list[Line]:
    """Return lines by time; those that a process has written at one time, as a traceback, stay together."""
    return sorted(lines, key=lambda line: (line.at, line.process))
