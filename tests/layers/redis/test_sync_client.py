"""What sync code asks of Redis once, on a real server."""

import pytest

from asgictl.errors import RedisError
from asgictl.layers.redis.sync_client import ask


def test_an_answer_is_returned(url: str) -> None:
    assert ask(url, lambda client: client.ping())


@pytest.mark.parametrize("url", ["unix:///absent", "http://:hunter2@h"])
def test_what_cannot_be_asked_is_an_error_of_ours(url: str) -> None:
    with pytest.raises(RedisError) as told:
        ask(url, lambda client: client.ping())
    assert "hunter2" not in str(told.value)
