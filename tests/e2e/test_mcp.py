"""What an AI agent does, through the official client, over both transports."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from mcp import ClientSession, StdioServerParameters, stdio_client

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.mcp_client import call, over_http, refused

Open = Callable[[Instance], AbstractAsyncContextManager[ClientSession]]

TOOLS = {
    "deploy_artifact",
    "update_artifact",
    "get_artifact_status",
    "list_artifacts",
    "delete_artifact",
    "get_artifact_logs",
    "list_versions",
    "rollback_artifact",
    "get_artifact_source",
    "get_artifact_events",
    "request_artifact",
    "list_deployment_targets",
}


def _http(vibed: Instance) -> AbstractAsyncContextManager[ClientSession]:
    return over_http(vibed.port, vibed.admin_key)


@asynccontextmanager
async def _stdio(vibed: Instance) -> AsyncIterator[ClientSession]:
    command, *arguments = vibed.command("mcp")
    server = StdioServerParameters(command=command, args=arguments, env=vibed.env, cwd=str(vibed.root))
    async with stdio_client(server) as streams, ClientSession(streams[0], streams[1]) as session:
        await session.initialize()
        yield session


both = pytest.mark.parametrize("transport", [pytest.param(_http, id="http"), pytest.param(_stdio, id="stdio")])


@both
async def test_the_tools_are_described_so_that_an_agent_can_use_them(vibed: Instance, transport: Open) -> None:
    async with transport(vibed) as session:
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
    assert set(tools) >= TOOLS
    for tool in tools.values():
        assert tool.description
        assert tool.output_schema
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is not None
    assert tools["delete_artifact"].annotations.destructive_hint  # type: ignore[union-attr]
    assert "reason" in (tools["deploy_artifact"].description or "")


@both
async def test_an_agents_whole_round(vibed: Instance, apps: Apps, transport: Open) -> None:
    vibed.client.wait_for_template("python-313")
    name = apps.name()
    files = {name: str(content) for name, content in samples.python_hello(1).items()}
    async with transport(vibed) as session:
        made = await call(session, "deploy_artifact", name=name, files=files, language="python")
        assert (made["artifact_id"], made["status"], made["target"]) == (name, "running", "python-313")
        assert vibed.client.visit(name).text == "version 1\n"

        files = {name: str(content) for name, content in samples.python_hello(2).items()}
        updated = await call(session, "update_artifact", artifact_id=name, files=files)
        assert (updated["status"], updated["version"]) == ("running", 2)
        assert vibed.client.visit(name).text == "version 2\n"

        assert (await call(session, "get_artifact_status", artifact_id=name))["status"] == "running"
        listed = (await call(session, "list_artifacts"))["artifacts"]
        assert name in [item["artifact_id"] for item in listed]
        versions = (await call(session, "list_versions", artifact_id=name))["versions"]
        assert [item["version"] for item in versions] == [2, 1]

        back = await call(session, "rollback_artifact", artifact_id=name, version=1)
        assert (back["status"], back["version"]) == ("running", 3)
        assert vibed.client.visit(name).text == "version 1\n"

        logs = await call(session, "get_artifact_logs", artifact_id=name)
        assert isinstance(logs["lines"], list)
        targets = (await call(session, "list_deployment_targets"))["targets"]
        assert "python-313" in [target["name"] for target in targets]

        assert (await call(session, "delete_artifact", artifact_id=name))["deleted"]
        assert name in await refused(session, "get_artifact_status", artifact_id=name)


@both
async def test_an_app_that_fails_tells_the_agent_what_to_change(vibed: Instance, apps: Apps, transport: Open) -> None:
    vibed.client.wait_for_template("python-313")
    name = apps.name()
    async with transport(vibed) as session:
        made = await call(
            session,
            "deploy_artifact",
            name=name,
            files=samples.python_after("import os", "print('hello log')", "os.environ['TEAM_TOKEN']"),
        )
        assert made["status"] == "failed"
        assert made["reason"]
        assert "TEAM_TOKEN" in made["message"]
        lines = (await call(session, "get_artifact_logs", artifact_id=name))["lines"]
        assert any(line.endswith(" hello log") for line in lines)


@both
async def test_refusals_name_their_code_and_the_cure(vibed: Instance, apps: Apps, transport: Open) -> None:
    async with transport(vibed) as session:
        bad_name = await refused(session, "deploy_artifact", name="Not A Name", files={"index.html": "x"})
        assert "InvalidName" in bad_name
        notebook = await refused(session, "deploy_artifact", name=apps.name(), files={"a.ipynb": "{}"})
        assert "NotAWebApp" in notebook
        missing = await refused(
            session,
            "deploy_artifact",
            name=apps.name(),
            files={**samples.python_after("import torch"), "requirements.txt": "torch @ git+ssh://nowhere/torch.git"},
        )
        assert "DependenciesMissing" in missing and "torch" in missing


async def test_stdio_deploys_a_folder_of_this_machine(vibed: Instance, apps: Apps, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("from a folder")
    (tmp_path / "secret.txt").write_text("not for the web")
    (tmp_path / ".vibedignore").write_text("secret.txt\n")
    name = apps.name()
    async with _stdio(vibed) as session:
        made = await call(session, "deploy_artifact", name=name, path=str(tmp_path))
    assert made["status"] == "running"
    assert vibed.client.visit(name).text == "from a folder"
    assert vibed.client.visit(name, "/secret.txt").status_code == 404


async def test_over_http_no_path_of_the_servers_machine_can_be_named(vibed: Instance) -> None:
    async with _http(vibed) as session:
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
    assert "path" not in tools["deploy_artifact"].input_schema["properties"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer vibed_wrong"}], ids=["no-key", "wrong-key"])
def test_http_needs_a_key(vibed: Instance, headers: dict[str, str]) -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    answer = vibed.client.http.post(
        "/mcp",
        content=json.dumps(request),
        headers={
            "Host": f"localhost:{vibed.port}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            **headers,
        },
    )
    assert answer.status_code == 401
