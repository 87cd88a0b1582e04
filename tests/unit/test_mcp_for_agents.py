"""What an agent that has nothing but the tools can do: see what it built, change a part of it, correct its mistakes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api_harness import ADMIN_KEY, Running
from mcp import Client
from mcp_harness import TARGET, call, failed, over_http, over_stdio, served

from vibed.apps.app import Crash, Phase
from vibed.mcp.lines import ROOM
from vibed.mcp.words import for_tools
from vibed.supervision.failing import FAILED

FLASK = {
    "app.py": "from flask import Flask, render_template\napp = Flask(__name__)\n",
    "templates/index.html": "<h1>hello</h1>",
    "static/style.css": "h1 { color: red }",
    "requirements.txt": "flask\n",
}
BOTH = pytest.mark.parametrize("over", [over_http, over_stdio], ids=["http", "stdio"])


@asynccontextmanager
async def an_agent(tmp_path: Path, over: Any = over_http, **settings: Any) -> AsyncIterator[tuple[Running, Client]]:
    async with served(tmp_path, **settings) as (api, url), over(url) as client:
        yield api, client


@pytest.mark.parametrize(
    ("tool", "given", "meant"),
    [
        ("deploy_artifact", {"name": "a", "files": {}, "env": {"A": "1"}}, "env_vars"),
        ("deploy_artifact", {"name": "a", "files": {}, "ports": 80}, "port"),
        ("update_artifact", {"artifact_id": "todo", "name": "other"}, "artifact_id"),
        ("update_artifact", {"artifact_id": "todo", "changed_file": {}}, "changed_files"),
        ("get_artifact_logs", {"artifact_id": "todo", "tail": 5}, "lines"),
        ("get_artifact_status", {"id": "todo"}, "artifact_id"),
        ("rollback_artifact", {"artifact_id": "todo", "versions": 1}, "version"),
    ],
)
async def test_an_argument_that_a_tool_does_not_have_is_refused_with_what_was_meant(
    tmp_path: Path, tool: str, given: dict[str, Any], meant: str
) -> None:
    async with an_agent(tmp_path) as (api, client):
        body = await failed(client, tool, **given)
        assert body["code"] == "InvalidRequest"
        assert f"did you mean {meant!r}?" in body["message"]
        assert api.sources() == []


@pytest.mark.parametrize(
    ("tool", "given", "said"),
    [
        ("deploy_artifact", {"name": "a"}, "deploy_artifact needs files"),
        ("deploy_artifact", {"name": "a", "files": {"a": 5}}, "files.a"),
        ("get_artifact_logs", {"artifact_id": "todo", "lines": 0}, "lines: "),
        ("deploy_artifact", {"name": "a", "files": {"a": "b"}, "secret_refs": ["X"]}, "secrets cannot be used yet"),
        ("deploy_artifact", {"name": "a", "files": {"a": "b"}, "allowed_hosts": ["x"]}, "egress rules cannot be used"),
        ("deploy_artifacts", {"name": "a"}, "did you mean 'deploy_artifact'?"),
        ("request_artifact", {"artifact_id": "todo", "path": "no-slash"}, "path must begin with /"),
        ("request_artifact", {"artifact_id": "todo", "headers": {"Host": "x"}}, "headers cannot have 'Host'"),
        ("update_artifact", {"artifact_id": "todo", "remove_files": ["no.html"]}, "there is no file 'no.html'"),
        ("update_artifact", {"artifact_id": "todo", "files": {"a": "b"}, "changed_files": {"a": "b"}}, "give"),
        ("get_artifact_source", {"artifact_id": "todo", "paths": ["indx.html"]}, "there is no file 'indx.html'"),
    ],
)
async def test_every_refusal_has_a_code_a_message_and_a_hint(
    tmp_path: Path, tool: str, given: dict[str, Any], said: str
) -> None:
    async with an_agent(tmp_path) as (_, client):
        await call(client, "deploy_artifact", name="todo", files={"index.html": "hi"})
        body = await failed(client, tool, **given)
        assert body["code"] and body["hint"]
        assert said in f"{body['message']} {body['hint']}"


async def test_a_null_for_what_is_not_built_yet_says_nothing(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as (_, client):
        await call(client, "deploy_artifact", name="todo", files={"index.html": "hi"}, secret_refs=None)


async def test_files_that_come_as_json_text_are_understood(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as (_, client):
        made = await call(client, "deploy_artifact", name="todo", files=json.dumps({"index.html": "hi"}))
        assert made["status"] == "running"


@BOTH
async def test_some_files_of_an_app_can_be_changed_and_taken_away(tmp_path: Path, over: Any) -> None:
    async with an_agent(tmp_path, over) as (_, client):
        await call(client, "deploy_artifact", name="todo", files=FLASK)
        made = await call(
            client, "update_artifact", artifact_id="todo",
            changed_files={"templates/index.html": "<h1>two</h1>", "templates/new.html": "new"},
            remove_files=["static"],
        )  # fmt: skip
        assert (made["version"], made["target"]) == (2, "python-313")
        source = await call(client, "get_artifact_source", artifact_id="todo", paths=["templates", "app.py"])
        assert {file["path"]: file["text"] for file in source["files"]} == {
            "app.py": FLASK["app.py"], "templates/index.html": "<h1>two</h1>", "templates/new.html": "new",
        }  # fmt: skip
        listed = await call(client, "get_artifact_source", artifact_id="todo")
        assert [file["path"] for file in listed["files"]] == [
            "app.py", "requirements.txt", "templates/index.html", "templates/new.html",
        ]  # fmt: skip
        assert not any("text" in file for file in listed["files"])
        first = await call(client, "get_artifact_source", artifact_id="todo", version=1, paths=["."])
        assert {file["path"]: file["text"] for file in first["files"]} == FLASK


async def test_an_update_that_makes_another_kind_of_app_or_leaves_files_out_says_so(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as (_, client):
        await call(client, "deploy_artifact", name="todo", files=FLASK)
        made = await call(client, "update_artifact", artifact_id="todo", files={"index.html": "two"})
        assert any("a static site" in note and "was a Python app" in note for note in made["notes"])
        assert any("app.py" in note and "changed_files" in note for note in made["notes"])
        again = await call(client, "update_artifact", artifact_id="todo", changed_files={"index.html": "three"})
        assert "notes" not in again


@BOTH
async def test_the_same_again_changes_nothing(tmp_path: Path, over: Any) -> None:
    async with an_agent(tmp_path, over) as (_, client):
        await call(client, "deploy_artifact", name="todo", files=FLASK, env_vars={"A": "1"})
        for tool, given in (
            ("deploy_artifact", {"name": "todo", "files": dict(reversed(FLASK.items()))}),
            ("deploy_artifact", {"name": "todo", "files": FLASK, "env_vars": {"A": "1"}}),
            ("update_artifact", {"artifact_id": "todo", "files": FLASK}),
            ("update_artifact", {"artifact_id": "todo", "changed_files": {"app.py": FLASK["app.py"]}}),
            ("update_artifact", {"artifact_id": "todo", "env_vars": {"A": "1", "GONE": None}}),
        ):
            same = await call(client, tool, **given)
            assert (same["version"], same["changed"], same["created"]) == (1, False, False)
            assert same["message"].startswith("nothing changed")
        assert (await call(client, "update_artifact", artifact_id="todo", env_vars={"A": "2"}))["version"] == 2
        assert (await call(client, "list_versions", artifact_id="todo"))["total"] == 2


async def test_what_failed_can_be_tried_again_with_the_same_files(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as (api, client):
        api.controller.phase, api.controller.reason = Phase.FAILED, "SandboxLost"
        assert (await call(client, "deploy_artifact", name="todo", files=FLASK))["status"] == "failed"
        api.controller.phase = Phase.READY
        again = await call(client, "deploy_artifact", name="todo", files=FLASK)
        assert (again["version"], again["status"]) == (2, "running")


async def test_a_name_that_was_taken_by_the_caller_is_told(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as (_, client):
        await call(client, "deploy_artifact", name="todo", files=FLASK)
        made = await call(client, "deploy_artifact", name="todo", files={**FLASK, "app.py": FLASK["app.py"] + "#"})
        assert (made["created"], made["version"]) == (False, 2)
        assert any("you had an app of this name" in note for note in made["notes"])


def log_of(api: Running, *texts: str, run: int = 1, stream: str = "stdout") -> None:
    folder = api.layout.run_log("todo", run)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.jsonl").open("a") as file:
        seq = sum(1 for _ in (folder / "log.jsonl").open())
        for number, text in enumerate(texts, seq + 1):
            file.write(json.dumps({"seq": number, "ts": number, "stream": stream, "text": text}) + "\n")


async def test_a_log_is_bounded_plain_and_can_be_searched(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as (api, client):
        await call(client, "deploy_artifact", name="todo", files=FLASK)
        log_of(api, *(f"\x1b[32mline {n}\x1b[0m {'x' * 400}" for n in range(500)), "\x1b[1;31mKeyError: 'DB'\x1b[0m\r")
        log_of(api, "y" * 9_000)
        answer = await client.call_tool("get_artifact_logs", {"artifact_id": "todo", "lines": 1000})
        text = "".join(part.text for part in answer.content if part.type == "text")
        assert len(text) < ROOM + 500
        assert "older lines had no room" in text
        assert "\x1b" not in text and "\r" not in text
        assert text.count("\n") < 60, "one line each, and nothing around it"
        assert "(+7," in text, "a long line says how much of it is not shown"
        found = await call(client, "get_artifact_logs", artifact_id="todo", grep="keyerror")
        assert found["lines"] == ["01-01 00:08:21 r1 KeyError: 'DB'"]


async def test_nothing_of_a_log_is_skipped_by_going_on_from_next(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as (api, client):
        await call(client, "deploy_artifact", name="todo", files=FLASK)
        log_of(api, "first")
        page = await call(client, "get_artifact_logs", artifact_id="todo")
        log_of(api, *(f"{n} {'z' * 1500}" for n in range(60)))
        seen = []
        for _ in range(20):
            page = await call(client, "get_artifact_logs", artifact_id="todo", after=page["next"], lines=1000)
            assert sum(map(len, page["lines"])) <= ROOM
            if not page["lines"]:
                break
            seen += [line.split()[3] for line in page["lines"]]
        assert seen == [str(n) for n in range(60)]


async def test_a_list_of_thirty_apps_is_short(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as (api, client):
        for number in range(30):
            assert (await api.deploy(f"app-{number}")).status_code == 200
        answer = await client.call_tool("list_artifacts", {})
        assert sum(len(part.text) for part in answer.content if part.type == "text") < 30 * 150


async def test_waiting_for_a_status_comes_back_when_the_version_has_failed(tmp_path: Path) -> None:
    async with an_agent(tmp_path, deploy_wait_s=0.1) as (api, client):
        api.controller.delay_s = 60
        made = await call(client, "deploy_artifact", name="todo", files=FLASK)
        assert made["status"] in ("pending", "deploying")

        async def fail() -> None:
            await asyncio.sleep(1.2)
            api.controller.delay_s, api.controller.phase, api.controller.reason = 0, Phase.FAILED, "StartTimeout"
            await api.link.settle("todo", 1, timeout_s=1)

        later = asyncio.create_task(fail())
        heard: list[str | None] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            heard.append(message)

        answer = await client.call_tool(
            "get_artifact_status", {"artifact_id": "todo", "wait_s": 30}, progress_callback=progress
        )
        await later
        assert answer.structured_content is not None
        assert (answer.structured_content["status"], answer.structured_content["reason"]) == ("failed", "StartTimeout")
        assert heard, "whoever asked for progress hears of it"


async def test_crashes_and_events_can_be_seen(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as (api, client):
        await call(client, "deploy_artifact", name="todo", files=FLASK)
        app = await api.store.get("todo")
        crash = Crash(0.0, 1, "it was killed because it used more than 512 MiB", oom=True)
        await api.store.record("todo", replace(app.status, restarts=3, last_crash=crash))
        seen = await call(client, "get_artifact_status", artifact_id="todo")
        assert seen["restarts"] == 3
        assert "version 1: it was killed because it used more than 512 MiB" in seen["last_crash"]
        told = await call(client, "get_artifact_events", artifact_id="todo")
        assert re.fullmatch(r"\d\d-\d\d \d\d:\d\d:\d\d v1 Accepted: version 1 accepted.*", told["events"][0])


@BOTH
async def test_an_app_whose_first_request_failed_says_so_in_its_notes(tmp_path: Path, over: Any) -> None:
    async with an_agent(tmp_path, over) as (api, client):
        await call(client, "deploy_artifact", name="todo", files=FLASK)
        assert "notes" not in await call(client, "get_artifact_status", artifact_id="todo")
        folder = api.layout.run_log("todo", await api.store.next_run("todo"))
        folder.mkdir(parents=True)
        line = {"seq": 1, "ts": 1.0, "stream": "system", "text": f"{FAILED}GET / was answered 500"}
        (folder / "log.jsonl").write_text(json.dumps(line) + "\n")
        seen = await call(client, "get_artifact_status", artifact_id="todo")
        assert seen["status"] == "running"
        assert "GET / was answered 500 before any request succeeded" in seen["message"]
        assert "request_artifact" in seen["notes"][0]


@pytest.mark.parametrize("tool", ["get_artifact_status", "get_artifact_logs", "list_versions", "get_artifact_source"])
async def test_an_app_is_known_by_its_url_too(tmp_path: Path, tool: str) -> None:
    async with an_agent(tmp_path) as (_, client):
        made = await call(client, "deploy_artifact", name="todo", files=FLASK)
        for url in (made["url"], f"{made['url']}/some/page?x=1", "https://todo.apps.example.com"):
            assert (await call(client, tool, artifact_id=url))["artifact_id"] == "todo"


async def test_an_app_that_is_not_there_comes_with_the_nearest_of_the_callers_own(tmp_path: Path) -> None:
    async with served(tmp_path) as (api, url):
        await api.deploy("lunch-picker")
        bob = (await api.key("bob"))["Authorization"].removeprefix("Bearer ")
        async with over_http(url) as client:
            body = await failed(client, "get_artifact_status", artifact_id="lunchpicker")
            assert body["hint"] == "did you mean lunch-picker?"
        async with over_http(url, bob) as client:
            body = await failed(client, "get_artifact_status", artifact_id="lunchpicker")
            assert "lunch-picker" not in json.dumps(body)


async def test_hints_speak_of_tools_and_not_of_commands(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as (api, client):
        api.controller.phase, api.controller.reason = Phase.FAILED, "StartFailed"
        api.controller.message = "set API_TOKEN; deploy again with it: `--env API_TOKEN=…`, or `env` in the metadata"
        made = await call(client, "deploy_artifact", name="todo", files=FLASK)
        assert made["message"] == 'set API_TOKEN; call update_artifact with env_vars {"API_TOKEN": "…"}'
        body = await failed(client, "deploy_artifact", name="a", files={"/app.py": "x"})
        assert "tar" not in body["hint"]


COMMAND_LINE = re.compile(r"`vibed |vibed (?:deploy|logs|status|up|doctor|apps|rollback)\b|(?<![\w-])--[a-z]|\btar -")


def test_whatever_vibed_hints_at_has_words_for_tools() -> None:
    """Every hint and message in the rooms that an agent hears of."""
    import ast

    left = []
    source = Path(__file__).parents[2] / "src/vibed"
    for room in ("classify", "sources", "api", "apps", "controller", "sandboxes"):
        for path in sorted((source / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                told = [word.value for word in node.keywords if word.arg in ("hint", "message")]
                name = ast.unparse(node.func).rpartition(".")[2]
                raised = name[:1].isupper() or name.startswith("_failed")
                for value in [*told, *(node.args if raised else [])]:
                    text = _text(value)
                    if COMMAND_LINE.search(text) and COMMAND_LINE.search(for_tools(text)):
                        left.append(f"{path.relative_to(source)}:{node.lineno}: {for_tools(text)}")
    assert left == []


def _text(value: Any) -> str:
    import ast

    if isinstance(value, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "WORD" for part in value.values)
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


async def test_what_is_refused_before_a_call_is_read_is_a_json_rpc_error(tmp_path: Path) -> None:
    async with served(tmp_path, max_source_mb=50) as (_, url), httpx2.AsyncClient(timeout=30) as http:
        ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        key = {"Authorization": f"Bearer {ADMIN_KEY}"}
        accept = {"Accept": "application/json, text/event-stream"}
        wrong = await http.post(f"{url}/mcp", json=ask, headers={**accept, "Authorization": "Bearer wrong"})
        large = await http.post(f"{url}/mcp", content=bytes(33 << 20), headers={**accept, **key})

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(33):
                yield bytes(1 << 20)

        unsaid = await http.post(f"{url}/mcp", content=pieces(), headers={**accept, **key})
        foreign = await http.post(f"{url}/mcp", json=ask, headers={**accept, **key, "Origin": "http://evil.example"})
        refused = ((wrong, 401, "Unauthorized"), (foreign, 403, "CrossOrigin"))
        too_large = ((large, 413, "BodyTooLarge"), (unsaid, 413, "BodyTooLarge"))
        for answer, status, code in (*refused, *too_large):
            assert answer.status_code == status
            error = answer.json()["error"]
            assert error["data"]["code"] == code
            assert error["message"] and error["data"]["hint"]
            assert "vibed " not in error["message"]


async def test_a_client_is_told_why_it_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, url):
        with pytest.raises(BaseException) as caught:
            async with over_http(url, "wrong") as client:
                await client.list_tools()
        assert "key" in _whole(caught.value)


def _whole(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return " ".join(map(_whole, error.exceptions))
    return str(error)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "HEAD"])
async def test_other_methods_than_post_are_answered_at_once(tmp_path: Path, method: str) -> None:
    async with served(tmp_path) as (_, url), httpx2.AsyncClient(timeout=30) as http:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Accept": "text/event-stream"}
        answer = await http.request(method, f"{url}/mcp", headers=headers)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_a_client_that_takes_no_stream_gets_json(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, url), httpx2.AsyncClient(timeout=30) as http:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Accept": "application/json"}
        answer = await http.post(
            f"{url}/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, headers=headers
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.json()["result"]["tools"]


async def test_what_the_tools_cost_before_the_first_call_is_bounded(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as (api, client):
        api.controller.templates = [TARGET]
        tools = await client.list_tools()
        seen = sum(len(json.dumps([tool.description, tool.input_schema])) for tool in tools.tools)
        assert seen < 16_000, seen
