"""Go and Node as the machine has them already."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from vibed.runtimes.tool import Tool

GO_MIN = (1, 26, 3)
"""What runsc's go.mod asks for; the agent is content with 1.24."""
NODE_MIN = (20, 0, 0)


def go_of_host() -> Tool | None:
    """The machine's own Go, where it is new enough."""
    # sudo's PATH has neither of the places where people put Go
    path = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    return _host_tool("go", path, ["version"], r"go version go(\d+)\.(\d+)(?:\.(\d+))?", GO_MIN)


def node_of_host() -> Tool | None:
    """The machine's own Node, where it is new enough and npm is beside it."""
    path = shutil.which("node") if shutil.which("npm") else None
    return _host_tool("node", path, ["--version"], r"v(\d+)\.(\d+)\.(\d+)", NODE_MIN)


def _host_tool(name: str, path: str | None, arguments: list[str], pattern: str, least: tuple[int, ...]) -> Tool | None:
    if path is None:
        return None
    key = (name, path)
    if key not in _host_versions:
        # without a home: there go would keep counters for its makers, just for being asked
        env = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CONFIG_HOME")} | {"GOTOOLCHAIN": "local"}
        try:
            said = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=10, env=env, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        match = re.match(pattern, said.stdout)
        _host_versions[key] = tuple(int(part or 0) for part in match.groups()) if match else ()
    found = _host_versions[key]
    return Tool(name, ".".join(map(str, found)), Path(path)) if found >= least else None


_host_versions: dict[tuple[str, str], tuple[int, ...]] = {}
