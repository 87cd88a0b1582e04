"""An agent that has the tools and nothing else: it deploys, breaks, reads, repairs, changes one file and rolls back.

    python agent.py URL KEY NAME

A program of its own, so that it runs with the official client of either era: 1.x, which opens a session, and 2.x, which
is stateless. Prints one JSON object: the client's version, and what each answer cost.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

APP = """\
from flask import Flask, render_template

app = Flask(__name__)


@app.get("/")
def page():
    return render_template("page.html", lunch="soup")


@app.get("/broken")
def broken():
    return {"lunch": None}["dinner"]
"""
PAGE = "<h1>Today: {{ lunch }}</h1>\n"
PAGE_PATH = "templates/page.html"
FILES = {"app.py": APP, PAGE_PATH: PAGE, "requirements.txt": "flask\n"}


class Agent:
    """Calls tools and counts."""

    def __init__(self, session: Any, name: str) -> None:
        self._session = session
        self._name = name
        self.costs: list[dict[str, Any]] = []

    async def call(self, tool: str, *, wrong: bool = False, **arguments: Any) -> dict[str, Any]:
        """The structured answer; `wrong`: of a call that has to be refused."""
        answer = await self._session.call_tool(tool, arguments)
        refused = answer.isError if hasattr(answer, "isError") else answer.is_error
        found = answer.structuredContent if hasattr(answer, "structuredContent") else answer.structured_content
        text = "".join(part.text for part in answer.content)
        self.costs.append({"tool": tool, "bytes": len(text.encode())})
        assert refused is wrong, f"{tool} {arguments}: {text}"
        assert isinstance(found, dict), f"{tool}: {text}"
        return found

    async def whole_round(self) -> None:
        name = self._name
        made = await self.call("deploy_artifact", name=name, files=FILES)
        made = await self.settled(made)
        assert made["status"] == "running", made
        seen = await self.call("request_artifact", artifact_id=made["url"])
        assert (seen["status"], seen["body"]) == (200, "<h1>Today: soup</h1>"), seen

        # it breaks it, and is told why; the version before goes on
        broken = await self.call(
            "update_artifact", artifact_id=name, changed_files={"app.py": 'import os\nos.environ["MENU"]\n' + APP}
        )
        broken = await self.settled(broken)
        assert (broken["status"], broken["version"], broken["serving_version"]) == ("failed", 2, 1), broken
        assert "MENU" in broken["message"], broken
        assert "--env" not in broken["message"], broken
        assert (await self.call("request_artifact", artifact_id=name))["status"] == 200
        log = await self.call("get_artifact_logs", artifact_id=name, grep="keyerror")
        assert any("KeyError" in line for line in log["lines"]), log
        events = await self.call("get_artifact_events", artifact_id=name)
        assert any(" v2 " in event for event in events["events"]), events

        # another day, another chat: it reads what is there, and repairs it
        assert {file["path"] for file in (await self.call("get_artifact_source", artifact_id=name))["files"]} == set(
            FILES
        )
        source = await self.call("get_artifact_source", artifact_id=name, paths=["app.py"])
        repaired = source["files"][0]["text"].replace('os.environ["MENU"]', 'MENU = os.environ.get("MENU", "soup")')
        fixed = await self.call("update_artifact", artifact_id=name, changed_files={"app.py": repaired})
        fixed = await self.settled(fixed)
        assert (fixed["status"], fixed["serving_version"]) == ("running", 3), fixed

        # a page that fails is told with its exception
        page = await self.call("request_artifact", artifact_id=name, path="/broken")
        assert page["status"] == 500 and "dinner" in page["error"], page

        # one file; the same again; a mistake; and back
        await self.settled(
            await self.call(
                "update_artifact", artifact_id=name, changed_files={"templates/page.html": "<p>{{ lunch }}</p>\n"}
            )
        )
        assert (await self.call("request_artifact", artifact_id=name))["body"] == "<p>soup</p>"
        same = await self.call("update_artifact", artifact_id=name, changed_files={"app.py": repaired})
        assert same["changed"] is False, same
        refused = await self.call("update_artifact", wrong=True, artifact_id=name, env={"MENU": "stew"})
        assert "env_vars" in refused["message"], refused
        missing = await self.call("get_artifact_status", wrong=True, artifact_id=name[:-1])
        assert name in missing["hint"], missing
        back = await self.settled(await self.call("rollback_artifact", artifact_id=name, version=1))
        assert (back["status"], back["version"]) == ("running", 5), back
        assert (await self.call("request_artifact", artifact_id=name))["body"] == "<h1>Today: soup</h1>"
        versions = (await self.call("list_versions", artifact_id=name))["versions"]
        assert [item["status"] for item in versions] == ["running", "replaced", "replaced", "failed", "replaced"], (
            versions
        )
        assert name in [item["artifact_id"] for item in (await self.call("list_artifacts"))["artifacts"]]
        await self.call("delete_artifact", artifact_id=name)

    async def settled(self, made: dict[str, Any]) -> dict[str, Any]:
        """What the guide says: wait while it is pending or deploying."""
        while made["status"] in ("pending", "deploying"):
            made = await self.call("get_artifact_status", artifact_id=self._name, wait_s=60)
        return made


@asynccontextmanager
async def session(url: str, key: str) -> AsyncIterator[Any]:
    headers = {"Authorization": f"Bearer {key}"}
    if version("mcp").startswith("1."):
        from mcp import ClientSession
        from mcp.client.streamable_http import streamablehttp_client

        async with (
            streamablehttp_client(url, headers=headers) as (read, write, _),
            ClientSession(read, write) as opened,
        ):
            await opened.initialize()
            yield opened
    else:
        import httpx2
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client

        async with (
            httpx2.AsyncClient(headers=headers, timeout=90) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            yield client


async def main(url: str, key: str, name: str) -> None:
    async with session(url, key) as opened:
        listed = (await opened.list_tools()).tools
        agent = Agent(opened, name)
        await agent.whole_round()
    schemas = [
        [tool.name, tool.description, getattr(tool, "inputSchema", None) or tool.input_schema] for tool in listed
    ]
    told = {"client": version("mcp"), "tools": len(json.dumps(schemas)), "costs": agent.costs}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
