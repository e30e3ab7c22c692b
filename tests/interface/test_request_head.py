"""What a request's head says."""

import pytest

from asgictl.config import Limits
from asgictl.interface.limits import SLICE_BYTES
from asgictl.interface.request_head import refusal_of, target_of

HOST = [(b"host", b"a")]
LARGE = [*HOST, (b"x", b"a" * 2000)]


@pytest.mark.parametrize(
    ("version", "hosts", "status"), [("1.1", 1, 0), ("1.0", 0, 0), ("1.1", 0, 400), ("1.0", 2, 400), ("2.0", 1, 505)]
)
def test_versions_and_hosts_are_judged(version: str, hosts: int, status: int) -> None:
    refusal = refusal_of(version, b"/", HOST * hosts, hosts, Limits(), is_whole=True)
    assert (refusal[0] if refusal else 0) == status


def test_fields_are_counted() -> None:
    allowed = Limits(header_fields=2)
    assert refusal_of("1.1", b"/", HOST * 2, 1, allowed, is_whole=True) is None
    refusal = refusal_of("1.1", b"/", HOST * 3, 1, allowed, is_whole=True)
    assert refusal is not None
    assert refusal[0] == 431


@pytest.mark.parametrize(
    ("most", "is_whole", "is_refused"), [(1000, True, True), (1000, False, True), (3000, False, False)]
)
def test_a_head_is_measured_where_it_can_be_too_large(most: int, is_whole: bool, is_refused: bool) -> None:
    assert most < SLICE_BYTES
    assert bool(refusal_of("1.1", b"/", LARGE, 1, Limits(header_bytes=most), is_whole=is_whole)) is is_refused


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (b"/a?b=c?d", (b"/a", b"b=c?d", HOST)),
        (b"*", (b"*", b"", HOST)),
        (b"/a#b", (b"/a", b"", HOST)),
        (b"http://b:81/c?d", (b"/c", b"d", [(b"host", b"b:81")])),
        (b"http://[::1]/", (b"/", b"", [(b"host", b"[::1]")])),
        (b"http://u:p@b/", None),
        (b"http://", None),
    ],
)
def test_a_target_has_one_of_four_forms(target: bytes, found: object) -> None:
    """RFC 9112, section 3.2; that of CONNECT is refused before."""
    assert target_of(target, HOST) == found
