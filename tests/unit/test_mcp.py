"""MCP with the official Python client: over HTTP against `vibed serve`'s own server, over stdio against `vibed mcp`."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api_harness import ADMIN_KEY
from mcp_harness import TRANSPORTS, call, failed, over_http, over_stdio, served

from vibed.apps.app import Phase
from vibed.mcp.http import McpOverHttp

TOOLS = {
    "deploy_artifact",
    "update_artifact",
    "get_artifact_status",
    "list_artifacts",
    "delete_artifact",
    "get_artifact_logs",
    "list_versions",
    "rollback_artifact",
    "list_deployment_targets",
    "get_artifact_source",
    "get_artifact_events",
    "request_artifact",
}
FLASK = {
    "app.py": "from flask import Flask, render_template\napp = Flask(__name__)\n",
    "templates/index.html": "<h1>hello</h1>",
    "requirements.txt": "flask\n",
}


@TRANSPORTS
async def test_an_agent_deploys_looks_updates_rolls_back_and_deletes(tmp_path: Path, over: Any) -> None:
    async with served(tmp_path) as (api, url), over(url) as client:
        made = await call(client, "deploy_artifact", name="todo", files=FLASK, env_vars={"A": "1"})
        assert made["artifact_id"] == made["name"] == "todo"
        assert made["status"] == "running"
        assert made["url"].startswith("http://todo.localhost:")
        assert made["target"] == "python-313"
        assert made["created"] is True
        assert made["why"]

        seen = await call(client, "get_artifact_status", artifact_id="todo")
        assert (seen["status"], seen["version"], seen["serving_version"]) == ("running", 1, 1)

        page = {"index.html": "<img src=logo.png>", "logo.png": {"base64": base64.b64encode(b"\x89PNG\0\xff").decode()}}
        updated = await call(client, "update_artifact", artifact_id="todo", files=page)
        assert (updated["version"], updated["target"], updated["created"]) == (2, "static-nginx", False)
        assert dict((await api.store.version("todo", 2)).env) == {"A": "1"}

        changed = await call(client, "update_artifact", artifact_id="todo", env_vars={"A": None, "B": "2"})
        assert (changed["version"], changed["env_vars"]) == (3, ["B"])
        assert dict((await api.store.version("todo", 3)).env) == {"B": "2"}

        back = await call(client, "rollback_artifact", artifact_id="todo", version=1)
        assert (back["version"], back["target"]) == (4, "python-313")
        listed = await call(client, "list_versions", artifact_id="todo")
        assert [item["version"] for item in listed["versions"]] == [4, 3, 2, 1]
        assert listed["versions"][0]["rolled_back_from"] == 1
        assert [item["status"] for item in listed["versions"]] == ["running", "replaced", "replaced", "replaced"]
        assert [item["serving"] for item in listed["versions"]] == [True, False, False, False]

        assert [item["artifact_id"] for item in (await call(client, "list_artifacts"))["artifacts"]] == ["todo"]
        assert (await call(client, "delete_artifact", artifact_id="todo"))["deleted"] is True
        assert (await call(client, "list_artifacts"))["total"] == 0
        assert (await failed(client, "delete_artifact", artifact_id="todo"))["code"] == "NotFound"


@TRANSPORTS
async def test_logs_go_on_behind_next(tmp_path: Path, over: Any) -> None:
    async with served(tmp_path) as (api, url), over(url) as client:
        await call(client, "deploy_artifact", name="todo", files=FLASK)
        folder = api.layout.run_log("todo", 1)
        folder.mkdir(parents=True)
        log = folder / "log.jsonl"
        log.write_text(
            "".join(
                json.dumps({"seq": n, "ts": n, "stream": "stdout", "text": f"line {n}"}) + "\n" for n in range(1, 6)
            )
        )
        first = await call(client, "get_artifact_logs", artifact_id="todo", lines=2)
        assert first["lines"] == ["01-01 00:00:04 r1 line 4", "01-01 00:00:05 r1 line 5"]
        with log.open("a") as file:
            file.write(json.dumps({"seq": 6, "ts": 6, "stream": "system", "text": "exited with status 1"}) + "\n")
        more = await call(client, "get_artifact_logs", artifact_id="todo", after=first["next"])
        assert more["lines"] == ["01-01 00:00:06 r1 [vibed] exited with status 1"]


@TRANSPORTS
async def test_targets_come_with_their_packages_and_real_figures(tmp_path: Path, over: Any) -> None:
    async with served(tmp_path) as (_, url), over(url) as client:
        targets = (await call(client, "list_deployment_targets"))["targets"]
        assert [(target["name"], target["packages"], target["isolation"]) for target in targets] == [
            ("python-313", {"flask": "3.1.0"}, "kernel")
        ]


@TRANSPORTS
async def test_a_failure_says_what_is_wrong_and_what_to_change(tmp_path: Path, over: Any) -> None:
    async with served(tmp_path) as (api, url), over(url) as client:
        body = await failed(client, "deploy_artifact", name="My App", files=FLASK)
        assert body["code"] == "InvalidName"
        assert "my-app" in body["hint"]
        assert body["retryable"] is False

        body = await failed(client, "deploy_artifact", name="a", files={"README.md": "x"})
        assert body["code"] == "NoEntrypoint"
        assert body["hint"]

        body = await failed(client, "deploy_artifact", name="a", files={"../app.py": "x"})
        assert body["code"] == "PathTraversal"

        body = await failed(client, "deploy_artifact", name="a", files={"a.png": {"base64": "***"}, "index.html": ""})
        assert body["code"] == "InvalidRequest"

        body = await failed(client, "update_artifact", artifact_id="nothing", files=FLASK)
        assert body["code"] == "NotFound"
        body = await failed(client, "update_artifact", artifact_id="nothing")
        assert body["code"] == "InvalidRequest"
        body = await failed(client, "get_artifact_status", artifact_id="../keys")
        assert body["code"] == "NotFound"
        assert api.sources() == []


@TRANSPORTS
async def test_an_app_that_does_not_start_is_failed_with_its_reason(tmp_path: Path, over: Any) -> None:
    async with served(tmp_path) as (api, url), over(url) as client:
        api.controller.phase, api.controller.reason = Phase.FAILED, "StartFailed"
        api.controller.message = "exit status 1; the last line was: KeyError: 'DB'"
        made = await call(client, "deploy_artifact", name="todo", files=FLASK)
        assert (made["status"], made["reason"]) == ("failed", "StartFailed")
        assert "KeyError" in made["message"]


@TRANSPORTS
async def test_language_is_a_hint_that_files_overrule(tmp_path: Path, over: Any) -> None:
    async with served(tmp_path) as (_, url), over(url) as client:
        made = await call(
            client, "deploy_artifact", name="page", files={"index.html": "hi", "app.js": "1"}, language="javascript"
        )
        assert made["target"] == "static-nginx"
        assert any("javascript" in note for note in made["notes"])


@TRANSPORTS
async def test_callers_see_their_own_apps_only(tmp_path: Path, over: Any) -> None:
    async with served(tmp_path) as (api, url):
        keys = [await api.key("alice"), await api.key("bob")]
        alice, bob = (headers["Authorization"].removeprefix("Bearer ") for headers in keys)
        async with over(url, alice) as client:
            await call(client, "deploy_artifact", name="todo", files=FLASK)
        async with over(url, bob) as client:
            assert (await call(client, "list_artifacts"))["total"] == 0
            for tool, more in (
                ("get_artifact_status", {}),
                ("get_artifact_logs", {}),
                ("list_versions", {}),
                ("delete_artifact", {}),
                ("rollback_artifact", {"version": 1}),
                ("update_artifact", {"files": FLASK}),
            ):
                assert (await failed(client, tool, artifact_id="todo", **more))["code"] == "NotFound"
            assert (await failed(client, "deploy_artifact", name="todo", files=FLASK))["code"] == "NameTaken"
        assert (await api.store.get("todo")).version == 1


@TRANSPORTS
async def test_tools_describe_themselves_to_an_agent(tmp_path: Path, over: Any) -> None:
    async with served(tmp_path) as (_, url), over(url) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == TOOLS
        for tool in tools.values():
            assert tool.description
            assert tool.output_schema
            assert tool.annotations
        guide = tools["deploy_artifact"].description or ""
        for word in ("PORT", "0.0.0.0", "reason", "working directory", "static", "worker", "flask"):
            assert word in guide
        read_only = {name for name, tool in tools.items() if tool.annotations and tool.annotations.read_only_hint}
        assert read_only == {name for name in TOOLS if name.startswith(("get_", "list_"))}
        changing = [tool.annotations for name, tool in tools.items() if name not in read_only]
        assert all(hints and hints.destructive_hint for hints in changing), "each can take the place of what is there"
        assert client.instructions and "deploy_artifact" in client.instructions
        assert "0.0.0.0" not in client.instructions, "the guide is told once"
        assert client.server_capabilities.prompts is None and client.server_capabilities.resources is None


async def test_over_stdio_a_folder_can_be_deployed(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text("hi")
    (folder / ".env").write_text("SECRET=1")
    (folder / ".vibedignore").write_text(".env\n")
    async with served(tmp_path) as (_, url), over_stdio(url) as client:
        made = await call(client, "deploy_artifact", name="site", path=str(folder))
        assert made["status"] == "running"
        assert (await failed(client, "deploy_artifact", name="site", path=str(folder / "no")))["code"] == "PackFailed"
        body = await failed(client, "deploy_artifact", name="site", path=str(folder), files={"a": "b"})
        assert body["code"] == "InvalidRequest"
        assert (await failed(client, "deploy_artifact", name="site"))["code"] == "InvalidRequest"


async def test_over_stdio_a_home_folder_is_not_sent(tmp_path: Path) -> None:
    async with served(tmp_path) as (api, url), over_stdio(url) as client:
        for home in ("~", "/"):
            body = await failed(client, "deploy_artifact", name="home", path=home)
            assert body["code"] == "PackFailed" and "home folder" in body["message"]
        assert api.sources() == []


async def test_over_http_a_folder_of_the_server_cannot_be_deployed(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, url), over_http(url) as client:
        tool = next(tool for tool in (await client.list_tools()).tools if tool.name == "deploy_artifact")
        assert "path" not in tool.input_schema["properties"]


async def test_over_stdio_an_unreachable_vibed_is_told_by_the_tools(tmp_path: Path) -> None:
    async with over_stdio("http://127.0.0.1:9") as client:
        body = await failed(client, "list_artifacts")
        assert (body["code"], body["retryable"]) == ("Unreachable", True)


async def test_mcp_needs_a_key_the_right_host_and_no_foreign_origin(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, url), httpx2.AsyncClient() as http:
        ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        accept = {"Accept": "application/json, text/event-stream"}
        key = {"Authorization": f"Bearer {ADMIN_KEY}"}
        assert (await http.post(f"{url}/mcp", json=ask, headers=accept)).status_code == 401
        wrong = {**accept, "Authorization": "Bearer wrong"}
        assert (await http.post(f"{url}/mcp", json=ask, headers=wrong)).status_code == 401
        foreign = {**accept, **key, "Origin": "http://evil.localhost"}
        assert (await http.post(f"{url}/mcp", json=ask, headers=foreign)).status_code == 403
        elsewhere = {**accept, **key, "Host": "evil.example"}
        assert (await http.post(f"{url}/mcp", json=ask, headers=elsewhere)).status_code == 421
        good = await http.post(f"{url}/mcp", json=ask, headers={**accept, **key})
        assert good.status_code == 200, good.text


async def test_a_call_with_too_large_files_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as (api, url), over_http(url) as client:
        noise = base64.b64encode(os.urandom(3_000_000)).decode()
        body = await failed(
            client, "deploy_artifact", name="big", files={"index.html": "x", "b.bin": {"base64": noise}}
        )
        assert body["code"] == "TooLarge"
        assert api.sources() == []


async def test_a_library_that_could_not_be_loaded_is_loaded_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = McpOverHttp._load
    loads = 0

    def at_first_without_memory(self: McpOverHttp) -> Any:
        nonlocal loads
        loads += 1
        if loads == 1:
            raise MemoryError
        return load(self)

    monkeypatch.setattr(McpOverHttp, "_load", at_first_without_memory)
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Accept": "application/json, text/event-stream"}
    async with served(tmp_path) as (_, url), httpx2.AsyncClient(headers=headers, timeout=20) as client:
        assert (await client.post(f"{url}/mcp", json=call)).status_code == 500
        assert (await client.post(f"{url}/mcp", json=call)).status_code == 200
