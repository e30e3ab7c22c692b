"""What a role that runs alone says of itself."""

import logging
from typing import Any

import pytest

from asgictl.cli.roles import _alone
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.leases import beat

WORKER = {"channels": ["http.request", "websocket.receive"]}


@pytest.mark.parametrize(
    ("role", "bind", "served", "other"),
    [
        ("worker", "", "http.request, websocket.receive", "interface"),
        ("interface", "127.0.0.1:8000", "http://127.0.0.1:8000", "worker"),
    ],
)
def test_it_names_what_it_serves_and_warns_while_the_other_role_is_missing(
    role: str, bind: str, served: str, other: str, client: Any, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    client.flushall()
    caplog.set_level(logging.INFO)
    report = WORKER if role == "worker" else {}
    _alone(role, "shop", url, bind, report)
    said, warned = caplog.messages
    assert said == f"this {role} of instance 'shop' serves {served} through Redis at {url}"
    assert warned.startswith(f"instance 'shop' has no {other}")
    beat(client, Keys("other"), other, "a", b"")
    _alone(role, "shop", url, bind, report)
    assert len(caplog.messages) == 4, "that one is another instance's"
    beat(client, Keys("shop"), other, "a", b"")
    _alone(role, "shop", url, bind, report)
    assert len(caplog.messages) == 5


def test_no_password_is_said_and_a_redis_that_has_gone_costs_the_warning_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    _alone("worker", "shop", "redis://:secret@127.0.0.1:1/0", "", WORKER)
    (said,) = caplog.messages
    assert "secret" not in said
    assert "redis://***@127.0.0.1:1/0" in said
