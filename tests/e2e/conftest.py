"""Two complete vibeDs for the whole run, and apps that are deleted when their test is over."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from itertools import count
from typing import Any

import pytest

from tests.e2e.client import Client, Deployed, Source
from tests.e2e.instance import Instance, running

_numbers = count(1)


def _session(**settings: str) -> Iterator[Instance]:
    with running(Instance(**settings)) as it:
        yield it


@pytest.fixture(scope="session")
def vibed() -> Iterator[Instance]:
    """A vibeD as `vibed up` makes it; the drain deadline is short, so that a test can see its end."""
    yield from _session(drain_s="6")


@pytest.fixture(scope="session")
def second() -> Iterator[Instance]:
    """Another one beside it: impatient with apps that do not listen, and the one whose parts are killed. It installs
    nothing for apps.
    """
    yield from _session(
        templates="static-nginx,workerd,python-313",
        start_timeout_s="8",
        drain_s="4",
        pools="python-313=1,workerd=1",
        layers="false",
    )


class Apps:
    """Deploys under names of one test; deletes them afterwards."""

    def __init__(self, client: Client, prefix: str) -> None:
        self.client = client
        self._prefix = prefix
        self._names: list[str] = []

    def name(self, hint: str = "") -> str:
        """A name that no other test has."""
        made = f"{self._prefix[:40]}{f'-{hint}' if hint else ''}-{next(_numbers)}"
        self._names.append(made)
        return made

    def deploy(self, source: Source, *, hint: str = "", **metadata: Any) -> Deployed:
        """Deploy a new app, whatever becomes of it."""
        return self.client.deploy(self.name(hint), source, **metadata)

    def ready(self, source: Source, *, hint: str = "", **metadata: Any) -> str:
        """Deploy a new app that has to become Ready; its name."""
        return self.client.deploy_ready(self.name(hint), source, **metadata).app_id

    def end(self) -> None:
        """Delete them."""
        for name in self._names:
            self.client.delete(name)


def _prefix(request: pytest.FixtureRequest) -> str:
    return re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")[:40].strip("-") or "t"


@pytest.fixture
def apps(request: pytest.FixtureRequest, vibed: Instance) -> Iterator[Apps]:
    """Apps on the first vibeD."""
    made = Apps(vibed.client, f"t-{_prefix(request)}".rstrip("-"))
    yield made
    made.end()


@pytest.fixture
def second_apps(request: pytest.FixtureRequest, second: Instance) -> Iterator[Apps]:
    """Apps on the second vibeD."""
    made = Apps(second.client, f"t-{_prefix(request)}".rstrip("-"))
    yield made
    made.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure also shows what vibeD itself said last."""
    report = yield
    if report.when == "call" and report.failed:
        for name in ("vibed", "second"):
            instance = getattr(item, "funcargs", {}).get(name)
            if isinstance(instance, Instance):
                report.sections.append((f"vibeD's own logs ({name})", instance.own_logs()))
    return report
