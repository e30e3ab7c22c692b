"""Whether a Redis can carry an instance, on real servers."""

import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

import asgictl
from asgictl.errors import RedisError
from asgictl.layers.redis.check import COMMANDS, SUBCOMMANDS, check_redis
from asgictl.layers.redis.keys import Keys
from tests.layers.redis.test_scripts import every_script
from tests.sentinels import SERVICE, watched
from tests.test_private_names import trees

PASSWORD = "hunter2"
PACKAGE = Path(asgictl.__file__).parent
CLIENTS = {"client", "pipe", "redis", "_client", "_redis"}  # what redis-py's clients are called here
NAMES = sorted({"|".join(each[: 2 if each[0] in SUBCOMMANDS else 1]) for each in COMMANDS} | {"MULTI"})
OF_CHANNEL_LAYER = {"HINCRBY", "KEYS"}  # which alone flushes; it has a line of its own in docs/guides/redis.md


def test_a_redis_that_fits_passes_and_is_left_as_it_was(url: str, client: Any, name: str) -> None:
    check_redis(url, name)
    assert client.keys(Keys(name).check) == []


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}@127.0.0.1:1",
        f"redis://user:{PASSWORD}@127.0.0.1:1/0",
        f"redis://127.0.0.1:1?password={PASSWORD}",
        f"unix://user:{PASSWORD}@/absent",
        f"unix:///absent?password={PASSWORD}",
        f"redis://:{PASSWORD}/@127.0.0.1:1",
        f"redis://:{PASSWORD}@127.0.0.1:port",
        f"http://:{PASSWORD}@127.0.0.1:1",
        f"redis://:{PASSWORD}@127.0.0.1:1/?db={PASSWORD}",
        f"redis+sentinel://:{PASSWORD}@127.0.0.1:1/service?sentinel_password={PASSWORD}",
    ],
)
def test_a_redis_that_cannot_be_reached_is_told_without_its_password(url: str) -> None:
    with pytest.raises(RedisError, match="--redis") as caught:
        check_redis(url, "n")
    assert PASSWORD not in str(caught.value)


def test_a_redis_that_would_evict_events_is_refused_with_what_to_set(url: str, client: Any) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(RedisError, match=r"maxmemory-policy to noeviction, not allkeys-lru"):
        check_redis(url, "n")


@pytest.fixture
def protected(url: str, client: Any) -> Iterator[str]:
    """The same server, which now wants a password from whoever connects."""
    client.config_set("requirepass", PASSWORD)
    yield url
    client.config_set("requirepass", "")


def test_a_redis_that_wants_a_password_says_where_to_put_it(protected: str) -> None:
    with pytest.raises(RedisError, match="needs a password"):
        check_redis(protected, "n")
    check_redis(f"{protected}?password={PASSWORD}", "n")


def test_a_wrong_password_is_not_repeated(protected: str) -> None:
    with pytest.raises(RedisError, match="password") as caught:
        check_redis(f"{protected}?password=wr0ng", "n")
    assert "wr0ng" not in str(caught.value)


def test_an_old_redis_is_refused_by_its_version(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis.Redis.info", lambda client: {"redis_version": "6.0.16"})
    with pytest.raises(RedisError, match=r"6\.0\.16; asgictl needs 6\.2"):
        check_redis(url, "n")


@contextmanager
def user(client: Any, *rules: str) -> Iterator[str]:
    """Yield what the URL of a user has for a query, who may do what is said."""
    client.execute_command("ACL", "SETUSER", "site", "on", f">{PASSWORD}", *rules)
    try:
        yield f"?username=site&password={PASSWORD}"
    finally:
        client.execute_command("ACL", "DELUSER", "site")


def test_what_docs_grant_is_what_is_needed(url: str, client: Any) -> None:
    text = (PACKAGE.parent / "docs" / "guides" / "redis.md").read_text()
    found = re.search(r"^user asgictl on >PASSWORD (.*?)```", text, re.M | re.S)
    assert found
    rules = found[1].split()
    with user(client, *rules) as query:
        check_redis(url + query, "default")
    assert {rule[1:].upper() for rule in rules if rule[0] == "+"} == set(NAMES)


@pytest.mark.parametrize("command", NAMES)
def test_a_user_who_lacks_one_command_is_told_which(url_of_valkey: str, command: str) -> None:
    with redis.Redis.from_url(url_of_valkey) as client, user(client, "~*", "+@all", f"-{command.lower()}") as query:
        with pytest.raises(RedisError) as told:
            check_redis(url_of_valkey + query, "n")
        assert str(told.value).endswith(f"'site' what asgictl needs: ACL SETUSER site +{command.lower()}")


def test_a_user_who_lacks_commands_and_keys_is_told_all_of_it(url: str, client: Any) -> None:
    with (
        user(client, "~other:*", "+@all", "-xadd", "-xack") as query,
        pytest.raises(RedisError, match=r"ACL SETUSER site .*~asgictl:{n}:\* .*\+xadd .*\+xack"),
    ):
        check_redis(url + query, "n")


def test_a_replica_is_refused_as_one_that_cannot_be_written(url: str, client: Any) -> None:
    client.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(RedisError, match="READONLY"):
            check_redis(url, "n")
    finally:
        client.replicaof("NO", "ONE")


def test_sentinels_that_do_not_know_the_service_say_so() -> None:
    with watched() as nodes:
        check_redis(nodes.url, "n")
        with pytest.raises(RedisError, match="none of them knows service 'other'") as told:
            check_redis(nodes.url.replace(SERVICE, "other"), "n")
        assert "\n" not in str(told.value)


def of_scripts() -> Iterator[str]:
    """Yield what scripts call."""
    for text in every_script():
        for command, subcommand in re.findall(r"redis\.p?call\('([A-Z]+)'(?:, '([A-Z]+)')?", text):
            yield f"{command}|{subcommand}" if command in SUBCOMMANDS else command


def of_python(known: set[str]) -> Iterator[str]:
    """Yield what the code sends: words that begin a tuple or a call, and methods of redis-py's clients."""
    for node in (node for tree in trees() for node in ast.walk(tree)):
        words = node.elts if isinstance(node, ast.Tuple) else node.args if isinstance(node, ast.Call) else []
        said = [str(each.value) for each in words[:2] if isinstance(each, ast.Constant)]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _name(node.func) in CLIENTS:
            said = said or node.func.attr.upper().split("_")
        if said and said[0] in known:
            yield "|".join(said[: 2 if said[0] in SUBCOMMANDS else 1])


def _name(method: ast.Attribute) -> str:
    of = method.value
    return of.id if isinstance(of, ast.Name) else of.attr if isinstance(of, ast.Attribute) else ""


def test_every_command_that_is_used_is_tried_and_no_other(url_of_valkey: str) -> None:
    with redis.Redis.from_url(url_of_valkey) as client:
        known = {each.decode().upper() for each in client.execute_command("COMMAND LIST")}
    used = {*of_scripts(), *of_python(known), "MULTI"} - OF_CHANNEL_LAYER
    assert used == set(NAMES)
