"""Apps in halves: a folder that holds a server, beside folders of pages that it does not serve."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vibed.classify import server_rules, started
from vibed.classify.decision import Decision
from vibed.classify.errors import ClassifyError
from vibed.classify.project import Project

_SERVERS = (
    server_rules.procfile,
    server_rules.django,
    server_rules.python_server,
    server_rules.node_framework,
    server_rules.node_start,
    server_rules.node_entry,
    server_rules.go_server,
)
"""The rules by which a folder holds a server, in their order."""
_MOST = 3
"""More folders than this are a collection."""


@dataclass(frozen=True)
class Halves:
    """What a source is that has a server in one folder and pages in others."""

    folder: str
    """Of the server."""
    others: tuple[str, ...]
    """Of the pages."""
    apart: bool
    """Whether the server wants nothing of the others; else they belong together."""


def holds_server(p: Project) -> bool:
    """Whether a folder of several holds one."""
    return bool(_servers(p))


def of(p: Project) -> Halves | None:
    """The only folder that holds a server, and the others, which hold pages or a front end each; None where it is not
    so."""
    decided = _servers(p)
    if len(decided) != 1:
        return None
    ((folder, decision),) = decided.items()
    inside = p.folders
    others = tuple(other for other in inside if other != folder)
    if not all(inside[other].node.front_end() or inside[other].site.page("") for other in others):
        return None
    text = "\n".join(inside[folder].tree.text(path) for path in started.sources(inside[folder], decision))
    names = "|".join(re.escape(other.rpartition("/")[2]) for other in others)
    return Halves(folder, others, re.search(rf"""(?:\.\./|["'`/])(?:{names})["'`/]""", text) is None)


def _servers(p: Project) -> Mapping[str, Decision]:
    """How the servers in its folders are run; none where there is but one folder, or a collection."""
    if p.servers_below is None:
        inside = p.folders if 2 <= len(p.folders) <= _MOST else {}
        p.servers_below = {folder: found for folder, each in inside.items() if (found := _served(each)) is not None}
    return p.servers_below


def _served(p: Project) -> Decision | None:
    """How a folder's server is run; None where it holds none, or none that can be."""
    try:
        found = next((found for rule in _SERVERS if (found := rule(p)) is not None), None)
    except ClassifyError:
        return None
    return found if found is not None and found.lane == "general" else None
