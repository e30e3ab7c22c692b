"""Runs channels_redis's own core suite on our channel layer: `make channels-suite`. Needs a package index.

Its source distribution, of the version that constraints.txt names, is downloaded and unpacked, and never stored here.
The suite runs as it is, with its own settings, on each Redis that is promised; channels_redis.core.RedisChannelLayer
is ours there. NOT_OURS lists the tests that are left out; docs/from-channels-4.md says what differs for users.
"""

import importlib.metadata
import logging
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import channels_redis.core
import pytest

from asgictl.channel_layer.redis import RedisChannelLayer
from tests.conftest import SERVERS, redis_server

PLACE = Path("build/channels-suite")
HELPERS = "pytest-asyncio", "async-timeout"  # what the suite imports, and nothing else here does
DEFAULT_HOSTS = ["redis://localhost:6379"]  # the suite's
NOT_OURS = {  # by the name of the test: what it looks at that is none of ours
    "test_default_group_key_format": "names of its keys in Redis",
    "test_custom_group_key_format": "names of its keys in Redis",
    "test_receive_buffer_respects_capacity": "its receive_buffer",
    "test_random_reset__client_prefix": "its client_prefix; test_random_reset__channel_name is run",
    "test_reject_bad_client_prefix": "AssertionError, where ours is a ValueError",
    "test_groups_multiple_hosts": "several hosts",
    "test_groups_multiple_hosts_performance": "several hosts",
}


class Layer(RedisChannelLayer):
    """Our layer where the suite expects a Redis at its default host."""

    def __init__(self, hosts: Sequence[Any] | None = None, **options: Any) -> None:
        super().__init__(None if hosts == DEFAULT_HOSTS else hosts, **options)

    async def close_pools(self) -> None:
        """Do nothing: the connections of an event loop close when it ends."""


class Deselect:
    """Leaves out what NOT_OURS lists, and fails when the suite has no such test any more."""

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        names = {item: item.name.partition("[")[0] for item in items}
        if missing := NOT_OURS.keys() - names.values():
            raise pytest.UsageError(f"the suite has no {', '.join(sorted(missing))}: mend NOT_OURS")
        config.hook.pytest_deselected(items=[item for item in items if names[item] in NOT_OURS])
        items[:] = [item for item in items if names[item] not in NOT_OURS]


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)


def unpacked() -> Path:
    """Return the directory of the suite's source distribution; download it when it is not there."""
    name = f"channels_redis-{importlib.metadata.version('channels_redis')}"
    if not (directory := PLACE / name).exists():
        PLACE.mkdir(parents=True, exist_ok=True)
        pip("download", "--no-deps", "--no-binary=:all:", "--dest", str(PLACE), name.replace("-", "=="))
        pip("install", "--no-deps", "--constraint", "constraints.txt", "--target", str(PLACE / "helpers"), *HELPERS)
        with tarfile.open(PLACE / f"{name}.tar.gz") as archive:
            archive.extractall(PLACE, filter="data")
    return directory


def main(arguments: list[str]) -> int:
    """Run the suite on each server; return pytest's exit status, the first that is no 0."""
    directory = unpacked().absolute()
    sys.path.append(str(PLACE.absolute() / "helpers"))
    channels_redis.core.RedisChannelLayer = Layer
    # Two tests end with the text that channels_redis logs of a full member; what comes before that is ours to hold.
    logging.getLogger("asgictl.rejections").setLevel(logging.ERROR)
    settings = ["-o", "asyncio_default_fixture_loop_scope=function", "-ra", f"--rootdir={directory}"]
    settings += [f"--config-file={directory}/setup.cfg", f"{directory}/tests/test_core.py"]
    statuses = []
    for server in SERVERS:
        with redis_server(server) as os.environ["ASGICTL_REDIS"]:
            print(f"channels_redis's core suite on {server}", flush=True)
            statuses.append(pytest.main([*settings, *arguments], plugins=[Deselect()]))
    return next((int(status) for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
