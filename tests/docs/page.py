"""A page of the documentation, run from its top to its end as a reader would. What each fence is, its language says:

python, toml, ini, yaml, nginx, html, dockerfile: a file, whose first line names it in a comment (`# app.py`); a file
that comes again replaces the first, and one with ", at its end" is added to.
sh: commands, which must succeed. What stays in the foreground runs in the background, until the next one or the end.
console: a session: `$` a command, `>` a line that is typed, `<` a line that must come. Without a command the last
session goes on.
text: what the `sh` before it prints in the end; `...` is anything, and so is another number.
shell: commands that need what a test has not, as root or minutes; json, http, py: an example, a signature. asgictl's
commands are parsed wherever they stand.
"""

import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import NamedTuple

from tests.conftest import Machine

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md"))]
FILES = {"python", "toml", "ini", "yaml", "nginx", "html", "dockerfile"}
KINDS = FILES | {"sh", "console", "text", "shell", "json", "http", "py"}
SECONDS = 60
NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Fence(NamedTuple):
    """A block of code."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> tuple[str, str]:
        """The name of a file, and "w" or "a"; empty for what is none."""
        name = re.match(r"(?:#|<!--) (\S+\.\w+|Dockerfile)(?:, ([^\n]*?))?(?: -->)?\n", self.text)
        return (name[1], "a" if name[2] == "at its end" else "w") if name else ("", "")


def fences(page: Path) -> list[Fence]:
    """Return the blocks of code of a page."""
    text = page.read_text()
    found = re.finditer(r"^```(\S*)\n(.*?)^```$", text, re.M | re.S)
    return [Fence(each[1], each[2], text.count("\n", 0, each.start()) + 1) for each in found]


def commands(page: Path) -> Iterator[list[str]]:
    """Return each command of asgictl that a page shows, wherever it shows it."""
    for fence in fences(page):
        if fence.language in {"text", "python"}:
            continue
        for line in re.sub(r"\\\n\s*", " ", fence.text).splitlines():
            found = re.match(r"\s*(?:\$ |ExecStart=|(?:command|args): |\S*=\S+ )?(?:\S*/)?asgictl ([^&|#]*)", line)
            found = found or re.match(r"\s*command: ((?:interface|worker|start) .*)", line)  # of our image
            if found:
                yield shlex.split(found[1])


class Session:
    """A command that is typed to."""

    def __init__(self, command: str, **settings: object) -> None:
        self.process = subprocess.Popen(  # type: ignore[call-overload]
            shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, **settings
        )
        self._lines: Queue[str] = Queue()
        self._reader = Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(re.sub(r"\x1b\W?\w|[\r\n]|^(?:> )+", "", line))

    def type(self, line: str) -> None:
        """Type a line."""
        self.process.stdin.write(line + "\n")

    def expect(self, line: str) -> None:
        """Wait for a line; raises AssertionError when it does not come."""
        seen: list[str] = []
        while not (seen and alike(line, seen[-1])):
            try:
                seen.append(self._lines.get(timeout=SECONDS))
            except Empty:
                raise AssertionError(f"{line!r} did not come, but {seen}") from None

    def end(self) -> None:
        self.process.terminate()
        self.process.communicate()
        self._reader.join()


def alike(wanted: str, got: str) -> bool:
    """Whether an output ends as a page has it: numbers may differ, `...` is anything."""
    wanted, got = (NUMBER.sub("0", " ".join(text.split())) for text in (wanted, got))
    return re.search(re.escape(wanted).replace(r"\.\.\.", ".*") + "$", got) is not None


class Reader:
    """Does what a page says, in a directory."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self._machine = machine
        self._directory = machine.directory = directory
        self._session: Session | None = None
        self._printed = ""
        self._environment = machine.environment | {
            "ASGICTL_BIND": f"127.0.0.1:{machine.port}",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "100",
            "CURL_HOME": str(directory),
        }
        (directory / ".curlrc").write_text("silent\nshow-error\n")  # as on a terminal

    def follow(self, page: Path) -> None:
        """Do it all. Raises AssertionError, which names the line."""
        try:
            for fence in fences(page):
                where = f"{page.name}:{fence.line}"
                text = fence.text.replace("127.0.0.1:8000", f"127.0.0.1:{self._machine.port}")
                if fence.file[0]:
                    self._write(fence)
                elif fence.language == "sh":
                    self._printed = "".join(self._run(each, where) for each in text.splitlines() if each)
                elif fence.language == "text":
                    assert not self._printed or alike(fence.text, self._printed), f"{where}:\n{self._printed}"
                elif fence.language == "console":
                    self._talk(text)
                if fence.language != "sh":
                    self._printed = ""
        finally:
            if self._session:
                self._session.end()

    def _write(self, fence: Fence) -> None:
        name, mode = fence.file
        path = self._directory / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as file:
            file.write(fence.text)

    def _run(self, command: str, where: str) -> str:
        command = command.removeprefix(".venv/bin/")
        if command.startswith("pip install"):
            wanted = " ".join(shlex.split(command)[2:]).replace("-U", "").split()
            for each in wanted:
                importlib.metadata.distribution(each.partition("[")[0].partition("=")[0])
            return ""
        if re.match(r"(asgictl|make) start\b", command):
            command = command.replace("make start", "asgictl start", 1) + (" -d" if " -d" not in command else "")
            self._machine.stop()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{where}: {command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stderr + done.stdout

    def _talk(self, text: str) -> None:
        for line in text.splitlines():
            if line.startswith("$ "):
                if self._session:
                    self._session.end()
                self._session = Session(line[2:], cwd=self._directory, env=self._environment)
            else:
                assert self._session, "a session begins with `$ command`"
                if line.startswith("> "):
                    self._session.type(line[2:])
                else:
                    self._session.expect(line)
