"""What people wrote down about how they start an app, for when several of its files could be meant: the files that a
Dockerfile, a compose file, a script, a Makefile or a README starts, in this order."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from vibed.classify.tree import Tree

_OPTIONS = r"(?:[ ]+-{1,2}[\w.-]{1,40}(?:[= ][\w.:/-]{1,60}(?=[ ]))?){0,6}"
_FILE = re.compile(
    r"\b(?:python3?|py|uv[ ]run|streamlit[ ]run|chainlit[ ]run|panel[ ]serve|shiny[ ]run|marimo[ ](?:run|edit)"
    r"|solara[ ]run|gradio|mesop|flet[ ]run|fastapi[ ](?:run|dev)|node|nodemon|tsx|ts-node|pm2[ ]start)"
    rf"{_OPTIONS}[ ]+(?:\./)?([\w./-]{{1,120}}\.(?:py|[cm]?[jt]s))(?![\w/])"
)
_MODULE = re.compile(
    r"\b(?:uvicorn|gunicorn|hypercorn|granian|flask[ ]--app|python3?[ ]-m)"
    rf"{_OPTIONS}[ ]+([A-Za-z_][\w.]{{0,120}})(?::\w+)?"
)
_GO = re.compile(r"\bgo[ ](?:run|build|install)\b([^\n&|;]{0,200})")
_CD = re.compile(r"\bcd[ ]+(?:\./)?([\w./-]{1,80})")
_LISTED = re.compile(r"[\"'],[ ]*[\"']")
"""A command as a list, as Dockerfiles and compose files have it."""
_FILES = (
    r"Dockerfile", r"(?:docker-)?compose\.ya?ml", r"\.devcontainer/devcontainer\.json", r"[\w.-]+\.(?:sh|bat|cmd)",
    r"(?i:makefile|justfile)", r"(?i:readme(?:\.\w+)?)",
)  # fmt: skip


def favoured(tree: Tree, candidates: Sequence[str]) -> tuple[str, str] | None:
    """The one of several files (or Go folders) that one of these starts and the ones before it leave open, and where
    that stands."""
    left = list(candidates)
    for file, text in _texts(tree):
        started = set(_started(text))
        named = [path for path in left if path in started]
        if len(named) == 1:
            return named[0], file
        left = named or left
    return None


def _texts(tree: Tree) -> Iterator[tuple[str, str]]:
    paths = [*tree.root, *(path for path in tree.inside(".devcontainer/"))]
    for pattern in _FILES:
        for path in paths:
            if re.fullmatch(pattern, path):
                yield path, _LISTED.sub(" ", tree.text(path))


def _started(text: str) -> Iterator[str]:
    """The files, and folders of Go packages, that a text starts."""
    for line in text.splitlines():
        folder = moved[1] if (moved := _CD.search(line[:2000])) else ""
        for found in _FILE.findall(line[:2000]):
            yield posixpath.normpath(posixpath.join(folder, found))
            yield posixpath.normpath(found)
        for found in _MODULE.findall(line[:2000]):
            stem = found.replace(".", "/")
            for path in (stem, posixpath.join(folder, stem)):
                yield from (f"{path}.py", f"{path}/__main__.py", f"{path}/__init__.py")
        for rest in _GO.findall(line[:2000]):
            for word in rest.split():
                package = re.sub(r"/(?:main|\*)\.go$", "", word.strip("\"'`,[]()"))
                yield posixpath.normpath(posixpath.join(folder, package))
                yield posixpath.normpath(package)
