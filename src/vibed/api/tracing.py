"""OpenTelemetry, only where the operator has set an exporter: without one nothing of it is imported (memory).

Settings are OpenTelemetry's own: OTEL_EXPORTER_OTLP_ENDPOINT (HTTP), or OTEL_TRACES_EXPORTER=otlp|console|none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol


class Tracer(Protocol):
    """Spans around steps."""

    def span(self, name: str, **attributes: str | int | float | bool) -> AbstractContextManager[None]:
        """A span that lasts as long as its block; nests by task."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class NoTracer:
    """What is used when no exporter is set."""

    def span(self, name: str, **attributes: str | int | float | bool) -> AbstractContextManager[None]:
        return nullcontext()

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

    def close(self) -> None:
        self._provider.shutdown()


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
