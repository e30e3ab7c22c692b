"""Scripts in a cluster whose slot migrates: each works, or is refused whole."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import AskError, ClusterDownError, TryAgainError

from asgictl.layers.redis.keys import Keys
from tests.cluster import KINDS, Cluster, three_nodes
from tests.layers.redis.every_script import Recorder, Run, fill, runs

pytestmark = pytest.mark.slow
KEYS = Keys("migrating")
NOT_NOW = (AskError, ClusterDownError, TryAgainError)  # what counts as "not sent"; MovedError too, an AskError


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with three_nodes(request.param, KEYS.alive) as made:
        yield made


def refill(cluster: Cluster) -> dict[str, tuple[Run, object]]:
    cluster.clear()
    return runs(KEYS, fill(cluster.source, KEYS))


def stored(node: Any) -> dict[bytes, bytes]:
    return {key: node.dump(key) for key in node.keys("*")}


def last_command(cluster: Cluster, script: str) -> tuple[Any, set[bytes]]:
    """Return what a script is run with at last, and the keys that it declares."""
    recorder = Recorder(cluster.source)
    refill(cluster)[script][0](recorder)
    command: Any = recorder.commands[-1]
    return command, {key if isinstance(key, bytes) else key.encode() for key in command[3 : 3 + command[2]]}


def test_a_script_works_though_all_keys_have_moved_but_those_that_it_declares(cluster: Cluster) -> None:
    """Though it deletes some of these: it has no further use for them."""
    for script in refill(cluster):
        _, declared = last_command(cluster, script)
        run, expected = refill(cluster)[script]
        cluster.begin()
        for key in stored(cluster.source).keys() - declared:
            cluster.move(key)
        answer = run(cluster.source)
        assert answer == expected or expected is None, script


def test_a_script_is_refused_whole_when_any_key_that_it_declares_has_moved(cluster: Cluster) -> None:
    """With words that count as "not sent", so it is said again."""
    for script in refill(cluster):
        command, declared = last_command(cluster, script)
        for key in declared:
            refill(cluster)
            cluster.begin()
            cluster.move(key)
            before = stored(cluster.source)
            with pytest.raises(redis.ResponseError) as refusal:
                cluster.source.execute_command(*command)
            assert isinstance(refusal.value, NOT_NOW), (script, key)
            assert stored(cluster.source) == before, (script, key)


def test_what_has_moved_with_its_slot_counts_as_not_sent(cluster: Cluster) -> None:
    refill(cluster)
    cluster.begin()
    cluster.finish()
    with pytest.raises(NOT_NOW):
        cluster.source.xlen(KEYS.broadcast)
    cluster.begin(back=True)
    cluster.finish(back=True)
    assert cluster.source.xlen(KEYS.broadcast) == 1
