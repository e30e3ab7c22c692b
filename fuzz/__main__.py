"""Run the harnesses in turn for so long; what fails is shrunk, added to the corpus, and told."""

import argparse
import logging
import random
import sys
import time
import traceback

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fuzz import corpus
from fuzz.harnesses import HARNESSES, check_kept, kept_of

ROUND = 200  # inputs of one harness in turn
SETTINGS = settings(
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


def run_round(name: str, number: int, inputs: int = ROUND) -> tuple[int, bytes | None]:
    """Draw so many inputs. Return how many were checked, and the smallest that failed, whose error is printed."""
    kind, harness = HARNESSES[name]
    kept, checked, failed = kept_of(kind), 0, b""

    @seed(number)
    @settings(SETTINGS, max_examples=inputs)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        nonlocal checked, failed
        drawn, check = harness(data.draw, kept)
        failed = drawn
        checked += 1
        check()

    try:
        run()
    except Exception as error:  # noqa: BLE001 - whatever is raised is what is looked for
        cause = error.__cause__ or error
        traceback.print_tb(cause.__traceback__, limit=-3, file=sys.stdout)
        print(f"{type(cause).__name__}: {cause}"[:400])
        return checked, failed
    return checked, None


def main() -> int:
    """Return 1 when an input failed."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="of the first round")
    parser.add_argument("--harness", choices=HARNESSES, action="append")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print(f"--seed {options.seed}")
    for kind in {kind for kind, _ in HARNESSES.values()}:
        for data in kept_of(kind):
            check_kept(kind, data)
    until, number, failures = time.monotonic() + options.seconds, options.seed, 0
    counts = dict.fromkeys(options.harness or HARNESSES, 0)
    while time.monotonic() < until and not failures:
        for name in counts:
            checked, failed = run_round(name, number)
            counts[name] += checked
            if failed is not None:
                failures += 1
                print(f"{name}: {corpus.save(HARNESSES[name][0], failed)}: {failed!r:.400}")
        number += 1
    print(", ".join(f"{name}: {count} inputs" for name, count in counts.items()), f"{failures} failed", sep="; ")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
