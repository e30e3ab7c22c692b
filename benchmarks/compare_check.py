"""make compare-check: does `asgictl compare` find what is there, and nothing else?

equal     both sides the same, in each mode: "no difference" in at least 19 of 20 results
slower    a handler that takes 20% longer in one mode only: is found
stalls    a server that stalls 1 s in every 10: the p99 of users at a fixed rate shows it

Exits 1 when one is not so.
"""

import argparse
import sys
import threading
from dataclasses import replace

from asgictl.loadtests.command import share_cores
from asgictl.loadtests.comparison import Comparison
from asgictl.loadtests.scenarios import DEMO, SCENARIOS, Scenario
from asgictl.loadtests.servers import Side
from asgictl.loadtests.verdicts import Answer, Run, answer

MODES = {"split": "--mode split --workers 2 --threads 3", "in-process": "--mode inprocess --workers 3 --threads 2"}
RATED = replace(SCENARIOS["hello"], path="/", rate=50.0, metrics=("p99",))


def side(name: str, mode: str, target: str = DEMO) -> Side:
    return Side(name, f"asgictl start {target} --bind {{bind}} -d {MODES[mode]}")


def compared(
    sides: list[Side], scenarios: list[Scenario], arguments: argparse.Namespace
) -> tuple[list[Answer], list[Run]]:
    comparison = Comparison(sides, scenarios, arguments.rounds, arguments.seconds, *share_cores())
    comparison.run(threading.Event(), lambda _: None, lambda what: print(what, file=sys.stderr, flush=True))
    runs = [[[run for run in comparison.runs if (run.side, run.scenario) == (each.name, scenario.name)]
             for each in sides] for scenario in scenarios]  # fmt: skip
    answers = [answer(scenario, *found) for scenario, found in zip(scenarios, runs, strict=True) if len(found) == 2]
    return answers, comparison.runs


def equal(arguments: argparse.Namespace) -> bool:
    scenarios = [SCENARIOS[name] for name in arguments.scenarios or SCENARIOS]
    found: list[Answer] = []
    for mode in MODES:
        answers, _ = compared([side("one", mode), side("other", mode)], scenarios, arguments)
        for each in answers:
            ratio = f"{each.verdict.ratio:.2f} ({each.verdict.low:.2f}–{each.verdict.high:.2f})" if each.verdict else ""
            print(f"equal {mode} {each.scenario} {each.metric}: {each.words} {ratio}", flush=True)
        found += answers
    alike = sum(each.verdict is not None and not each.winner for each in found)
    print(f"equal: no difference in {alike} of {len(found)}")
    return alike >= len(found) * 0.95


def slower(arguments: argparse.Namespace) -> bool:
    scenario = replace(SCENARIOS["cpu"], path="/")
    target = "benchmarks.applications:slower_inprocess"
    sides = [side(mode, mode, target) for mode in MODES]
    (found,), _ = compared(sides, [scenario], arguments)
    print(f"slower: {found.words}, {found.verdict}")
    return found.winner == "split"


def stalls(arguments: argparse.Namespace) -> bool:
    sides = [side("in-process", "in-process", "benchmarks.applications:stalling")]
    arguments.seconds = max(arguments.seconds, 10)
    _, runs = compared(sides, [RATED], arguments)
    slowest = [run.metric("p99") for run in runs]
    print("stalls: p99 of fixed-rate users", [f"{each:.2f} s" for each in slowest])
    return min(slowest) > 0.5


CHECKS = {"equal": equal, "slower": slower, "stalls": stalls}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CHECKS)}; all without one")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scenarios", nargs="*", help="of equal; all without one")
    arguments = parser.parse_args()
    sys.exit(not all([CHECKS[name](arguments) for name in arguments.names or CHECKS]))  # noqa: C419 (none is passed over)


if __name__ == "__main__":
    main()
