"""The MCP server: it has tools and nothing else, and what it refuses an agent can act on."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
)
from mcp_types import Tool as Described

from vibed import __version__, records
from vibed.apps.errors import VibedError
from vibed.mcp.arguments import parse
from vibed.mcp.backend import Backend
from vibed.mcp.results import Failure, Result
from vibed.mcp.tool import Call, Tool
from vibed.mcp.words import for_tools

Context = ServerRequestContext[Any, Any]
BackendOf = Callable[[Context], Backend]
"""The backend for the caller of a request."""

log = records.logger("vibed.mcp")


def create_server(backend_of: BackendOf, tools: Sequence[Tool], instructions: str) -> Server[Any]:
    """A server with these tools; every call acts for the caller of its request."""
    by_name = {tool.name: tool for tool in tools}
    listed = [described(tool) for tool in tools]

    async def list_tools(ctx: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=listed)

    async def call_tool(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
        steps = 0

        async def progress(message: str) -> None:
            nonlocal steps
            steps += 1
            await ctx.session.report_progress(steps, None, for_tools(message))

        try:
            tool = by_name.get(params.name)
            if tool is None:
                raise _no_tool(params.name, list(by_name))
            arguments = parse(tool.name, tool.arguments, params.arguments or {})
            return _answer(await tool.run(Call(backend_of(ctx), progress), arguments))
        except VibedError as error:
            return _refusal(error)
        except Exception:
            log.exception("tool_failed", tool=params.name[:100])
            return _refusal(
                VibedError("something went wrong inside vibeD", code="Internal", hint="try again", retryable=True)
            )

    return Server(
        "vibed", title="vibeD", version=__version__, instructions=instructions,
        on_list_tools=list_tools, on_call_tool=call_tool,
    )  # fmt: skip


def failure(error: VibedError) -> dict[str, Any]:
    """A refusal as an agent gets it."""
    extra = {name: for_tools(value) if isinstance(value, str) else value for name, value in error.extra.items()}
    return Failure(
        code=error.error_code,
        message=for_tools(error.message),
        hint=for_tools(error.hint or ""),
        retryable=error.may_retry,
        details=extra,
    ).model_dump(mode="json")


def described(tool: Tool) -> Described:
    """As an agent sees it before it calls."""
    return Described(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=_plain(tool.arguments.model_json_schema()),
        output_schema=_plain(tool.result.model_json_schema()),
        annotations=tool.annotations,
    )


_BY_NAME = ("properties", "$defs")


def _plain(schema: Any) -> Any:
    """Without the titles that pydantic makes of names: every agent pays for them on every turn."""
    if isinstance(schema, dict):
        kept = {name: inner for name, inner in schema.items() if not (name == "title" and isinstance(inner, str))}
        return {
            name: {key: _plain(value) for key, value in inner.items()} if name in _BY_NAME else _plain(inner)
            for name, inner in kept.items()
        }
    return [_plain(item) for item in schema] if isinstance(schema, list) else schema


def _answer(result: Any) -> CallToolResult:
    assert isinstance(result, Result)
    structured = result.structured()
    return CallToolResult(
        content=[TextContent(type="text", text=result.as_text(structured))], structured_content=structured
    )


def _refusal(error: VibedError) -> CallToolResult:
    structured = failure(error)
    return CallToolResult(
        content=[TextContent(type="text", text=json.dumps(structured, ensure_ascii=False))],
        structured_content=structured,
        is_error=True,
    )


def _no_tool(name: str, known: list[str]) -> VibedError:
    near = difflib.get_close_matches(name, known, 1)
    return VibedError(
        f"there is no tool {name[:100]!r}{f'; did you mean {near[0]!r}?' if near else ''}",
        hint=f"tools: {', '.join(known)}",
        code="NoSuchTool",
        status=404,
    )
