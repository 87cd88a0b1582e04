# ruff: noqa: E501 (tables of inputs)
"""Servers of the Model Context Protocol: on standard input they are told how to speak HTTP, and who does is a server."""

from __future__ import annotations

import json

import pytest
from classify_trees import table_of

from vibed.classify.classifier import classify
from vibed.classify.errors import NotAWebApp

TOOL = "\n@mcp.tool\ndef add(a: int, b: int) -> int:\n    return a + b\n"
END = "\nif __name__ == '__main__':\n    "
FAST = f"from fastmcp import FastMCP\nmcp = FastMCP('Adder')\n{TOOL}{END}"
SDK = f"from mcp.server.fastmcp import FastMCP\nserver = FastMCP('Adder')\n{END}"
LOW = (
    "from mcp.server import Server\nimport mcp.server.stdio, asyncio\napp = Server('x')\nasync def main():\n    async with mcp.server.stdio.stdio_server() as (r, w):\n        await app.run(r, w, app.create_initialization_options())\n"
    + END
    + "asyncio.run(main())\n"
)
NODE = 'import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js"\nimport { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js"\nconst server = new McpServer({ name: "x", version: "1" })\nawait server.connect(new StdioServerTransport())\n'
PACKAGE = {
    "name": "x",
    "type": "module",
    "bin": {"x": "build/index.js"},
    "scripts": {"build": "tsc", "start": "node build/index.js"},
    "dependencies": {"@modelcontextprotocol/sdk": "^1"},
}

ON_INPUT: list[tuple[dict[str, str | bytes], str]] = [
    ({"server.py": FAST + "mcp.run()\n", "requirements.txt": "fastmcp\n"}, 'mcp.run(transport="http", host="0.0.0.0"'),
    ({"server.py": FAST + "mcp.run(transport='stdio')\n"}, 'mcp.run(transport="http"'),
    ({"server.py": SDK + "server.run()\n"}, 'server.run(transport="streamable-http")'),
    ({"server.py": SDK.replace("mcp.server.fastmcp", "mcp.server").replace("FastMCP", "MCPServer") + "server.run()\n"}, 'server.run("streamable-http", host="0.0.0.0"'),
    ({"tools.py": FAST.partition("\nif")[0], "main.py": "from tools import mcp\n" + END + "mcp.run()\n"}, 'mcp.run(transport="http"'),
    ({"server.py": LOW}, "StreamableHTTPSessionManager"),
    ({"src/adder/server.py": SDK + "server.run()\n", "pyproject.toml": "[project]\nname = 'adder'\n"}, "streamable-http"),
    ({"package.json": json.dumps(PACKAGE), "src/index.ts": NODE, "tsconfig.json": "{}"}, "StreamableHTTPServerTransport"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "cure"), ON_INPUT)
def test_one_on_standard_input_is_told_how_to_speak_http(files: dict[str, str | bytes], cure: str) -> None:
    with pytest.raises(NotAWebApp, match="is an MCP server that speaks on standard input") as caught:
        classify(table_of(files), installs=("python", "node", "build"))
    assert cure in str(caught.value.hint)


@pytest.mark.parametrize(
    "end",
    [
        'mcp.run(transport="http", host="0.0.0.0", port=8080)',
        "mcp.run('streamable-http')",
        "mcp.run(transport=os.environ['TRANSPORT'])",
        "asyncio.run(mcp.run_http_async(port=8080))",
    ],
)
def test_one_that_speaks_http_is_a_server(end: str) -> None:
    found = classify(table_of({"server.py": f"{FAST}{end}\n"}))
    assert found.argv == ("python3", "server.py")


def test_one_whose_application_is_made_is_served_as_such() -> None:
    found = classify(table_of({"server.py": FAST.partition("\nif")[0] + "\napp = mcp.http_app()\n"}))
    assert found.argv[:4] == ("python3", "-m", "uvicorn", "server:app")


def test_an_express_app_that_also_brings_one_is_started() -> None:
    express = "import express from 'express'\nexpress().listen(3000)\n"
    package = json.dumps({"type": "module", "scripts": {"start": "node server.js"}, "dependencies": {"express": "5", "@modelcontextprotocol/sdk": "^1"}})  # fmt: skip
    found = classify(table_of({"package.json": package, "server.js": express, "mcp/index.js": NODE}))
    assert found.argv == ("node", "server.js")
