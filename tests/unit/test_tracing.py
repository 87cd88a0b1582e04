"""OpenTelemetry: spans of a deploy where an exporter is set, and nothing of it where none is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from api_harness import running
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from vibed.tracing import NoTracer, OpenTelemetry, Step, from_environment


async def test_a_deploy_is_one_trace_with_a_span_a_step(tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    async with running(tmp_path / "home", tmp_path / "run") as api:
        api.app.state.context.deployments.tracer = OpenTelemetry(exporter, at_once=True)
        assert (await api.deploy("a")).status_code == 200
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {"deploy", "deploy.receive", "deploy.classify", "deploy.store", "deploy.settle"} <= set(spans)
    root = spans["deploy"]
    assert root.parent is None
    for name, span in spans.items():
        if name != "deploy":
            assert span.parent is not None and span.parent.span_id == root.context.span_id


def test_what_another_process_did_is_a_part_of_the_same_trace() -> None:
    here, there = InMemorySpanExporter(), InMemorySpanExporter()
    asking, asked = OpenTelemetry(here, at_once=True), OpenTelemetry(there, at_once=True)
    with asking.span("deploy"):
        within = asking.here()
    asked.record(Step("run", 10.0, 12.5), within=within, steps=[Step("run.claiming", 10.0, 10.5)], app_id="todo")
    asked.record(Step("run", 13.0, 14.0), within=within, error="it does not listen")
    (deploy,) = here.get_finished_spans()
    claiming, run, failed = there.get_finished_spans()
    assert {span.context.trace_id for span in (claiming, run, failed)} == {deploy.context.trace_id}
    assert run.parent is not None and run.parent.span_id == deploy.context.span_id
    assert claiming.parent is not None and claiming.parent.span_id == run.context.span_id
    assert (run.start_time, run.end_time, run.attributes) == (10_000_000_000, 12_500_000_000, {"app_id": "todo"})
    assert (claiming.start_time, claiming.end_time) == (10_000_000_000, 10_500_000_000)
    assert run.status.is_ok or run.status.is_unset
    assert (failed.status.is_ok, failed.status.description) == (False, "it does not listen")


def test_there_is_nothing_to_go_on_from_where_nothing_is_traced() -> None:
    assert NoTracer().here() == ""
    assert OpenTelemetry(InMemorySpanExporter()).here() == ""


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"},
    ],
)
def test_without_an_exporter_there_is_no_tracer(environ: dict[str, str]) -> None:
    assert isinstance(from_environment(environ), NoTracer)


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"},
        {"OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_TRACES_EXPORTER": "console"},
    ],
)
def test_an_exporter_in_the_environment_is_used(environ: dict[str, str]) -> None:
    tracer = from_environment(environ)
    assert isinstance(tracer, OpenTelemetry)
    tracer.close()


def test_the_api_imports_neither_the_sdk_nor_mcp_before_they_are_needed() -> None:
    script = (
        "import sys, vibed.api.serve; print([m for m in sys.modules if m in ('mcp', 'opentelemetry.sdk', 'httpx')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
