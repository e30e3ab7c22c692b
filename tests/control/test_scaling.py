"""How many workers a load needs."""

import pytest

from asgictl.control.scaling import CALM_SECONDS, Load, Scaling, Step, room

CALM = Load(events=10, busy=0.2, waiting=0, oldest_seconds=0.0)  # 20 ms each


class Instance:
    """Turns the clock a second with each load, and takes each step."""

    def __init__(self, least: int = 2, most: int = 8, threads: int = 1) -> None:
        self.scaling = Scaling(least, most, threads)
        self.workers = least
        self.now = 0.0
        self.steps: list[int] = []

    def after(self, load: Load, seconds: int = 1, room: int = 99) -> Step | None:
        step = None
        for _ in range(seconds):
            self.now += 1
            if step := self.scaling.decide(load, self.workers, room, self.now):
                self.workers = step.workers
                self.steps.append(step.workers)
        return step


@pytest.fixture
def instance() -> Instance:
    made = Instance()
    made.after(CALM, 30)
    assert made.steps == []
    return made


def test_a_load_that_grows_gets_at_once_what_it_needs_and_what_waits_too(instance: Instance) -> None:
    step = instance.after(Load(events=100, busy=2.0, waiting=60, oldest_seconds=0.6))
    assert step == Step(6, "an event has waited for 0.6 s")  # (160 + 30) a second, 20 ms each, 70% busy


def test_a_worker_has_several_threads() -> None:
    instance = Instance(threads=4)
    instance.after(Load(events=100, busy=8.0, waiting=300, oldest_seconds=2.0))
    assert instance.workers == 8  # not 32 more


def test_what_runs_on_an_event_loop_gets_one_worker_more_each_time(instance: Instance) -> None:
    for workers in (3, 4, 5):
        instance.after(Load(events=1000, busy=0.0, waiting=50, oldest_seconds=0.5))
        assert instance.workers == workers


def test_handlers_that_take_longer_than_a_look_get_one_more_each_time() -> None:
    instance = Instance()
    instance.after(Load(events=0, busy=2.0, waiting=3, oldest_seconds=1.0), 4)
    assert instance.workers == 6


def test_it_ends_at_the_most(instance: Instance) -> None:
    instance.after(Load(events=400, busy=8.0, waiting=5000, oldest_seconds=9.0), 10)
    assert instance.steps == [8]


def test_busy_workers_that_keep_up_are_enough(instance: Instance) -> None:
    assert instance.after(Load(events=98, busy=1.96, waiting=1, oldest_seconds=0.01), 60) is None


def test_it_shrinks_once_fewer_have_been_enough_for_a_while(instance: Instance) -> None:
    instance.after(Load(events=100, busy=2.0, waiting=200, oldest_seconds=2.0))
    assert instance.workers == 8
    assert instance.after(CALM, int(CALM_SECONDS) - 1) is None
    step = instance.after(CALM, 3)
    assert instance.steps == [8, 2]
    assert step is None


def test_a_load_that_comes_and_goes_keeps_its_workers(instance: Instance) -> None:
    for _ in range(10):
        instance.after(Load(events=100, busy=2.0, waiting=200, oldest_seconds=2.0))
        instance.after(CALM, 15)
    assert instance.steps == [8]


def test_it_shrinks_only_to_what_was_needed_lately(instance: Instance) -> None:
    instance.after(Load(events=100, busy=2.0, waiting=200, oldest_seconds=2.0))
    instance.after(Load(events=120, busy=2.4, waiting=0, oldest_seconds=0.0), 60)
    assert instance.steps == [8, 5], "half busy, as it grew to 70%"


def test_it_grows_no_further_than_free_memory(instance: Instance) -> None:
    surge = Load(events=100, busy=2.0, waiting=200, oldest_seconds=2.0)
    step = instance.after(surge, room=3)
    assert step == Step(5, "an event has waited for 2.0 s; free memory is too small for 8")
    assert instance.after(surge, room=0) is None


@pytest.mark.parametrize(("free", "worker", "more"), [(1000, 100, 9), (149, 100, 0), (10, 100, 0), (1000, 0, 1)])
def test_memory_has_room_for_as_many_as_leave_a_twentieth_free(free: int, worker: int, more: int) -> None:
    assert room(free, 1000, worker) == more
