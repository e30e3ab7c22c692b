"""make compare-check: does `asgictl compare` find what is there, and nothing else?

equal     both sides the same, in each mode: never "different", and "equivalent" in most results
slower    a handler that takes 20% longer in one mode only: is found
failing   a side that answers 80% with 503 at once: wins nothing
neighbour something else is busy on the servers' core, then on the load's: each round is named, and nobody wins
stalls    a server that stalls 1 s in every 10: the p99 of users at a fixed rate shows it

Exits 1 when one is not so.
"""

import argparse
import subprocess
import sys
import threading
from dataclasses import replace

from asgictl.loadtests.command import share_cores
from asgictl.loadtests.comparison import Comparison
from asgictl.loadtests.run import Run
from asgictl.loadtests.scenarios import DEMO, MOST_ROUNDS, SCENARIOS, Scenario, choose
from asgictl.loadtests.servers import Side, pin
from asgictl.loadtests.verdicts import Answer, Outcome, reach

MODES = {"split": "--mode split --workers 2 --threads 3", "in-process": "--mode inprocess --workers 3 --threads 2"}
FAILING = "benchmarks.applications:failing_inprocess"
SHORT_SECONDS = 3.0
RATED = replace(SCENARIOS["hello"], path="/", rate=50.0, metrics=("p99",))


def side(name: str, mode: str, target: str = DEMO) -> Side:
    return Side(name, f"asgictl start {target} --bind {{bind}} -d {MODES[mode]}")


def compared(
    sides: list[Side], scenarios: list[Scenario], arguments: argparse.Namespace
) -> tuple[list[Answer], list[Run]]:
    comparison = Comparison(
        sides, scenarios, arguments.rounds, arguments.seconds, *share_cores(), seconds_at_most=arguments.minutes * 60
    )
    comparison.run(threading.Event(), lambda _: None, lambda what: print(what, file=sys.stderr, flush=True))
    return comparison.answers(), comparison.runs


def equal(arguments: argparse.Namespace) -> bool:
    scenarios = choose(tuple(arguments.scenarios or ()), [DEMO], None, None, None, None)
    found: list[Answer] = []
    for mode in MODES:
        answers, _ = compared([side("one", mode), side("other", mode)], scenarios, arguments)
        for each in answers:
            print(f"equal {mode} {each.scenario} {each.happening} {each.metric}: {each.words}", flush=True)
        found += answers
    counts = {outcome: sum(each.outcome is outcome for each in found) for outcome in Outcome}
    print(f"equal: {', '.join(f'{outcome} {count}' for outcome, count in counts.items())} of {len(found)}")
    return counts[Outcome.DIFFERENT] == 0 and counts[Outcome.EQUIVALENT] > len(found) / 2


def slower(arguments: argparse.Namespace) -> bool:
    scenario = replace(SCENARIOS["cpu"], path="/")
    target = "benchmarks.applications:slower_inprocess"
    sides = [side(mode, mode, target) for mode in MODES]
    (found,), _ = compared(sides, [scenario], arguments)
    print(f"slower: {found.words}, {reach(found)}")
    return found.winner == "split"


def failing(arguments: argparse.Namespace) -> bool:
    scenario = replace(SCENARIOS["hello"], path="/")
    (found,), _ = compared([side(mode, mode, FAILING) for mode in MODES], [scenario], arguments)
    print(f"failing: {found.words}; {found.notes}")
    return found.winner != "in-process" and found.outcome is not Outcome.EQUIVALENT


def neighbour(arguments: argparse.Namespace) -> bool:
    named, arguments.seconds = [], SHORT_SECONDS
    for cores in share_cores():
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
            try:
                pin([busy.pid], cores[-1:])
                (found,), runs = compared([side(mode, mode) for mode in MODES], [SCENARIOS["hello"]], arguments)
            finally:
                busy.kill()
        print(f"neighbour on core {cores[-1]}: {found.words}; {runs[0].contention}")
        named.append(not found.winner and found.rounds == 0)
    return all(named)


def stalls(arguments: argparse.Namespace) -> bool:
    sides = [side("in-process", "in-process", "benchmarks.applications:stalling")]
    arguments.seconds = max(arguments.seconds, 10)
    _, runs = compared(sides, [RATED], arguments)
    slowest = [run.metric("p99") for run in runs]
    print("stalls: p99 of fixed-rate users", [f"{each:.2f} s" for each in slowest])
    return min(slowest) > 0.5


CHECKS = {"equal": equal, "slower": slower, "failing": failing, "neighbour": neighbour, "stalls": stalls}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CHECKS)}; all without one")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=MOST_ROUNDS)
    parser.add_argument("--minutes", type=float, default=15, help="of each comparison; equal makes two")
    parser.add_argument("--scenarios", nargs="*", help="of equal; all without one")
    arguments = parser.parse_args()
    sys.exit(not all([CHECKS[name](arguments) for name in arguments.names or CHECKS]))  # noqa: C419 (none is passed over)


if __name__ == "__main__":
    main()
