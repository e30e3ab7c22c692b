"""The ends of logs, for people."""

import json
from contextlib import suppress
from pathlib import Path

import click

TAIL_LINES = 20
TAIL_BYTES = 4 << 10  # of each log that `logs` begins with
FOLLOW_SECONDS = 0.2


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


class Logs:
    """Shows on the terminal what processes of a role have logged since the last look, at first the last bytes."""

    def __init__(self, directory: Path, role: str = "", tail_bytes: int = 0, *, as_json: bool = False) -> None:
        self._logs = f"{role}*.log"
        self._directory = directory
        self._as_json = as_json
        self._shown = {log: max(size(log) - tail_bytes, 0) for log in directory.glob(self._logs)}

    def show(self) -> None:
        """Print what is new, whole lines only, each behind the name of its process."""
        for log in sorted(self._directory.glob(self._logs)):
            if log.stem == "supervisord":
                continue
            if (shown := self._shown.get(log, 0)) > size(log):
                shown = 0  # a log that was rotated begins anew
            lines = b""
            with suppress(FileNotFoundError), log.open("rb") as file:  # it is rotated, or the instance was stopped
                file.seek(shown)
                lines, _, _ = file.read().rpartition(b"\n")
            if lines:
                self._shown[log] = shown + len(lines) + 1
                for line in lines.decode(errors="replace").splitlines():
                    if self._as_json:  # wrap what is none, such as Redis's lines and print()'s
                        click.echo(line if line.startswith("{") else json.dumps({"process": log.stem, "message": line}))
                    else:
                        click.echo(f"{log.stem} | {line}")
