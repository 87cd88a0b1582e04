"""The registry gate in a controller's pod: what keeps it from the controller's keys has to be there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vibed.runtimes.gate import GateFailed, gate_in_pod
from vibed.runtimes.registries import Registries
from vibed.supervision import landlock


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    """What stands for the agent's program: it tells how it was to be confined, and ends."""
    program = tmp_path / "agent"
    program.write_text('#!/bin/sh\ncp "$2" "$0.spec"\necho confine: seccomp: not here >&2\nexit 1\n')
    program.chmod(0o755)
    return program


async def test_where_the_node_has_no_landlock_there_is_no_gate_and_it_is_said_why_and_who_mends_it(
    agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    with pytest.raises(GateFailed) as failed:
        async with gate_in_pod(agent, tmp_path / "gates", tmp_path / "downloads", Registries()):
            raise AssertionError("it is open")
    assert not failed.value.may_retry
    assert "the kernel of the controller's node has no Landlock" in failed.value.message
    assert "operator" in (failed.value.hint or "")
    assert not agent.with_name("agent.spec").exists(), "nothing was started"


@pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")
async def test_a_gate_that_cannot_be_confined_does_not_open_and_its_words_are_told(agent: Path, tmp_path: Path) -> None:
    with pytest.raises(GateFailed) as failed:
        async with gate_in_pod(agent, tmp_path / "gates", tmp_path / "downloads", Registries()):
            raise AssertionError("it is open")
    spec = json.loads(agent.with_name("agent.spec").read_text())
    assert spec["landlock_required"] is True
    assert [Path(place).parent for place in spec["landlock"]["rw"]] == [tmp_path / "gates", tmp_path]
    assert "confine: seccomp: not here" in failed.value.message
