"""The controller's own metrics; docs/reference/metrics.md lists them (a test compares)."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from vibed.sandboxes.pool import Figures

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
            "vibed_claims", "Sandboxes handed out to a run", ("driver", "template"), registry=self.registry
        )
        self._sandboxes = Gauge(
            "vibed_sandboxes",
            "Sandboxes by state: ready (warm), booting, in_use",
            ("driver", "template", "state"),
            registry=self.registry,
        )
        self._wanted = Gauge(
            "vibed_warm_pool_size", "Warm sandboxes that are wanted", ("driver", "template"), registry=self.registry
        )
        self._claimed: dict[tuple[str, str], int] = {}

    def deployed(self, lane: str, template: str, timings: Mapping[str, float], total_ms: float) -> None:
        """A version went live; timings are milliseconds by step."""
        for step, took in timings.items():
            self._steps.labels(step, lane, template).observe(took / 1000)
        self._total.labels(lane, template).observe(total_ms / 1000)

    def failed(self, reason: str) -> None:
        self._failures.labels(reason).inc()

    def died(self, driver: str, template: str) -> None:
        self._deaths.labels(driver, template).inc()

    def pool(self, driver: str, template: str, figures: Figures, *, in_use: int) -> None:
        """What a pool has just now; `figures.claimed` counts since the start."""
        states = (("ready", figures.ready), ("booting", figures.booting), ("in_use", in_use))
        for state, count in states:
            self._sandboxes.labels(driver, template, state).set(count)
        self._wanted.labels(driver, template).set(figures.size)
        before = self._claimed.get((driver, template), 0)
        self._claims.labels(driver, template).inc(figures.claimed - before)
        self._claimed[driver, template] = figures.claimed

    def text(self) -> str:
        """In Prometheus' text format."""
        return generate_latest(self.registry).decode()
