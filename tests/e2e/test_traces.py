"""With an exporter configured, a deploy is one trace over both of vibeD's processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.e2e.instance import Instance
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.timeout(180)


class Collector:
    """An OTLP collector (HTTP, protobuf) that keeps what it is sent."""

    def __init__(self) -> None:
        spans: list[Span] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                spans.extend(one for of in sent.resource_spans for scope in of.scope_spans for one in scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.spans = spans
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def whole(self, app_id: str) -> dict[str, Span]:
        """The spans of the trace that has a run of this app, by name, once both processes have sent theirs."""
        for run in list(self.spans):
            if any(one.key == "app_id" and one.value.string_value == app_id for one in run.attributes):
                found = {span.name: span for span in list(self.spans) if span.trace_id == run.trace_id}
                return found if "deploy" in found else {}
        return {}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.shutdown()


@pytest.fixture(scope="module")
def traced(collector: Collector) -> Iterator[Instance]:
    vibed = Instance(templates="static-nginx,workerd")
    port = collector.server.server_address[1]
    vibed.env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    try:
        vibed.up()
        yield vibed
    finally:
        left = vibed.end()
    assert not left, left


STEPS = {"deploy.receive", "deploy.classify", "deploy.store", "deploy.settle"}
RUN = {"run.claiming", "run.injecting", "run.starting", "run.switching"}


def test_the_controllers_part_is_in_the_trace_of_the_deploy(traced: Instance, collector: Collector) -> None:
    traced.client.deploy_ready("traced", {"index.html": "hi"})
    trace = eventually(lambda: collector.whole("traced"), "the whole trace")
    assert set(trace) >= {"deploy", "run"} | STEPS | RUN
    assert trace["run"].parent_span_id == trace["deploy.settle"].span_id
    for name in RUN:
        assert trace[name].parent_span_id == trace["run"].span_id
    assert trace["deploy"].start_time_unix_nano <= trace["run"].start_time_unix_nano
    assert trace["run"].end_time_unix_nano <= trace["deploy"].end_time_unix_nano


def test_a_run_that_fails_says_why_in_its_span(traced: Instance, collector: Collector) -> None:
    traced.client.wait_for_template("workerd")
    traced.client.deploy("broken", {"worker.js": "export default { fetch() {} }\nthrow new Error('at start')"})
    trace = eventually(lambda: collector.whole("broken"), "the whole trace")
    assert trace["run"].status.code == Status.STATUS_CODE_ERROR
    assert "at start" in trace["run"].status.message
