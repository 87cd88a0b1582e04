"""What makes a worker where more does than loading it: its packages bundled with it, or a build script of its own."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from vibed.apps.app import Build
from vibed.classify.decision import TEMPLATES, Decision
from vibed.classify.node_app import NodeApp
from vibed.classify.tree import Tree, table


def own(tree: Tree, node: NodeApp, settings: Mapping[str, Any], entry: str, assets: Mapping[str, Any]) -> Build | None:
    """What makes the worker whose entry wrangler's file (`settings`) names, where more does than bundling it: a command
    of that file, or a build script of which the entry or the static files are made, by Vite or by hand.
    """
    command = table(settings.get("build")).get("command")
    with_vite = "@cloudflare/vite-plugin" in node.all_dependencies
    there = entry in tree.paths
    script = "npm run build" if "build" in node.scripts else "vite build" if with_vite else ""
    if isinstance(command, str) and command and not there:
        script = command
    folder = _folder(assets)
    complete = there and (not folder or folder in tree.folders)
    if not script or tree.package is None or (complete and not with_vite):
        return None
    return made_by("Vite" if with_vite else "", script, entry, folder)


def bundled(decision: Decision) -> Build:
    """What makes one module of a worker that needs more packages than the template has."""
    return made_by("esbuild", "", decision.entrypoint, _folder(table(decision.options.get("assets"))))


def made_by(tool: str, script: str, entry: str, assets: str | None) -> Build:
    """A build of a worker: the script (none where it is empty), then its entry is bundled; `assets`: the folder of its
    static files, empty for the root.
    """
    outputs = () if assets is None else (assets,)
    return Build(tool, script, TEMPLATES["node"], site=False, kind="worker", package=entry, outputs=outputs)


def _folder(assets: Mapping[str, Any]) -> str | None:
    """Of static files: empty for the root, None where there is none."""
    folder = assets.get("directory")
    if not isinstance(folder, str):
        return None
    clean = posixpath.normpath(folder)
    return "" if clean == "." else clean
