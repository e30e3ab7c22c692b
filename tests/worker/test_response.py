"""The response to one request: its head, the length of its body, and its parts."""

from collections.abc import Sequence
from typing import Any

import pytest

from asgictl.app.runtime import current
from asgictl.wire.messages import WINDOW_BYTES, Connect, Request, Response
from asgictl.worker.response import PART_BYTES, ResponseParts
from tests.worker.conftest import scope


def response(method: str = "GET") -> ResponseParts:
    return ResponseParts(Request("i/1", 2, scope(method), b""), b"5-0", "w.0")


def begun(status: int = 200, headers: Sequence[tuple[bytes, bytes]] = (), method: str = "GET") -> ResponseParts:
    made = response(method)
    made.begin(status, headers)
    return made


def of_length(length: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", b"%d" % length)]


def parts(made: ResponseParts, body: bytes, credit: int = WINDOW_BYTES, *, more: bool = False) -> list[Response]:
    """Return the parts of some bytes, for a client that gives the same credit again after each."""
    return list(made.parts(body, lambda: credit, more=more))


def test_a_part_says_what_it_answers_and_whose_it_is() -> None:
    made = begun(201, [(b"X-A", b"1")])
    (first,) = parts(made, b"a", more=True)
    (last,) = parts(made, b"b")
    assert (first.connection, first.attempt, first.entry, first.worker) == ("i/1", 2, b"5-0", current().worker)
    assert (first.sequence, first.status, first.headers, first.body) == (0, 201, [(b"x-a", b"1")], b"a")
    assert (first.more, first.inbox, first.run_seconds > 0) == (True, "w.0", True)
    assert (last.sequence, last.headers, last.body, last.more, last.inbox) == (1, [], b"b", False, "")


def test_what_answers_a_handshake_is_a_response_too() -> None:
    made = ResponseParts(Connect("i/1", 1, 3, b"", b""), b"5-0", "")
    made.begin(401, of_length(2))
    (part,) = parts(made, b"no")
    assert (part.connection, part.attempt, part.status, part.body) == ("i/1", 3, 401, b"no")


@pytest.mark.parametrize("credit", [1, 100, PART_BYTES, PART_BYTES + 1, WINDOW_BYTES])
@pytest.mark.parametrize("more", [True, False])
def test_no_part_is_larger_than_its_credit(credit: int, more: bool) -> None:
    size = 3 * credit + 1
    made = parts(begun(), b"x" * size, credit, more=more)
    assert b"".join(part.body for part in made) == b"x" * size
    assert max(len(part.body) for part in made[:-1]) <= min(credit, PART_BYTES)
    assert len(made[-1].body) <= credit
    assert [part.sequence for part in made] == list(range(len(made)))
    assert [part.more for part in made] == [True] * (len(made) - 1) + [more]


def test_a_body_within_its_credit_is_one_part_when_it_is_the_last() -> None:
    assert len(parts(begun(), b"x" * WINDOW_BYTES)) == 1


def test_each_part_waits_for_its_credit() -> None:
    left, made = [4], []
    for part in begun().parts(b"0123456789", lambda: left[0], more=False):
        made.append(part.body)
        left[0] = {4: 1, 1: 9}.get(left[0], 0)
    assert made == [b"0123", b"4", b"56789"]


def test_no_bytes_are_no_part_but_at_the_end() -> None:
    made = begun()
    assert parts(made, b"", more=True) == []
    assert not made.has_begun
    (last,) = parts(made, b"")
    assert (last.sequence, last.body, last.more) == (0, b"", False)


@pytest.mark.parametrize("pieces", [[b"12345"], [b"123", b"45"], [b"12345", b""], [b"", b"12345"]])
def test_a_body_of_the_length_that_its_headers_say_is_sent(pieces: list[bytes]) -> None:
    made = begun(200, of_length(5))
    sent = [part for at, each in enumerate(pieces) for part in parts(made, each, more=at < len(pieces) - 1)]
    assert b"".join(part.body for part in sent) == b"12345"
    assert made.left == 0


@pytest.mark.parametrize("pieces", [[b"1234"], [b"123456"], [b"123", b""], [b"123", b"456"], [b""], [b"12345", b"6"]])
def test_a_body_of_another_length_is_an_error(pieces: list[bytes]) -> None:
    made = begun(200, of_length(5))
    for each in pieces[:-1]:
        parts(made, each, more=True)
    with pytest.raises(ValueError, match="Content-Length"):
        parts(made, pieces[-1])


def test_a_body_that_is_too_long_is_an_error_before_its_end() -> None:
    with pytest.raises(ValueError, match="Content-Length"):
        parts(begun(200, of_length(5)), b"123456", more=True)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("HEAD", 404), ("GET", 204), ("GET", 304)])
@pytest.mark.parametrize("headers", [[], of_length(7)])
def test_where_no_body_follows_none_is_sent_and_its_length_is_not_counted(
    method: str, status: int, headers: list[tuple[bytes, bytes]]
) -> None:
    made = begun(status, headers, method)
    assert parts(made, b"hello", more=True) == []
    made.announce(5)
    (last,) = parts(made, b"hello")
    assert (last.status, last.body) == (status, b"")
    assert last.headers == (headers if method == "HEAD" else [])


def test_a_length_is_announced_unless_it_is_known_or_a_part_has_left() -> None:
    fresh, known, late = begun(), begun(200, of_length(1)), begun()
    parts(late, b"a", more=True)
    for each in (fresh, known, late):
        each.announce(1)
    assert [parts(each, b"b")[0].headers for each in (fresh, known, late)] == [of_length(1), of_length(1), []]


def test_a_head_replaces_the_one_before() -> None:
    made = begun(200, [(b"x-a", b"1"), *of_length(9)])
    made.begin(418, [(b"x-b", b"2")])
    (part,) = parts(made, b"tea")
    assert (part.status, part.headers) == (418, [(b"x-b", b"2")])


@pytest.mark.parametrize("headers", [[(b"x a", b"b")], [("x", "b")], None])
def test_a_head_that_cannot_be_sent_changes_nothing(headers: Any) -> None:
    made = response()
    with pytest.raises((TypeError, ValueError)):
        made.begin(200, headers)
    assert made.status == 0


def test_a_body_without_a_head_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="start_response"):
        parts(response(), b"x")


def test_what_ends_a_response_in_the_applications_stead() -> None:
    fresh, late = begun(200, of_length(9)), begun()
    parts(late, b"a", more=True)
    ours, cut = fresh.failure(504, "too long"), late.failure(504, "too long")
    assert (ours.status, ours.body, ours.more, ours.aborted) == (504, b"too long\n", False, False)
    assert dict(ours.headers)[b"content-length"] == b"9"
    assert (cut.sequence, cut.status, cut.body, cut.more, cut.aborted) == (1, 200, b"", False, True)


def test_the_last_part_of_a_response_says_where_its_worker_is_found_again() -> None:
    made = ResponseParts(Request("i/1", 1, scope(), b""), b"5-0", "w.asgi", "w.asgi")
    made.begin(200, [])
    parts = made.part(b"x", more=True), made.part()
    assert [(part.inbox, part.home) for part in parts] == [("w.asgi", ""), ("", "w.asgi")]
