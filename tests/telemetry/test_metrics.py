"""What a process counts, and what is made of several reports."""

from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgictl.telemetry.metrics import BOUNDS, Figures, longest, quantile, since, total


def answered(*seconds: float) -> Figures:
    figures = Figures()
    for each in seconds:
        figures.answer(200, each, each / 2)
    return figures


def test_an_answer_counts_once_by_status_and_once_in_each_histogram() -> None:
    figures = Figures()
    figures.answer(200, 0.003, 0.001)
    figures.answer(200, 0.003, 0.001)
    figures.answer(503, 0.5, 0.0)
    assert figures.requests == {200: 2, 503: 1}
    assert sum(figures.request_seconds[:-1]) == 3
    assert figures.request_seconds[-1] == pytest.approx(0.506)
    assert sum(figures.request_run_seconds[:-1]) == sum(figures.request_wait_seconds[:-1]) == 2
    assert figures.request_wait_seconds[-1] == pytest.approx(0.004)


def test_a_client_that_left_before_the_answer_has_no_time() -> None:
    figures = Figures()
    figures.answer(499, 0.0, 0.0)
    assert (figures.requests, sum(figures.request_seconds)) == ({499: 1}, 0)


def test_a_run_longer_than_the_whole_is_no_negative_wait() -> None:
    figures = Figures()
    figures.turn(0.001, 0.002)
    assert figures.turn_wait_seconds[-1] == 0


@given(st.lists(st.floats(0.0002, 79), min_size=1, max_size=50), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_right_to_a_step_of_the_bounds(seconds: list[float], share: float) -> None:
    found = quantile(answered(*seconds).request_seconds, share)
    assert found is not None
    below = sum(each <= found * 1.3 for each in seconds)
    above = sum(each >= found / 1.3 for each in seconds)
    assert below >= share * len(seconds)
    assert above >= (1 - share) * len(seconds)


def test_a_quantile_of_nothing_is_none_and_past_the_last_bound_is_that_bound() -> None:
    assert quantile(Figures().request_seconds, 0.5) is None
    assert quantile(answered(1000.0).request_seconds, 0.5) == BOUNDS[-1]


def test_several_processes_add_up_and_two_reports_of_one_differ_by_what_lies_between() -> None:
    first, second = answered(0.1), answered(0.1, 2.0)
    second.rejections = {"late": 2}
    second.events = 7
    summed = total([first, second])
    assert (summed.requests, summed.rejections, summed.events) == ({200: 3}, {"late": 2}, 7)
    passed = since(second, first)
    assert (passed.requests, passed.rejections, sum(passed.request_seconds[:-1])) == ({200: 1}, {"late": 2}, 1)
    assert total([]) == Figures()


def test_what_has_run_the_longest_is_named_and_summed_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgictl.telemetry.metrics.perf_counter", lambda: 100.0)
    named: list[str] = []

    def name(text: str) -> str:
        named.append(text)
        return text

    runs = longest((began, partial(name, f"GET /{began:.0f}")) for began in (99.0, 10.0, 98.0, 50.0))
    assert runs == [("GET /10", 90.0), ("GET /50", 50.0), ("GET /98", 2.0)]
    assert len(named) == 3, "what is not told is not named"
    assert total([Figures(runs=runs), Figures(runs=runs)]).runs == []


def test_figures_travel_as_json() -> None:
    figures = answered(0.1, 3.0)
    figures.rejections, figures.runs = {"late": 1}, [("GET /", 1.5)]
    assert msgspec.json.decode(msgspec.json.encode(figures), type=Figures) == figures


@pytest.mark.parametrize("sent", [{"events": "x"}, {"request_seconds": [1, 2]}, {"requests": {"x": 1}}, []])
def test_what_is_no_report_is_refused(sent: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's, in words of its own
        msgspec.convert(sent, Figures, str_keys=True)
