"""What an instance is to be, as its description and supervisor.conf have it."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from asgictl.config import InstanceConfig
from asgictl.interface.handover import HANDOVER_SECONDS
from asgictl.telemetry.logs import masked

WORKER_STOP_SECONDS = 40  # more than a worker gives what it runs (worker/watchdog.py) and closing its sockets
# Requests and last turns 30 each, Redis; before, the hand-over, and that to itself, should it not have ended.
INTERFACE_STOP_SECONDS = 65 + 2 * int(HANDOVER_SECONDS)
STOP_SECONDS = {"interface": INTERFACE_STOP_SECONDS, "server": 65, "gunicorn": 40}  # as in supervisor.conf
_DEFAULTS = {each.name: each.default for each in fields(InstanceConfig) if each.default is not MISSING}
del _DEFAULTS["redis_url"]  # which is not described


def group_of(described: dict[str, Any], role: str) -> str:
    """Return what supervisor.conf calls a role's processes."""
    return "gunicorn" if role == "server" and described["server"] == "uvicorn" else role


def stop_seconds(group: str, role_options: Mapping[str, str]) -> int:
    """Return how long a process of a group has to end; a worker, its application's sockets included."""
    drain_seconds = float(role_options.get("ASGICTL_DRAIN_SECONDS", 0))
    return STOP_SECONDS.get(group, int(drain_seconds) + WORKER_STOP_SECONDS)


def roles(config: InstanceConfig) -> dict[str, int]:
    """Return how many ready processes each role has, in the order in which they start."""
    if config.mode == "inprocess":
        return {"server": config.workers}
    return {"worker": config.workers, "interface": config.interfaces}


def describe(config: InstanceConfig) -> dict[str, Any]:
    """Return a configuration as JSON has it, without what is secret in it."""
    described = asdict(config)
    described |= {"bind": config.bind.text, "url": config.url}
    described["options"] = {name: masked(value) for name, value in config.options.items()}
    described["redis"] = "external" if described.pop("redis_url") else "embedded" if config.uses_redis else "none"
    return described


def completed(described: dict[str, Any]) -> dict[str, Any]:
    """Return a description, which an older release may have written, with the fields that this one has added."""
    return {**_DEFAULTS, "options": {}, **described}
