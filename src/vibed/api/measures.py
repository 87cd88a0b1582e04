"""The API's own metrics, in a registry of its own; the controller's are added to the page as they come."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.process_collector import ProcessCollector

_STEPS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.06, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Measures:
    """docs/reference/metrics.md lists every one."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="vibed_serve", registry=self.registry)
        self.deploys = Counter(
            "vibed_deploys",
            "Deploys that were accepted, by how they stood when they were answered.",
            ("lane", "template", "phase"),
            registry=self.registry,
        )
        self.refused = Counter(
            "vibed_deploys_refused", "Deploys that were refused, by code.", ("code",), registry=self.registry
        )
        self.step = Histogram(
            "vibed_deploy_step_seconds",
            "Seconds by step of a deploy (total: first byte to answer).",
            ("step", "lane", "template"),
            buckets=_STEPS_S,
            registry=self.registry,
        )
        self.requests = Counter(
            "vibed_http_requests", "Answers of the API.", ("method", "status"), registry=self.registry
        )
        self.streams = Gauge("vibed_streams_open", "Open log and event streams.", ("kind",), registry=self.registry)

    def deployed(self, lane: str, template: str, phase: str, ms: Mapping[str, float]) -> None:
        """Count one accepted deploy with its steps in milliseconds."""
        self.deploys.labels(lane, template, phase).inc()
        for step, value in ms.items():
            self.step.labels(step, lane, template).observe(value / 1e3)

    def page(self) -> str:
        """Prometheus' text format."""
        return generate_latest(self.registry).decode()
