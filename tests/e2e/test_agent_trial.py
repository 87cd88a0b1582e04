"""An agent's whole round over MCP, with the official clients of both eras, and what each answer costs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import prepare
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance

MOST = {
    "get_artifact_logs": 20_500, "get_artifact_source": 3_000, "request_artifact": 3_000, "get_artifact_events": 6_000,
    "list_artifacts": 4_000, "list_versions": 3_000,
}  # fmt: skip
"""Bytes of an answer's text, by tool; of every other 1,000."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("era", ["1", "2"])
def test_an_agent_deploys_breaks_reads_repairs_changes_and_rolls_back(vibed: Instance, apps: Apps, era: str) -> None:
    vibed.client.wait_for_template("python-313")
    if era == "1":
        # nothing to do where `tests.prepare client` ran before
        assert prepare.client() == 0
    # the earlier client lies in a folder of its own, before what is installed
    env = {**os.environ, "PYTHONPATH": str(prepare.old_client()) if era == "1" else ""}
    url = f"http://127.0.0.1:{vibed.port}/mcp"
    script = Path(__file__).with_name("agent.py")
    done = subprocess.run(
        [sys.executable, str(script), url, vibed.admin_key, apps.name()], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-6_000:]
    told = json.loads(done.stdout)
    assert told["client"].startswith(f"{era}.")
    assert told["tools"] < 18_000, "what the tools cost on every turn"
    too_much = [cost for cost in told["costs"] if cost["bytes"] > MOST.get(cost["tool"], 1_000)]
    assert too_much == []
    assert sum(cost["bytes"] for cost in told["costs"]) < 15_000, "the whole round"
