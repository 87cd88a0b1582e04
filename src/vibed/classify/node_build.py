"""Files that a build would have made: what they are made from, and whether that runs as it is."""

from __future__ import annotations

import posixpath
import re

from vibed.classify.errors import BuildRequired
from vibed.classify.node_app import NodeApp
from vibed.sources.errors import quoted


def refuse_unbuilt(named: str, builds: bool, reason: str) -> None:
    """Raises `BuildRequired` for a file that a build makes; `builds`: there is a build script."""
    built = named.removeprefix("./").partition("/")[0]
    if builds or built in ("dist", "build", "lib", "out", ".output"):
        raise BuildRequired(
            f"the start script runs {quoted(named)}, which is not in the archive",
            hint=f"run npm run build first and deploy {built}/ with the rest, also if .gitignore names it{reason}",
            details={"output": built},
        )


def source_of(node: NodeApp, path: str) -> str | None:
    """The TypeScript file that a build would have made `path` from."""
    stem = re.sub(r"\.[cm]?js$", "", path)
    parts = stem.split("/")
    for at, part in enumerate(parts):
        if part not in ("dist", "build", "lib", "out", "output", ".output"):
            continue
        before, after = "/".join(parts[:at]), "/".join(parts[at + 1 :])
        for middle in ("src", "", "source", "server"):
            found = node.tree.first([posixpath.join(before, middle, f"{after}.{end}") for end in ("ts", "mts", "cts")])
            if found:
                return found
    return None


def stands_against(node: NodeApp, path: str) -> str:
    """Why Node cannot run TypeScript as it is, for the end of a hint; empty where it can, or where something that is
    installed for it does and nothing builds it."""
    reason = node.unstrippable(path)
    if not reason or (node.runner(path) is not None and "build" not in node.scripts):
        return ""
    return (
        "; without a build: write imports with their extension (./routes.ts)"
        f" ({quoted(path)} is TypeScript that Node cannot run as it is: {reason})"
    )
