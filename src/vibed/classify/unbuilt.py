"""Whether a page is input of a build, by what its modules import: a browser finds no package by its bare name."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from vibed.classify.node_app import NodeApp
from vibed.sources.errors import quoted

_SCRIPT = re.compile(r"<script\b([^<>]{0,600})>([^<]{0,20000})", re.IGNORECASE)
_MODULE = re.compile(r"\btype\s{0,5}=\s{0,5}[\"']?module\b", re.IGNORECASE)
_MAP = re.compile(r"\btype\s{0,5}=\s{0,5}[\"']?importmap\b", re.IGNORECASE)
_SRC = re.compile(r"\bsrc\s{0,5}=\s{0,5}[\"']?([^\"'\s>]{1,300})", re.IGNORECASE)
_KEY = re.compile(r'"([^"\n]{1,200})"\s{0,9}:\s{0,9}"')
_IMPORT = re.compile(
    r"""^[ \t]{0,80}(?:import|export)\b(?:[^;'"()]{0,600}?\bfrom)?[ \t]{0,9}['"]([^'"\n]{1,200})['"]""", re.MULTILINE
)
_FILLED_IN = re.compile(r"%(?:PUBLIC_URL|VITE_\w{1,60}|REACT_APP_\w{1,60})%|\bimport\.meta\.env\b")
_FOUND = ("./", "../", "/", "http:", "https:", "data:", "blob:")
_NO_MODULE = (
    ".css",
    ".scss",
    ".less",
    ".svg",
    ".png",
    ".jpg",
    ".gif",
    ".webp",
    ".vue",
    ".svelte",
    ".jsx",
    ".tsx",
    ".ts",
)


def reason(node: NodeApp, page: str) -> str | None:
    """Why a browser cannot show the page as it is, in words; None where it can."""
    text = node.tree.text(page)
    filled = _FILLED_IN.search(text)
    if filled:
        return f"{quoted(page)} holds {quoted(filled[0])}, which a build fills in"
    scripts = _SCRIPT.findall(text)
    named = {key for attributes, body in scripts if _MAP.search(attributes) for key in _KEY.findall(body)}
    for path, source in _modules(node, page, scripts):
        for name in _IMPORT.findall(source):
            if not name.startswith(_FOUND) and name not in named and not _prefixed(name, named):
                return f"{quoted(path)} imports {quoted(name)} by its bare name, which a browser does not find"
            if name.partition("?")[0].endswith(_NO_MODULE) and not name.startswith(("http:", "https:")):
                return f"{quoted(path)} imports {quoted(name)}, which is no JavaScript module"
        if "import.meta.env" in source:
            return f"{quoted(path)} reads {quoted('import.meta.env')}, which a build fills in"
    return None


def _modules(node: NodeApp, page: str, scripts: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The page's own modules with their texts."""
    folder = posixpath.dirname(page)
    for attributes, body in scripts:
        if not _MODULE.search(attributes):
            continue
        source = _SRC.search(attributes)
        if source is None:
            yield page, body
            continue
        name = source[1].partition("?")[0]
        if re.match(r"[a-z]+:|//", name, re.IGNORECASE):
            continue
        path = posixpath.normpath(posixpath.join(folder, name.lstrip("/")))
        for file in node.reached(path) if path in node.tree.paths else ():
            yield file, node.tree.text(file)


def _prefixed(name: str, named: set[str]) -> bool:
    return any(key.endswith("/") and name.startswith(key) for key in named)
