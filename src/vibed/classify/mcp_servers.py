"""Servers of the Model Context Protocol that speak on standard input, where nobody is on a host: whether a project is
one, and what has it speak HTTP instead."""

from __future__ import annotations

import re

from vibed.classify.node_app import LISTENS, NodeApp
from vibed.classify.python_source import Sources
from vibed.classify.tree import Tree

MODULES = frozenset({"fastmcp", "mcp.server"})
"""What a Python file imports that is one, as `vibed.classify.python_frameworks` names it."""
_PACKAGES = frozenset({"@modelcontextprotocol/sdk", "@modelcontextprotocol/server", "fastmcp", "mcp-framework"})
_HTTP = re.compile(
    r"""\b(?:transport|transportType)\s{0,9}[=:]\s{0,9}["'](?:http|streamable[-_]?http|httpStream|sse)\b"""
    r"""|\.run(?:_async)?\(\s{0,9}["'](?:http|streamable-http|sse)["']"""
    r"|\brun_(?:streamable_)?http_async\(|\brun_sse_async\(|\b(?:streamable_)?http_app\(|\bsse_app\("
    r"|StreamableHTTPSessionManager|\bSseServerTransport\b|HTTPServerTransport|\bSSEServerTransport\b"
)
_STDIO = re.compile(
    r"""\bstdio_server\(|\brun_stdio_async\(|\.run(?:_async)?\(\s{0,9}\)|\btransport(?:Type)?\s{0,9}[=:]\s{0,9}["']stdio\b"""
    r"|\bStdioServerTransport\s{0,9}\("
)
_FAST = re.compile(r"^[ \t]{0,9}(?:from|import)[ \t]{1,9}fastmcp\b", re.MULTILINE)
_OBJECT = re.compile(r"\b(\w{1,60})\s{0,9}=\s{0,9}(?:FastMCP|MCPServer)\(")
_TEST = re.compile(r"(?:^|/)(?:tests?|__tests__|node_modules|examples?|dist|build)/|(?:^|/)test_|\.(?:test|spec)\.")
_MOST = 60


def speaks_http(text: str) -> bool:
    """Whether a file of Python that makes such a server has it answer HTTP, as far as can be told: one that leaves the
    way to a variable is believed."""
    return _HTTP.search(text) is not None or _STDIO.search(text) is None


def of_python(tree: Tree, sources: Sources) -> tuple[str, str] | None:
    """A file that is such a server on standard input, and what has it speak HTTP."""
    for path in [path for path in tree.known(".py") if path.count("/") <= 3 and not _TEST.search(path)][:_MOST]:
        found = sources.own_frameworks(path) or sources.frameworks(path)
        if found and found <= MODULES and not speaks_http(tree.text(path)):
            return path, _cure("\n".join(tree.text(one.path) for one in sources.reached(path)))
    return None


def of_node(node: NodeApp) -> tuple[str, str] | None:
    """As `of_python`, of a project of Node in which nothing listens."""
    if not _PACKAGES & node.all_dependencies.keys():
        return None
    known = [path for path in node.tree.known(".ts", ".mts", ".js", ".mjs", ".cjs") if not _TEST.search(path)][:_MOST]
    texts = {path: node.tree.text(path) for path in known}
    if any(LISTENS.search(text) or _HTTP.search(text) for text in texts.values()):
        return None
    path = next((path for path, text in texts.items() if _STDIO.search(text)), "")
    cure = (
        "have it speak HTTP: connect the server to StreamableHTTPServerTransport in the place of StdioServerTransport,"
        " behind Express or node:http that listens on process.env.PORT; its clients are then given the app’s address"
    )
    return (path, cure) if path else None


def _cure(text: str) -> str:
    app = found[1] if (found := _OBJECT.search(text)) else "mcp"
    if found is None:
        way = "serve it by StreamableHTTPSessionManager in a Starlette app, or write it with FastMCP"
    elif _FAST.search(text):
        way = f'`{app}.run(transport="http", host="0.0.0.0", port=8080)`'
    elif "MCPServer(" in text:
        way = f'`{app}.run("streamable-http", host="0.0.0.0", port=8080)`'
    else:
        way = f'`{app} = FastMCP(…, host="0.0.0.0", port=8080)` and `{app}.run(transport="streamable-http")`'
    return f"have it speak HTTP: {way}; its clients are then given the app’s address with /mcp"
