"""Calls of npm, yarn, pnpm and bun that run a script or a program of a project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NAMES = frozenset({"npm", "yarn", "pnpm", "bun"})

_FOLDERS = frozenset({"--prefix", "-C", "--cwd", "--dir"})
_WORKSPACES = frozenset({"-w", "--workspace", "--filter", "-F"})
_VERBS = frozenset({"run", "run-script", "rum", "urn"})
_PROGRAMS = frozenset({"exec", "x", "dlx"})
_SCRIPTS = frozenset({"start", "test", "stop", "restart"})
_OTHERS = frozenset(
    {"install", "i", "ci", "add", "update", "up", "rebuild", "prune", "audit", "init", "create", "cache", "config"}
)


@dataclass(frozen=True)
class Call:
    """What a call asks for: a script, or words to run."""

    script: str = ""
    words: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    """What the script gets beside its own."""
    folder: str = ""
    workspace: str = ""


def read(tool: str, words: Sequence[str]) -> Call | None:
    """What `tool` is asked for; None for an installation and the like."""
    folder = workspace = ""
    left: list[str] = []
    at = 0
    while at < len(words) and words[at] != "--":
        name, equals, value = words[at].partition("=")
        at += 1
        # `-w` of pnpm is the root of its workspaces, of npm the name of one.
        if name in _FOLDERS or (name in _WORKSPACES and (tool, name) != ("pnpm", "-w")):
            if not equals:
                value = words[at] if at < len(words) else ""
                at += 1
            folder, workspace = (value, workspace) if name in _FOLDERS else (folder, value)
        elif not name.startswith("-"):
            left.append(words[at - 1])
            if left[0] in _PROGRAMS:
                at += words[at : at + 1] == ["--"]
                return Call(words=tuple(words[at:]), folder=folder, workspace=workspace)
    arguments = tuple(words[at + 1 :])
    if tool == "yarn" and len(left) > 2 and left[0] == "workspace":
        workspace, left = left[1], left[2:]
    if left and left[0] in _VERBS:
        left = left[1:]
    elif not left or left[0] in _OTHERS or (tool == "npm" and left[0] not in _SCRIPTS):
        return None
    if not left or (tool == "bun" and "." in left[0]):
        return None
    return Call(left[0], (), (*left[1:], *arguments), folder, workspace)
