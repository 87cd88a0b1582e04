"""What holds for all tests: with CI=true a skip is a failure, since CI must have everything present. And the cluster,
which tests of several folders use.
"""

from __future__ import annotations

import os

import pytest

from tests.cluster.fixtures import cluster, kubectl, namespace, own_cluster, real_cluster, real_namespace
from tests.cluster.vibed_apps import apps_namespace, vibed_cluster

__all__ = [
    "apps_namespace",
    "cluster",
    "kubectl",
    "namespace",
    "own_cluster",
    "real_cluster",
    "real_namespace",
    "vibed_cluster",
]

_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _skipped and os.environ.get("CI") == "true" and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skipped and os.environ.get("CI") == "true":
        terminalreporter.write_sep("=", "skipped, which CI=true takes for failed", red=True)
        for name in _skipped:
            terminalreporter.write_line(name)
