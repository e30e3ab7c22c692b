"""Addresses and other small values."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgictl.config import EDGE_LIMITS, Bind, InstanceConfig, Limits, WorkerConfig, edge_limits, run_directory
from asgictl.errors import AddressError


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    "text", ["127.0.0.1:8000", "localhost:1", "0.0.0.0:65535", "[::1]:8000", "unix:/run/x.sock", "fd://0"]
)
def test_an_address_is_a_host_a_path_or_an_inherited_socket(text: str) -> None:
    assert Bind(text).text == text


@pytest.mark.parametrize(
    "text", ["", "8000", ":8000", "h:x", "::1:80", "[]:80", "[h]:80", "unix:", "unix:rel", "fd://x", "a b:1"]
)
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(AddressError, match=r"use 127\.0\.0\.1:8000 or unix:/path"):
        Bind(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.0.0.0", "0.0.0.0: it has no port; use 0.0.0.0:8000"),
        ("localhost", "localhost: it has no port; use localhost:8000"),
        ("[::1]", "[::1]: it has no port; use [::1]:8000"),
        ("h:0", "h:0: a port is a number from 1 to 65535"),
        ("h:65536", "h:65536: a port is a number from 1 to 65535"),
        ("h:80000", "h:80000: a port is a number from 1 to 65535"),
    ],
)
def test_a_port_that_is_missing_or_none_is_named(text: str, said: str) -> None:
    with pytest.raises(AddressError) as refused:
        Bind(text)
    assert str(refused.value) == f"--bind {said}"


def test_an_address_is_spelled_for_people_and_for_supervisord() -> None:
    assert (Bind("h:1").url, Bind("h:1").supervisor_url) == ("http://h:1", "tcp://h:1")
    assert (Bind("[::1]:1").url, Bind("[::1]:1").supervisor_url) == ("http://[::1]:1", "tcp://[::1]:1")
    assert (Bind("unix:/x").url, Bind("unix:/x").supervisor_url) == ("unix:/x", "unix:///x")


def test_a_port_that_is_taken_is_an_address_error(taken: int) -> None:
    with pytest.raises(AddressError, match=f"127.0.0.1:{taken}.*another --bind"):
        Bind(f"127.0.0.1:{taken}").check()


def test_a_unix_socket_is_its_owners_alone_and_a_check_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bind = Bind(f"unix:{path}")
    with bind.listen():
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(AddressError):  # somebody listens
            bind.check()
    assert path.exists()
    bind.check()  # what a killed server leaves is in nobody's way
    assert not path.exists()


@pytest.mark.parametrize("path", ["absent/s", "x" * 200])
def test_a_unix_socket_that_cannot_be_made_is_an_address_error(tmp_path: Path, path: str) -> None:
    with pytest.raises(AddressError, match="cannot listen"):
        Bind(f"unix:{tmp_path / path}").listen()


def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("kept")
    with pytest.raises(AddressError):
        Bind(f"unix:{precious}").check()
    Bind(f"unix:{precious}").release()
    assert precious.read_text() == "kept"


def test_an_inherited_socket_is_listened_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        port = inherited.getsockname()[1]
        with Bind(f"fd://{inherited.detach()}").listen() as listener:
            assert listener.getsockname()[1] == port


def test_a_descriptor_that_is_no_socket_is_an_address_error(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(AddressError):
        Bind(f"fd://{file.fileno()}").listen()


def test_the_run_directory_is_below_the_users_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    assert run_directory("shop") == Path("/run/user/1/asgictl/shop")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert run_directory("shop").name == "shop"
    assert run_directory("shop") != run_directory("blog")


@pytest.mark.parametrize(
    ("mode", "workers", "url", "uses"),
    [
        ("split", 1, None, True),
        ("inprocess", 1, None, False),
        ("inprocess", 2, None, True),
        ("inprocess", 1, "redis://h", True),
    ],
)
def test_redis_is_used_where_processes_must_meet(mode: str, workers: int, url: str | None, uses: bool) -> None:
    config = InstanceConfig("n", mode, "m:a", Bind("h:1"), workers=workers, threads=1, redis_url=url)
    assert config.uses_redis is uses


def test_redis_is_used_for_background_channels_even_where_one_process_serves() -> None:
    assert InstanceConfig("n", "inprocess", "m:a", Bind("h:1"), workers=1, threads=1, background=True).uses_redis


def test_a_worker_serves_every_channel_for_a_minute_an_event_and_without_end_by_default() -> None:
    config = WorkerConfig("n", "redis://h", "m:a")
    assert (config.threads, config.only, config.exclude, config.timeout_seconds) == (1, ("*",), (), 60)
    assert (config.max_events, config.max_memory_bytes) == (0, 0)


def test_limits_of_the_edge_are_whole_numbers_by_name() -> None:
    found = edge_limits(["header_bytes=9", "fragments=010", "header_bytes=8"])
    assert found == {"header_bytes": 8, "fragments": 10}
    assert Limits(**found).header_bytes == 8
    assert edge_limits([]) == {}


@pytest.mark.parametrize("name", EDGE_LIMITS)
def test_each_limit_of_the_edge_is_one_of_an_interface(name: str) -> None:
    assert getattr(Limits(**edge_limits([f"{name}=7"])), name) == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("header=1", "there is no header: the names are header_bytes, "),
        ("body_bytes=1", "there is no body_bytes"),
        ("=1", "there is no : "),
        ("", "there is no : "),
        *[
            (f"fragments={value}", f"fragments: '{value}' is not a whole number of at least 1")
            for value in ("", "0", "-1", "1.5", "many", "1 ", "1e3", "1" * 13)
        ],
        ("fragments", "fragments: '' is not a whole number"),
    ],
)
def test_what_is_no_limit_of_the_edge_is_told(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        edge_limits(["header_bytes=9", text])
