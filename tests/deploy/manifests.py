"""What deploy/ holds, read as the programs do that it is for."""

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

from asgictl.cli.main import main
from asgictl.control.description import STOP_SECONDS, stop_seconds
from asgictl.interface.handover import HANDOVER_SECONDS

DEPLOY = Path(__file__).parents[2] / "deploy"
DEMANDED = (
    ("promtool", "yaml", "kubernetes_validate", "check_jsonschema") if "ASGICTL_DEMAND_DEPLOY" in os.environ else ()
)


def need(name: str, found: object) -> None:
    """Skip a test without what it needs, or fail it where the run demands that."""
    if not found:
        (pytest.fail if name in DEMANDED else pytest.skip)(f"NOT RUN: no {name} on this machine")


def tool(name: str) -> str:
    """Return the path of a program."""
    found = shutil.which(name)
    need(name, found)
    return str(found)


def module(name: str) -> None:
    """See that a module of the dev group is installed."""
    need(name, importlib.util.find_spec(name))


def run(*command: str | Path) -> str:
    """Return what a command prints; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(name: str, *arguments: str | Path) -> str:
    return run(sys.executable, "-m", name, *arguments)


def documents(text: str) -> list[Any]:
    """Return the documents of some YAML."""
    module("yaml")
    import yaml

    return list(yaml.safe_load_all(text))


@cache
def built(overlay: str) -> str:
    """Return what kustomize makes of an overlay."""
    return run(tool("kubectl"), "kustomize", DEPLOY / "kubernetes" / overlay)


def of_kind(kind: str, overlay: str = "base") -> dict[str, Any]:
    """Return the objects of a kind by their names."""
    return {each["metadata"]["name"]: each for each in documents(built(overlay)) if each["kind"] == kind}


class Role(NamedTuple):
    """A role as deploy/ starts it. stop_seconds: after which it is killed."""

    where: str
    command: Sequence[str]
    environment: dict[str, str]
    stop_seconds: float

    def parsed(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Return its options as the command line understands them; fails where it refuses them."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        name, *arguments = self.command
        command = main.get_command(click.Context(main), name)
        assert command is not None, f"{self.where}: there is no command {name}"
        return command.make_context(name, list(arguments)).params

    def needed_seconds(self, options: dict[str, Any]) -> float:
        """Return how long its stop may take."""
        if self.command[0] == "worker":
            return stop_seconds("worker", {"ASGICTL_DRAIN_SECONDS": str(options["drain_seconds"])})
        delay_seconds: float = options["shutdown_delay"]
        return STOP_SECONDS["interface"] - 2 * HANDOVER_SECONDS + delay_seconds  # it hands over to nobody


def roles() -> Iterator[Role]:
    """Return every role of every file."""
    (settings,) = of_kind("ConfigMap").values()
    for name, made in of_kind("Deployment").items():
        pod = made["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        environment = {**settings["data"], **{each["name"]: "redis://redis" for each in container["env"]}}
        yield Role(f"kubernetes/{name}", container["args"], environment, pod["terminationGracePeriodSeconds"])
    (compose,) = documents((DEPLOY / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        if name != "redis":
            seconds = float(service["stop_grace_period"].removesuffix("s"))
            yield Role(f"compose/{name}", shlex.split(service["command"]), service["environment"], seconds)
    for path in (DEPLOY / "systemd").glob("mysite-*"):
        unit = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line and line[0] != "#")
        program, *command = shlex.split(unit["ExecStart"])
        assert program.endswith("/asgictl")
        environment = {"ASGICTL_REDIS": "redis://redis", "ASGICTL_NAME": "mysite"}
        yield Role(f"systemd/{path.name}", command, environment, float(unit["TimeoutStopSec"]))


def expressions() -> Iterator[str]:
    """Return every query to Prometheus: of the rules, the dashboard and KEDA."""
    (rules,) = documents((DEPLOY / "prometheus" / "alerts.yaml").read_text())
    yield from (rule["expr"] for group in rules["groups"] for rule in group["rules"])
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"].replace("$__rate_interval", "5m") for target in panel["targets"])
    for scaled in of_kind("ScaledObject", "keda").values():
        yield from (trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"])
