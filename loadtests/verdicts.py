"""What the runs of two sides say of a question: different, equivalent or undecided; who is ahead, and by how much.

Different    chance says so of equal sides in fewer than 1 of 100 comparisons, all questions of each together.
Equivalent   the 95% interval of the ratio lies within 5% either way: a difference that nobody would act on.
Undecided    neither; the words say what it would take.

A side of which over 0.1% failed wins nothing, however fast it was at failing.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median

from asgictl.loadtests.inference import (
    ERROR,
    LOOKS,
    MISS,
    MOST_NEEDED,
    binomial_p,
    estimate,
    holm,
    poisson_most,
    remaining,
    rounds_needed,
)
from asgictl.loadtests.run import SATURATED, Happening, Run
from asgictl.loadtests.scenarios import Scenario

LEAST = math.log(1.05)
MOST_FAILED = 0.001
LIMITED = {"rate", "p99"}  # by a generator that has no time left
FLOOR = 0.05  # of the users: fewer are no difference
COUNT_LOOKS = (2, *LOOKS)
LEAST_ROUNDS = 2
NOT_COMPARED = "not compared"
SAYINGS = {  # {ahead} is the winner
    "rate": "{ahead} serves {times} as many {unit}s",
    "cost": "{ahead} is ahead: {behind} needs {times} as much CPU for a {unit}",
    "p99": "{ahead} is ahead: with {behind} the slowest 1% wait {times} as long",
    "memory": "{ahead} is ahead: {behind} ends with {times} as much memory",
    "kib": "{ahead} is ahead: {behind} needs {times} as much memory for a {unit}",
}
Pair = tuple[Run, Run]


class Outcome(StrEnum):
    """The three that there are."""

    DIFFERENT = "different"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a scenario's runs say of the first side beside another.

    happening: what was done to both, where a scenario does something. factor, low, high: by how much the first is
    ahead, and the 95% interval; below 1 the other is. p: of no difference, once `decide` has paid for all questions.
    ours, theirs: medians, or users affected in all, of `users`. winner: "" without a difference. needed: rounds that
    would decide, 0 where rounds do not help. gaps: the longest that a user of each was without service, in seconds.
    words: the verdict. notes: what to know before trusting it.
    """

    scenario: str
    first: str
    other: str
    metric: str
    unit: str = ""
    happening: str = ""
    factor: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = 1.0
    rounds: int = 0
    ours: float = math.nan
    theirs: float = math.nan
    users: int = 0
    gaps: tuple[float, float] = (0.0, 0.0)
    outcome: Outcome = Outcome.UNDECIDED
    winner: str = ""
    needed: int = 0
    words: str = ""
    notes: tuple[str, ...] = ()

    @property
    def sides(self) -> tuple[str, str]:
        """The one that is ahead in the figures, whether or not chance has put it there, and the other."""
        ahead = self.ours < self.theirs if self.users else self.factor > 1
        return (self.first, self.other) if ahead else (self.other, self.first)


def answers(scenario: Scenario, ours: list[Run], theirs: list[Run], *, again: bool = False) -> list[Answer]:
    """Weigh the rounds that both sides have undisturbed: one answer, or one for each thing that was done to them.

    An answer without words is to be decided. again: more rounds may come, so that half of what is left is kept.
    """
    pairs = [(mine, other) for mine in ours for other in theirs if mine.round == other.round]
    usable = [pair for pair in pairs if not any(run.error or run.contention for run in pair)]
    said = Answer(
        scenario.name, ours[0].side, theirs[0].side, scenario.metrics[0], scenario.unit, rounds=len(usable),
        notes=_notes(scenario, ours, theirs),
    )  # fmt: skip
    if not usable:
        failed = next((run for pair in pairs for run in pair if run.error), None)
        words = f"{NOT_COMPARED}: {failed.side} failed" if failed else "undecided: every round was disturbed"
        return [replace(said, words=words)]
    looks = COUNT_LOOKS if scenario.happenings else LOOKS
    share = remaining(len(usable), looks) / (2 if again else 1)
    if scenario.happenings:
        return [_noticed(scenario, replace(said, happening=kind), usable, share) for kind in scenario.happenings]
    saturated = any(run.saturated for pair in usable for run in pair)
    metrics = [name for name in scenario.metrics if not (saturated and name in LIMITED)] or list(scenario.metrics)
    return [_better(replace(said, metric=metrics[0]), usable, share)]


def _better(said: Answer, pairs: Sequence[Pair], share: float) -> Answer:
    """Weigh a figure of which each side has one a round."""
    mine, others = zip(*pairs, strict=True)
    figures = [[run.metric(said.metric) for run in runs] for runs in (mine, others)]
    for side, found in zip((said.first, said.other), figures, strict=True):
        if any(math.isnan(each) or each <= 0 for each in found):
            return replace(said, words=f"{NOT_COMPARED}: {side} answered nothing")
    sign = 1 if said.metric == "rate" else -1
    logs = [sign * math.log(one / other) for one, other in zip(*figures, strict=True)]
    gap = estimate(logs, MISS * share)
    equal = gap.low > -LEAST and gap.high < LEAST
    said = replace(
        said, factor=math.exp(gap.mean), low=_exp(gap.low), high=_exp(gap.high), p=min(1.0, gap.p / share),
        ours=median(figures[0]), theirs=median(figures[1]), outcome=Outcome.EQUIVALENT if equal else Outcome.UNDECIDED,
        needed=rounds_needed(gap.deviation, max(abs(gap.mean), LEAST - abs(gap.mean))),
    )  # fmt: skip
    for side in said.sides if equal else said.sides[:1]:
        failed = failed_share(mine if side == said.first else others)
        if failed > MOST_FAILED:
            words = f"no winner: {side} did not answer {_percent(failed)} of what was due"
            return replace(said, outcome=Outcome.UNDECIDED, p=1.0, needed=0, words=words)
    return said


def _noticed(scenario: Scenario, said: Answer, pairs: Sequence[Pair], share: float) -> Answer:
    """Weigh how many users noticed what was done: an exact test, with a floor, and each round has to say the same."""
    happenings = [[_find(run, said.happening) for run in runs] for runs in zip(*pairs, strict=True)]
    for side, found in zip((said.first, said.other), happenings, strict=True):
        if all(each.at is None for each in found):
            return replace(said, words=f"{NOT_COMPARED}: {side} {found[0].note or 'has no such process'}")
    ours, theirs = ([each.affected for each in found] for found in happenings)
    rounds, floor = len(pairs), max(1.0, FLOOR * scenario.count)
    apart = [one - other for one, other in zip(ours, theirs, strict=True)]
    clear = rounds >= LEAST_ROUNDS and abs(sum(apart)) / rounds >= floor and (min(apart) > 0 or max(apart) < 0)
    at_most = [poisson_most(sum(counts), MISS / 2 * share) / rounds for counts in (ours, theirs)]
    gap = estimate(apart, MISS * share)
    near = -floor < gap.low and gap.high < floor and gap.deviation > 0
    longest, theirs_longest = (max(each.gap for each in found) for found in happenings)
    ways = [f"{side} by {found[0].way}" for side, found in zip((said.first, said.other), happenings, strict=True)]
    return replace(
        said, gaps=(longest, theirs_longest), ours=sum(ours), theirs=sum(theirs), users=scenario.count * rounds,
        p=min(1.0, binomial_p(sum(ours), sum(ours) + sum(theirs)) / share) if clear else 1.0,
        outcome=Outcome.EQUIVALENT if max(at_most) <= floor or near else Outcome.UNDECIDED,
        notes=(
            *([", ".join(ways)] if any(found[0].way for found in happenings) else []),
            *said.notes, *sorted({each.note for found in happenings for each in found if each.note}),
        ),
    )  # fmt: skip


def _find(run: Run, kind: str) -> Happening:
    return next((each for each in run.happenings if each.kind == kind), Happening(kind, None))


def decide(found: Sequence[Answer]) -> list[Answer]:
    """Judge the answers of a whole comparison together, and put each into words."""
    return [_worded(replace(each, p=p)) for each, p in zip(found, holm([each.p for each in found]), strict=True)]


def _worded(each: Answer) -> Answer:
    if each.words:
        return each
    ahead, behind = each.sides
    counts = (
        f"users who noticed: {each.first} {each.ours:.0f}, {each.other} {each.theirs:.0f} of {each.users}; "
        f"longest without service: {each.first} {each.gaps[0]:.2f} s, {each.other} {each.gaps[1]:.2f} s"
    )
    if each.outcome is Outcome.EQUIVALENT:
        return replace(each, words=f"equivalent: {counts}" if each.users else f"equivalent: {reach(each)}")
    if each.p <= ERROR:
        factor = each.factor if each.factor > 1 else 1 / each.factor
        times = "" if each.users else times_over(factor)
        saying = "{ahead} is ahead: " + counts if each.users else SAYINGS[each.metric]
        words = saying.format(ahead=ahead, behind=behind, times=times, unit=each.unit)
        return replace(each, outcome=Outcome.DIFFERENT, winner=ahead, words=words)
    if each.rounds < LEAST_ROUNDS:
        return replace(each, words="undecided: one round counts, and shows no spread")
    if each.users:
        return replace(each, words=f"undecided: {counts}")
    # Several questions are judged together, so that a few more may be needed where one alone had been decided.
    needed = "many more" if each.needed >= MOST_NEEDED else f"about {max(each.needed, each.rounds + 1)}"
    leaning = ", leaning to" if each.low > 1 or each.high < 1 else ":"
    return replace(each, words=f"undecided{leaning} {reach(each)}; {needed} rounds would decide")


def decided(each: Answer) -> bool:
    """Whether more rounds would not change what is said."""
    return each.outcome is not Outcome.UNDECIDED or each.words.startswith((NOT_COMPARED, "no winner"))


def reach(each: Answer) -> str:
    """Say between what the interval leaves the two sides; a factor always has the name of the one that is ahead."""
    if math.isnan(each.factor):
        return "–"
    if each.rounds < LEAST_ROUNDS:
        return f"{each.sides[0]} {_rounded(max(each.factor, 1 / each.factor))}×"
    if each.low <= 1 <= each.high:
        return f"at most {each.first} {_rounded(each.high)}× or {each.other} {_rounded(1 / each.low)}×"
    least, most = sorted((max(each.low, 1 / each.low), max(each.high, 1 / each.high)))
    return f"{each.sides[0]} {_rounded(least)} to {_rounded(most)}×"


def times_over(factor: float) -> str:
    """Return a factor above 1 in words."""
    return f"{_rounded(factor)} times"


def _rounded(factor: float) -> str:
    return f"{factor:.0f}" if factor >= 10 else f"{factor:.1f}" if factor >= 1.95 else f"{factor:.2f}"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def _exp(number: float) -> float:
    return math.exp(number) if number < math.inf else math.inf


def failed_share(runs: Sequence[Run]) -> float:
    """Return which share of what was due was not answered as it should be."""
    wrong, due = sum(run.wrong for run in runs), sum(run.done + run.wrong for run in runs)
    return wrong / due if due else 0.0


def _notes(scenario: Scenario, ours: list[Run], theirs: list[Run]) -> tuple[str, ...]:
    """Return what a reader has to know before the figures are trusted."""
    notes = []
    for runs in (ours, theirs):
        side, busiest = runs[0].side, max(run.generator for run in runs)
        if failure := next((run.error for run in runs if run.error), None):
            notes.append(f"{side}: {failure}")
        if busiest >= SATURATED:
            notes.append(f"the load generator was saturated beside {side} ({busiest:.0%} of a core): it could do more")
        if scenario.events:
            done, grown = median(run.done for run in runs), median(run.grown for run in runs)
            notes.append(f"{side}: memory grew by {grown:+.1f} MiB in the last three quarters of {done:,.0f} events")
        if twice := sum(run.twice for run in runs):
            notes.append(f"{side}: {twice:,} of {sum(run.done for run in runs):,} requests and messages ran twice")
        if missed := sum(run.missed for run in runs):
            notes.append(
                f"{side}: {missed:,} were sent later than due, since the user still waited for the last answer"
            )
        if unsent := sum(run.unsent for run in runs):
            notes.append(f"{side}: {unsent:,} were due and never sent")
        if not scenario.happenings and any(run.wrong > run.unsent for run in runs):
            common = Counter[str]()
            for run in runs:
                common.update(run.errors)
            notes.append(f"{side}: {_percent(failed_share(runs))} failed, most often {common.most_common(1)[0][0]}")
    if disturbed := sorted({run.round for run in (*ours, *theirs) if run.contention}):
        notes.append(f"not counted, since something disturbed them: rounds {', '.join(map(str, disturbed))}")
    return tuple(notes)
