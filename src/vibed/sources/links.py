"""Links that belong to tools, not to an app: of assistants, editors, virtual environments and package managers. Those
that cannot be carried over are left out, where any other would refuse the source."""

from __future__ import annotations

import re

_TOOLS = frozenset(
    {
        ".agents", ".claude", ".cursor", ".codex", ".gemini", ".opencode", ".windsurf", ".github", ".vscode", ".idea",
        ".venv", "venv", "virtualenv", ".virtualenv", ".tox", ".nox", ".direnv", ".devenv",
    }
)  # fmt: skip
_MADE = re.compile(r"(?:^|/)(?:bin/(?:python|pypy)[\w.-]*|lib64|node_modules/\.bin/[^/]+)$")
"""Links that a virtual environment of any name has, and those of npm's."""


def of_a_tool(path: str) -> bool:
    """Whether a link at this path (of the archive) is a tool's. agent/unpack has the same list."""
    return _MADE.search(path) is not None or not _TOOLS.isdisjoint(path.split("/")[:-1])
