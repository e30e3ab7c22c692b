"""What `make peers` puts into its page."""

from dataclasses import replace

from asgictl.loadtests.comparison import Comparison
from asgictl.loadtests.run import Happening, Run
from asgictl.loadtests.scenarios import SCENARIOS
from asgictl.loadtests.servers import Side
from benchmarks.peers import MARKS, PAGE, table

VIEW, DEPLOY = SCENARIOS["django-view"], SCENARIOS["deploy"]


def made(*runs: Run) -> Comparison:
    sides = [Side("a", ""), Side("b", "")]
    return Comparison(sides, [VIEW, DEPLOY], 2, 6.0, [0], [1], runs=list(runs))


def test_a_side_has_the_medians_of_its_rounds() -> None:
    one = Run("a", "django-view", 1, rate=900.0, percentiles=[0.01] * 9, cpu={"server": 700.0}, memory={"server": 90.0})
    found = table(made(one, replace(one, round=2, rate=1100.0), replace(one, side="b", error="it ended")), VIEW)
    assert "| a | 1,000/s | 10 ms | 700 µs | 90 MiB |" in found
    assert "| b | it ended |" in found


def test_of_a_deploy_it_says_who_noticed_or_why_there_was_none() -> None:
    def run(side: str, *happenings: Happening, affected: int = 0) -> Run:
        return Run(side, "deploy", 1, affected=affected, happenings=list(happenings))

    done, not_done = Happening("deploy", 2.5, "SIGHUP"), Happening("deploy", None, note="is ended by SIGHUP")
    found = table(made(run("a", done, affected=3), run("b", not_done)), DEPLOY)
    assert "| a | 3 users |" in found
    assert "| b | is ended by SIGHUP |" in found


def test_the_page_has_the_place() -> None:
    assert [PAGE.read_text().count(mark) for mark in MARKS] == [1, 1]
