"""How long each step of a deploy took: for the answer, the metrics and, where an exporter is set, a trace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from vibed.tracing import Tracer


class Steps:
    """The clock of one deploy. Milliseconds by step; one span a step below `deploy`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self.began = time.perf_counter()
        self.ms: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        at = time.perf_counter()
        with self._tracer.span(f"deploy.{name}"):
            try:
                yield
            finally:
                self.ms[name] = round(self.ms.get(name, 0.0) + (time.perf_counter() - at) * 1e3, 3)

    def elapsed_ms(self) -> float:
        """Since the deploy began."""
        return round((time.perf_counter() - self.began) * 1e3, 3)
