"""The Django example on PostgreSQL, as `make compare` has it where there is one."""

import os

import pytest

from asgictl.loadtests import alike
from asgictl.loadtests.servers import Side, serving
from benchmarks.database import SITE, at_hand, prepared
from benchmarks.peers import OURS


@pytest.mark.parametrize("side", OURS, ids=[side.name for side in OURS])
def test_both_forms_of_the_site_keep_their_rows_in_postgresql(monkeypatch: pytest.MonkeyPatch, side: Side) -> None:
    if at_hand() is None:
        if os.environ.get("ASGICTL_DEMAND_POSTGRES"):
            pytest.fail("this run demands PostgreSQL, and there is none, or no psycopg")
        pytest.skip("NOT RUN: no PostgreSQL on this machine, or no psycopg")
    monkeypatch.chdir(SITE)
    with prepared() as environment:
        assert "PGDATABASE" in environment
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with serving(side) as server:
            assert b"Note 1" in alike.ask(server, "/latest/").body
            assert alike.echo(server, "/ws/chat/kitchen/") == alike.ECHOED, "which was saved before it was sent"
