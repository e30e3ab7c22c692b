"""What an instance says of itself, and how it finds its Redis."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from asgictl.config import Bind, InstanceConfig
from asgictl.control.description import describe, group_of
from asgictl.control.instance import Instance
from asgictl.errors import NotRunning


def config(mode: str = "split", redis_url: str | None = None, workers: int = 2) -> InstanceConfig:
    return InstanceConfig("shop", mode, "m:a", Bind("h:1"), workers, threads=1, redis_url=redis_url)


def test_a_description_holds_no_secret_and_is_json() -> None:
    described = describe(config(redis_url="redis://:hunter2@h:1"))
    assert "hunter2" not in json.dumps(described)
    assert described["redis"] == "external"
    assert described["bind"] == "h:1"


def test_a_description_masks_what_is_passed_on_and_says_https_with_tls() -> None:
    passed_on = {"ASGICTL_UVICORN_OPTION": "ssl_certfile=c ssl_keyfile_password=hunter2"}
    described = describe(replace(config(), options=passed_on))
    assert "hunter2" not in json.dumps(described)
    assert described["url"] == "https://h:1"
    assert describe(config())["url"] == "http://h:1"


@pytest.mark.parametrize(("mode", "workers", "redis"), [("split", 1, "embedded"), ("inprocess", 1, "none")])
def test_a_description_says_whose_redis_it_is(mode: str, workers: int, redis: str) -> None:
    assert describe(config(mode, workers=workers))["redis"] == redis


def test_gunicorn_has_a_group_of_its_own_in_the_configuration() -> None:
    assert group_of({"server": "uvicorn"}, "server") == "gunicorn"
    assert group_of({"server": "daphne"}, "server") == "server"
    assert group_of({"server": "uvicorn"}, "worker") == "worker"


def test_an_instance_that_does_not_run_is_not_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(NotRunning, match="'shop'"):
        Instance("shop").stop()
