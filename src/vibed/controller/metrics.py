"""The controller's own metrics; docs/reference/metrics.md lists them (a test compares)."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """Counters and histograms of deploys, sandboxes and pools."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._steps = Histogram(
            "vibed_bring_up_step_seconds",
            "Time of one step of bringing a version up",
            ("step", "lane", "template"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._total = Histogram(
            "vibed_bring_up_seconds",
            "From the controller's decision to the switch",
            ("lane", "template"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._failures = Counter(
            "vibed_run_failures",
            "Runs that ended without being asked to, by reason",
            ("reason",),
            registry=self.registry,
        )
        self._deaths = Counter(
            "vibed_sandbox_deaths", "Serving sandboxes that died", ("driver", "template"), registry=self.registry
        )
        self._claims = Counter(
            "vibed_claims", "Sandboxes claimed", ("driver", "template", "warm"), registry=self.registry
        )
        self._pool = Gauge(
            "vibed_pool_sandboxes", "Sandboxes by state", ("driver", "template", "state"), registry=self.registry
        )

    def deployed(self, lane: str, template: str, timings: Mapping[str, float], total_ms: float) -> None:
        """A version went live; timings are milliseconds by step."""
        for step, took in timings.items():
            self._steps.labels(step, lane, template).observe(took / 1000)
        self._total.labels(lane, template).observe(total_ms / 1000)

    def failed(self, reason: str) -> None:
        self._failures.labels(reason).inc()

    def died(self, driver: str, template: str) -> None:
        self._deaths.labels(driver, template).inc()

    def claimed(self, driver: str, template: str, *, warm: bool) -> None:
        self._claims.labels(driver, template, "yes" if warm else "no").inc()

    def pool(self, driver: str, template: str, state: str, count: int) -> None:
        self._pool.labels(driver, template, state).set(count)

    def text(self) -> str:
        """In Prometheus' text format."""
        return generate_latest(self.registry).decode()
