"""Spans of events, in the trace that their headers name."""

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.util._once import Once

from asgictl.app import tracing
from asgictl.app.application import Application
from asgictl.app.boundary import UserCode
from asgictl.app.message import BackgroundMessage, RetryLater
from asgictl.app.outcome import Outcome
from asgictl.app.run import RunningJob
from asgictl.app.sending import Channel
from asgictl.wire.messages import Headers, Job

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="NOT RUN: opentelemetry-sdk is not installed")
TRACE, PARENT = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
TRACEPARENT = b"00-%032x-%016x-01" % (TRACE, PARENT)
HEADERS: Headers = [(b"host", b"h"), (b"traceparent", TRACEPARENT), (b"tracestate", b"congo=t61rcWkgMzE")]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What an application's SDK exports."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(tracing, "_tracer", trace.get_tracer("asgictl"))
    trace.set_tracer_provider(provider)
    yield exporter
    provider.shutdown()


def entry(seconds_ago: float) -> bytes:
    return b"%d-0" % ((time.time() - seconds_ago) * 1000)


def test_an_event_has_waited_and_runs_in_its_trace(spans: Any) -> None:
    with UserCode("%s %s failed", "GET", "/a", entry=entry(2.0), headers=HEADERS):
        time.sleep(0.01)
        with trace.get_tracer("the application's").start_as_current_span("query"):
            pass
    wait, query, run = spans.get_finished_spans()
    assert [each.name for each in (wait, query, run)] == ["wait", "query", "run"]
    assert {each.context.trace_id for each in (wait, query, run)} == {TRACE}
    assert (wait.parent.span_id, run.parent.span_id) == (PARENT, PARENT)
    assert query.parent.span_id == run.context.span_id
    assert 1.9 < (wait.end_time - wait.start_time) / 1e9 < 10
    assert wait.end_time <= run.start_time < run.end_time
    assert run.attributes == {"asgictl.event": "GET /a"}
    assert run.context.trace_state.get("congo") == "t61rcWkgMzE"
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize(("error", "is_told"), [(ValueError("x"), True), (SystemExit(1), True), (RetryLater(1), False)])
def test_a_failure_is_the_span_s_unless_it_is_none(spans: Any, error: BaseException, is_told: bool) -> None:
    with UserCode("%s failed", "x", expected=RetryLater, entry=b"0-1", headers=HEADERS):
        raise error
    (run,) = spans.get_finished_spans()
    assert (run.status.status_code is trace.StatusCode.ERROR) is is_told
    assert len(run.events) == is_told


def test_a_clock_that_is_behind_that_of_redis_ends_no_wait_before_it_began(spans: Any) -> None:
    with UserCode("x", entry=entry(-5.0), headers=HEADERS):
        pass
    wait, _ = spans.get_finished_spans()
    assert wait.start_time == wait.end_time


@pytest.mark.parametrize("headers", [[], [(b"traceparent", b"junk")], [(b"traceparent", b"\xff" * 55)], HEADERS[:1]])
def test_without_a_trace_there_are_no_spans(spans: Any, headers: Headers) -> None:
    with UserCode("x", entry=entry(0), headers=headers):
        pass
    assert spans.get_finished_spans() == ()


def test_until_the_application_has_an_sdk_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    assert tracing.join(HEADERS, b"1-0", str) is None


def sent(outcome: Outcome) -> Job:
    with outcome:
        Channel("thumbs").send({})
    (job,) = outcome.sends
    assert isinstance(job, Job)
    return job


def test_a_job_runs_in_the_trace_of_who_sent_it(spans: Any) -> None:
    with UserCode("x", entry=b"0-1", headers=HEADERS):
        job = sent(Outcome(headers=HEADERS))
    (run,) = spans.get_finished_spans()
    assert dict(job.headers)[b"traceparent"].split(b"-")[1:3] == [b"%032x" % TRACE, b"%016x" % run.context.span_id]
    RunningJob(Application(background={"thumbs": lambda _: None}), job).run()
    ran = spans.get_finished_spans()[-1]
    assert (ran.context.trace_id, ran.parent.span_id) == (TRACE, run.context.span_id)
    assert ran.attributes["asgictl.event"] == "background.thumbs"


def test_without_an_sdk_the_event_s_own_trace_is_passed_on() -> None:
    job = sent(Outcome(headers=HEADERS))
    assert job.headers == HEADERS[1:]
    assert BackgroundMessage(job).headers["traceparent"] == TRACEPARENT.decode()
    assert sent(Outcome()).headers == []


def test_without_opentelemetry_nothing_of_it_is_needed() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None; from asgictl.app import tracing; print(tracing.is_installed)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
