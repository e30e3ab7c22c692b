"""Joins traces (W3C Trace Context) where opentelemetry's API is installed, as by the extra `otel`.

An event that carries a traceparent gets two spans below it: `wait`, since it was added to its channel, and `run`, while
its handler runs, so that the application's own spans stand below `run`. The application configures the SDK; until it
has, there are no spans. What it sends to background channels carries the trace on, with or without opentelemetry.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from asgictl.wire.messages import Headers

try:
    from opentelemetry import context, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    is_installed: bool = False
else:
    is_installed = True
    _propagator = TraceContextTextMapPropagator()
    _tracer = trace.get_tracer("asgictl")  # which follows the SDK once there is one

FIELDS = (b"traceparent", b"tracestate")


class Joined(NamedTuple):
    """The span `run` of an event. token: of the context in which it is current."""

    span: Any
    token: Any


def join(headers: Headers, entry: bytes, name: Callable[[], str]) -> Joined | None:
    """Begin `run`, with `wait` before it; None where there is no trace. entry: as slow.Watch.begin() has it."""
    fields = [each for each in headers if each[0] in FIELDS]
    if not fields or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    parent = _propagator.extract({field.decode(): value.decode("latin-1") for field, value in fields})
    if not trace.get_current_span(parent).get_span_context().is_valid:
        return None
    attributes = {"asgictl.event": name()}
    if added := int(entry.partition(b"-")[0] or 0) * 1_000_000:  # to nanoseconds; Redis's clock may be ahead
        now = time.time_ns()
        _tracer.start_span("wait", parent, attributes=attributes, start_time=min(added, now)).end(now)
    span = _tracer.start_span("run", parent, attributes=attributes)
    return Joined(span, context.attach(trace.set_span_in_context(span, parent)))


def leave(joined: Joined, error: BaseException | None) -> None:
    """End `run`. error: of the handler."""
    if error is not None:
        joined.span.record_exception(error)
        joined.span.set_status(trace.StatusCode.ERROR)
    joined.span.end()
    context.detach(joined.token)


def carried(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return what a job carries on: the current span, or without one the trace of the event with these headers."""
    fields: dict[str, str] = {}
    if is_installed:
        _propagator.inject(fields)
    if fields:
        return [(field.encode(), value.encode()) for field, value in fields.items()]
    return [(field, value) for field, value in headers if field in FIELDS]
