"""The recipes of docs/peers.md: each starts, and serves the site as asgictl does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from asgictl.loadtests import alike
from asgictl.loadtests.servers import serving
from benchmarks.database import SITE, prepared
from benchmarks.peers import Recipe, recipes

RECIPES = recipes()


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with prepared() as found:
        yield found


@pytest.fixture(autouse=True)
def site(environment: dict[str, str]) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(SITE)
        for name, value in environment.items():
            patch.setenv(name, value)
        yield SITE


@pytest.mark.parametrize("recipe", RECIPES, ids=[each.side.name for each in RECIPES])
def test_a_recipe_starts_and_serves_the_site(recipe: Recipe) -> None:
    with serving(recipe.side) as server:
        assert alike.ask(server, "/latest/").status == 200
        if recipe.has_sockets:
            assert alike.echo(server, "/ws/chat/peers/") == alike.ECHOED


def test_all_peers_that_are_promised_have_one() -> None:
    names = {each.side.name.partition(" ")[0] for each in RECIPES}
    assert names == {"gunicorn", "uvicorn", "granian", "hypercorn", "Channels"}
    assert len(RECIPES) == 7
