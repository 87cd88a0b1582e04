"""OpenTelemetry, only where the operator has set an exporter: without one nothing of it is imported (memory).

A deploy is one trace: the API's process opens it and hands it on to the controller with what it asks for.

Settings are OpenTelemetry's own: OTEL_EXPORTER_OTLP_ENDPOINT (HTTP), or OTEL_TRACES_EXPORTER=otlp|console|none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Step:
    """A part of something that is over; Unix seconds."""

    name: str
    began: float
    ended: float


class Tracer(Protocol):
    """Spans around steps."""

    def span(self, name: str, **attributes: str | int | float | bool) -> AbstractContextManager[None]:
        """A span that lasts as long as its block; nests by task."""
        ...

    def here(self) -> str:
        """The innermost open span, for another process to go on from (`traceparent` of W3C Trace Context); or empty."""
        ...

    def record(
        self, what: Step, *, within: str, steps: Sequence[Step] = (), error: str = "", **attributes: str | int | float
    ) -> None:
        """A span that is over, below what `here` said in another process, with a span below it for each of its steps.

        `error` says why it failed, if it did.
        """
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class NoTracer:
    """What is used when no exporter is set."""

    def span(self, name: str, **attributes: str | int | float | bool) -> AbstractContextManager[None]:
        return nullcontext()

    def here(self) -> str:
        return ""

    def record(
        self, what: Step, *, within: str, steps: Sequence[Step] = (), error: str = "", **attributes: str | int | float
    ) -> None:
        return None

    def close(self) -> None:
        return None


class OpenTelemetry:
    """Spans to the exporter that the environment names."""

    def __init__(self, exporter: Any, *, at_once: bool = False) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

        from vibed import __version__

        resource = Resource.create({"service.name": "vibed", "service.version": __version__})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("vibed", __version__)

    @contextmanager
    def span(self, name: str, **attributes: str | int | float | bool) -> Iterator[None]:
        with self._tracer.start_as_current_span(name, attributes=attributes):
            yield

    def here(self) -> str:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        return carrier.get("traceparent", "")

    def record(
        self, what: Step, *, within: str, steps: Sequence[Step] = (), error: str = "", **attributes: str | int | float
    ) -> None:
        from opentelemetry.trace import Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract({"traceparent": within})
        span = self._tracer.start_span(what.name, parent, attributes=attributes, start_time=_ns(what.began))
        for step in steps:
            below = self._tracer.start_span(step.name, set_span_in_context(span), start_time=_ns(step.began))
            below.end(_ns(step.ended))
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(_ns(what.ended))

    def close(self) -> None:
        self._provider.shutdown()


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def from_environment(environ: Mapping[str, str] = os.environ) -> Tracer:
    """The tracer that the environment asks for."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    endpoint = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none" or not (exporter or endpoint):
        return NoTracer()
    if exporter == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return OpenTelemetry(ConsoleSpanExporter(out=sys.stderr))
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OpenTelemetry(OTLPSpanExporter())
