"""Where a role's time goes, from stacks that were recorded."""

from benchmarks.profile import shares

STACKS = ["main (a.py:1);serve (b.py:7);parse (c.py:3) 30", "main (a.py:1);serve (b.py:9) 10", "run;_push (r.py:1) 99"]


def test_samples_are_counted_by_function_whatever_the_line() -> None:
    own, within, samples = shares(STACKS)
    assert samples == 40
    assert own == {"parse (c.py)": 30, "serve (b.py)": 10}
    assert within == {"main (a.py)": 40, "serve (b.py)": 40, "parse (c.py)": 30}
