"""The names of everything in Redis."""

import re

from asgictl.layers.redis.keys import Keys, interface_of


def every(name: str) -> set[str]:
    keys = Keys(name)
    own = {keys.replies("i/1"), keys.turns("i/1"), keys.last_wills("i/1"), keys.inbox("w.0")}
    leases = {keys.alive, keys.epoch, keys.clock, keys.grace}
    shared = {keys.broadcast, keys.manifest, keys.channels, keys.dead, keys.channel("http.request")}
    return own | leases | shared


def test_all_keys_of_an_instance_share_one_hash_tag() -> None:
    assert {re.findall(r"\{(.*?)\}", key)[0] for key in every("shop")} == {"shop"}
    assert len(every("shop")) == 13


def test_two_instances_share_no_key() -> None:
    assert not every("shop") & every("shop2")


def test_all_connections_of_an_interface_share_its_reply_stream() -> None:
    keys = Keys("shop")
    assert interface_of("host.1.ab/2f") == interface_of("host.1.ab") == "host.1.ab"
    assert keys.replies("host.1.ab/1") == keys.replies("host.1.ab/2") == keys.replies("host.1.ab")
    assert keys.turns("host.1.ab/1") == keys.turns("host.1.ab")
    assert keys.replies("host.1.ab/1") != keys.replies("host.2.ab/1")
