"""Links that belong to tools, not to an app: of assistants, editors, virtual environments and package managers. Those
that cannot be carried over are left out, where any other would refuse the source."""

from __future__ import annotations

import re

_TOOLS = frozenset(
    {
        ".agents", ".claude", ".cursor", ".codex", ".gemini", ".opencode", ".windsurf", ".github", ".vscode", ".idea",
        ".zed", ".fleet", ".vs", ".continue", ".kiro", ".junie", ".roo", ".augment", ".devcontainer", ".husky",
        ".venv", "venv", "virtualenv", ".virtualenv", ".tox", ".nox", ".direnv", ".devenv",
        ".pixi", ".conda", "__pypackages__",
    }
)  # fmt: skip
_MADE = re.compile(r"(?:^|/)(?:bin/(?:python|pypy)[\w.-]*|lib64|node_modules/\.bin/[^/]+)$")
"""Links that a virtual environment of any name has, and those of npm's."""


_PACKAGES = "node_modules"
"""Where a package manager keeps what it links to: its store, on the machine that the archive comes from."""


def of_a_tool(path: str, *, to_folder: bool = False) -> bool:
    """Whether a link at this path (of the archive) is a tool's. agent/unpack has the same list. `to_folder`: it leads
    to a folder of the archive, where a package may be that is an app's own."""
    folders = path.split("/")[:-1]
    return _MADE.search(path) is not None or not _TOOLS.isdisjoint(folders) or (not to_folder and _PACKAGES in folders)
