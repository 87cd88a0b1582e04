"""What vibeD's own processes write about themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.waiting import eventually

PROCESSES = ("watchdog", "caddy", "sites", "controller", "serve")


@pytest.mark.parametrize("name", PROCESSES)
def test_every_line_is_a_record(vibed: Instance, apps: Apps, name: str) -> None:
    apps.ready(samples.static(1))
    vibed.client.visit("nobody-took-this")
    # what stands behind the last newline is being written
    lines = (vibed.layout.own_logs / f"{name}.log").read_text().split("\n")[:-1]
    assert lines
    for line in lines:
        record = json.loads(line)
        assert record.get("event") or record.get("msg"), line
        assert record.get("timestamp") or record.get("ts"), line
        assert record.get("logger") or record.get("level"), line


def test_a_request_can_be_followed_by_its_id(vibed: Instance, apps: Apps) -> None:
    name = apps.name()
    answer = vibed.client.post_deploy(name, samples.static(1))

    def records() -> list[dict[str, Any]]:
        written = (vibed.layout.own_logs / "serve.log").read_text().split("\n")[:-1]
        return [json.loads(line) for line in written if answer.headers["x-request-id"] in line]

    # they are written when the answer is on its way
    eventually(lambda: len(records()) == 2, "both records are written")
    about = {record["event"]: record for record in records()}
    assert set(about) == {"request", "deployed"}
    assert about["deployed"]["app_id"] == name
    assert about["request"]["status"] == answer.status_code


def test_names_that_are_no_apps_fill_no_log(vibed: Instance) -> None:
    log = vibed.layout.own_logs / "caddy.log"
    before = log.stat().st_size
    for number in range(20):
        assert vibed.client.visit(f"nobody-took-{number}").status_code == 404
    assert log.stat().st_size == before
