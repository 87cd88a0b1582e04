"""What is said of an update, by HTTP, MCP and the command line: one table, and every surface says the same."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from api_harness import ADMIN_KEY, PYTHON, SITE, Running
from mcp_harness import call, over_http, served

from vibed.apps.app import Phase
from vibed.apps.store import VersionOutcome

FIRST, SECOND = 1, 2


@dataclass(frozen=True)
class Seen:
    """What the controller writes at one moment: of the second version, and of the app."""

    result: Phase | None
    reason: str
    message: str
    serving: int | None
    phase: Phase = Phase.READY


@dataclass(frozen=True)
class Case:
    """Moments of an update, and what has to be said of the version at the end."""

    name: str
    moments: tuple[Seen, ...]
    """The first is there when the deploy is answered; the others come while whoever asked waits."""
    first: tuple[str, str, int | None]
    """Phase, status of MCP, version that serves: in the answer of the deploy."""
    last: tuple[str, str, str, int | None]
    """Phase, status of MCP, reason, version that serves: when all is over."""
    exit_status: int = 1
    overtaken: bool = False


STARTS = Seen(Phase.STARTING, "Updating", "version 1 serves while version 2 starts", 1)
SERVES = Seen(Phase.READY, "Running", "version 2 is serving", 2)
FAILS = Seen(Phase.FAILED, "StartFailed", "version 2 failed: KeyError: 'DB' Version 1 still serves.", 1)
BROKE = Seen(Phase.FAILED, "CrashLoop", "version 2 failed: it ends again and again. Version 1 serves again.", 1)
GONE = Seen(Phase.FAILED, "CrashLoop", "version 2 failed: it ends again and again. Version 1 is being brought back.",
            None, Phase.STARTING)  # fmt: skip
LATER = Seen(Phase.FAILED, "Superseded", "a newer version was deployed before this one was ready", 3)
UNSEEN = Seen(None, "Running", "version 3 is serving", 3)
NOT_LOOKED = Seen(None, "", "", 1)

CASES = [
    Case("at once", (SERVES,), ("Ready", "running", 2), ("Ready", "running", "Running", 2), 0),
    Case("slow", (STARTS, STARTS, SERVES), ("Starting", "deploying", 1), ("Ready", "running", "Running", 2), 0),
    Case("not looked at yet", (NOT_LOOKED, SERVES), ("Pending", "pending", 1), ("Ready", "running", "Running", 2), 0),
    Case("failed", (FAILS,), ("Failed", "failed", 1), ("Failed", "failed", "StartFailed", 1)),
    Case("slow and failed", (STARTS, FAILS), ("Starting", "deploying", 1), ("Failed", "failed", "StartFailed", 1)),
    Case("failed, and the old one comes back", (STARTS, GONE, BROKE),
         ("Starting", "deploying", 1), ("Failed", "failed", "CrashLoop", 1)),
    Case("overtaken", (STARTS, LATER), ("Starting", "deploying", 1), ("Failed", "failed", "Superseded", 3),
         overtaken=True),
    Case("overtaken unseen", (STARTS, UNSEEN), ("Starting", "deploying", 1), ("Failed", "failed", "Superseded", 3),
         overtaken=True),
]  # fmt: skip


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Running]:
    async with served(tmp_path, deploy_wait_s=5.0) as (api, _):
        yield api


async def write(api: Running, seen: Seen) -> None:
    """What the controller would have written at that moment."""
    app = await api.store.get("todo")
    outcomes = []
    if seen.result is not None:
        outcomes.append(VersionOutcome(SECOND, seen.result, seen.reason, seen.message, {"start": 1.0}))
    if seen is NOT_LOOKED:
        return
    status = replace(
        app.status, phase=seen.phase, reason=seen.reason, message=seen.message, serving_version=seen.serving,
        observed_generation=app.generation, isolation="kernel",
    )  # fmt: skip
    await api.store.record("todo", status, outcomes=outcomes)


def script(api: Running, case: Case) -> Callable[[], Awaitable[None]]:
    """Have the controller go through `case`; returns what waits until all of it has happened."""
    over = asyncio.Event()

    async def later() -> None:
        for seen in case.moments[1:]:
            await asyncio.sleep(0.2)
            if case.overtaken:
                app = await api.store.get("todo")
                if app.version == SECOND:
                    api.controller.settle = at_once  # type: ignore[method-assign]
                    await api.deploy("todo", PYTHON)
            await write(api, seen)
        over.set()

    async def settle(app_id: str, version: int, timeout_s: float) -> dict[str, Any]:
        seen = case.moments[0]
        await write(api, seen)
        tasks.append(asyncio.create_task(later()))
        phase = seen.result or Phase.PENDING
        return {"phase": phase.value, "reason": seen.reason, "message": seen.message, "serving_version": seen.serving}

    async def at_once(app_id: str, version: int, timeout_s: float) -> dict[str, Any]:
        return {"phase": "Starting", "reason": "Updating", "message": "", "serving_version": 1}

    tasks: list[asyncio.Task[None]] = []
    api.controller.settle = settle  # type: ignore[method-assign]

    async def wait() -> None:
        await over.wait()

    return wait


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_http_and_mcp_say_the_same_of_an_update(api: Running, case: Case) -> None:
    assert (await api.deploy("todo", SITE)).status_code == 200
    all_over = script(api, case)
    phase, status, serving = case.first
    answer = await api.deploy("todo", PYTHON)
    body = answer.json()
    assert answer.status_code == (200 if phase == "Ready" else 202)
    assert (body["phase"], body["version"], body["serving_version"]) == (phase, SECOND, serving)
    assert body["settled"] is (phase in ("Ready", "Failed"))
    await all_over()

    phase, status, reason, serving = case.last
    version = (await api.client.get("/v1/apps/todo/versions/2")).json()
    listed = (await api.client.get("/v1/apps/todo/versions")).json()["items"]
    for told in (version, next(item for item in listed if item["version"] == SECOND)):
        assert (told["phase"], told["reason"], told["serving_version"]) == (phase, reason, serving)
        assert (told["serving"], told["settled"]) == (serving == SECOND, True)
    url = api.config.api_url.replace("localhost", "127.0.0.1")
    async with over_http(url) as client:
        rows = (await call(client, "list_versions", artifact_id="todo"))["versions"]
        row = next(item for item in rows if item["version"] == SECOND)
        assert (row["status"], row["reason"], row["serving"]) == (status, reason, serving == SECOND)
        seen = await call(client, "get_artifact_status", artifact_id="todo")
    app = (await api.client.get("/v1/apps/todo")).json()
    if not case.overtaken:
        assert (app["version"], app["phase"], app["reason"], app["serving_version"]) == (2, phase, reason, serving)
        assert (seen["version"], seen["status"], seen["reason"], seen["serving_version"]) == (
            2,
            status,
            reason,
            serving,
        )
        assert app["message"] == seen["message"] == version["message"]
        assert row.get("message", "") == ("" if phase == "Ready" else app["message"])
        found = (await api.client.get(f"/v1/apps?phase={phase}")).json()["items"]
        assert [item["app_id"] for item in found] == ["todo"], "lists are filtered by the phase that they show"
    else:
        assert (app["version"], app["serving_version"]) == (3, 3)
    if serving == FIRST:
        assert "ersion 1 " in version["message"]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_mcp_says_of_an_update_what_http_says(api: Running, case: Case) -> None:
    assert (await api.deploy("todo", SITE)).status_code == 200
    all_over = script(api, case)
    url = api.config.api_url.replace("localhost", "127.0.0.1")
    async with over_http(url) as client:
        body = await call(client, "update_artifact", artifact_id="todo", files={"index.html": "two"})
    assert (body["status"], body["version"], body["serving_version"]) == (case.first[1], SECOND, case.first[2])
    assert body.get("isolation", "") == ("kernel" if case.first[0] == "Ready" else "")
    await all_over()


async def vibed(api: Running, folder: Path, *arguments: str) -> tuple[int, str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIBED_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "vibed.cli.main", *arguments, cwd=folder,
        env={**kept, "HOME": str(folder.parent), "VIBED_URL": api.config.api_url, "VIBED_TOKEN": ADMIN_KEY},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


COMMANDS = {"deploy": ["deploy", "--update"], "redeploy": ["redeploy", "todo"], "rollback": ["rollback", "todo", "1"]}


@pytest.mark.parametrize(
    ("case", "command"),
    [
        pytest.param(case, command, id=f"{command}, {case.name}")
        for case in CASES
        for command in COMMANDS
        if command == "deploy" or case.name in ("slow", "slow and failed")
    ],
)
async def test_the_command_line_waits_and_never_says_live_of_a_version_that_is_not(
    api: Running, tmp_path: Path, case: Case, command: str
) -> None:
    folder = tmp_path / "todo"
    folder.mkdir()
    (folder / "index.html").write_text("two")
    assert (await api.deploy("todo", SITE)).status_code == 200
    all_over = script(api, case)
    exit_status, out, err = await vibed(api, folder, *COMMANDS[command])
    phase, _, reason, serving = case.last
    assert exit_status == case.exit_status, err
    assert ("is live" in err) == (serving == SECOND), err
    assert (api.config.app_url("todo") in out) == (serving == SECOND)
    if serving != SECOND:
        assert phase in err and reason in err
        assert f"ersion {serving}" in err, "and what serves instead"
    await all_over()


async def test_json_of_the_command_line_says_it_too(api: Running, tmp_path: Path) -> None:
    folder = tmp_path / "todo"
    folder.mkdir()
    (folder / "index.html").write_text("two")
    assert (await api.deploy("todo", SITE)).status_code == 200
    script(api, CASES[4])
    exit_status, out, _ = await vibed(api, folder, "deploy", "--update", "--json")
    body = json.loads(out)
    assert (exit_status, body["phase"], body["reason"], body["serving_version"]) == (1, "Failed", "StartFailed", 1)
    assert body["settled"] is True


async def test_a_version_that_failed_after_it_was_ready_is_failed_everywhere(api: Running) -> None:
    assert (await api.deploy("todo", SITE)).status_code == 200
    all_over = script(api, Case("", (SERVES, GONE, BROKE), ("", "", 0), ("", "", "", 0)))
    assert (await api.deploy("todo", PYTHON)).json()["phase"] == "Ready"
    await all_over()
    app = (await api.client.get("/v1/apps/todo")).json()
    assert (app["phase"], app["reason"], app["version"], app["serving_version"]) == ("Failed", "CrashLoop", 2, 1)
    first, second = sorted((await api.client.get("/v1/apps/todo/versions")).json()["items"], key=lambda v: v["version"])
    assert (second["phase"], second["serving"]) == ("Failed", False)
    assert (first["phase"], first["serving"]) == ("Ready", True)


async def test_the_command_line_tells_of_an_app_that_ends_again_and_again_since_it_was_live(
    api: Running, tmp_path: Path
) -> None:
    folder = tmp_path / "todo"
    folder.mkdir()
    api.controller.reason = "Running"
    assert (await api.deploy("todo", SITE)).status_code == 200
    _, out, _ = await vibed(api, folder, "apps")
    assert out.splitlines()[1].split()[:3] == ["todo", "Ready", "1"]
    all_over = script(api, Case("", (SERVES, GONE, BROKE), ("", "", 0), ("", "", "", 0)))
    assert (await api.deploy("todo", PYTHON)).json()["phase"] == "Ready"
    await all_over()
    _, out, _ = await vibed(api, folder, "apps")
    assert out.splitlines()[1].split()[:5] == ["todo", "Failed", "(CrashLoop)", "2", "(1"]
    _, out, _ = await vibed(api, folder, "status", "todo")
    assert "CrashLoop" in out and BROKE.message in out


async def test_a_version_that_was_replaced_is_told_from_one_that_serves_and_from_one_that_failed(api: Running) -> None:
    for source in (SITE, PYTHON):
        assert (await api.deploy("todo", source)).status_code == 200
    url = api.config.api_url.replace("localhost", "127.0.0.1")
    async with over_http(url) as client:
        rows = (await call(client, "list_versions", artifact_id="todo"))["versions"]
    assert [(row["version"], row["status"], row["serving"]) for row in rows] == [
        (2, "running", True), (1, "replaced", False),
    ]  # fmt: skip


async def test_a_repeated_request_says_how_its_version_stands_now(api: Running) -> None:
    assert (await api.deploy("todo", SITE)).status_code == 200
    script(api, CASES[3])
    for _ in range(2):
        answer = await api.client.post(
            "/v1/apps/todo/redeploy", headers={"Idempotency-Key": "one", "Content-Length": "0"}
        )
        body = answer.json()
        assert (answer.status_code, body["version"], body["phase"], body["serving_version"]) == (202, 2, "Failed", 1)
