"""A project that is pages once its build script has run: the script, and where the pages will be."""

from __future__ import annotations

import re

from vibed.apps.app import Build
from vibed.classify.build_output import said
from vibed.classify.decision import TEMPLATES, Decision
from vibed.classify.node_app import NodeApp
from vibed.classify.project import Project
from vibed.classify.site import BUILT

_SCRIPTS = ("build", "build:prod", "build:production", "docs:build", "site:build", "generate", "export")
"""Scripts that build, by their usual names, the likeliest first."""
_COMMANDS = {
    "Vite": "vite build", "Create React App": "react-scripts build", "Angular": "ng build",
    "Vue CLI": "vue-cli-service build", "Parcel": "parcel build index.html", "Astro": "astro build",
    "Gatsby": "gatsby build", "Eleventy": "eleventy", "Docusaurus": "docusaurus build", "VitePress": "vitepress build",
    "webpack": "webpack --mode production", "Rsbuild": "rsbuild build", "Rspack": "rspack build",
    "Preact CLI": "preact build", "Hexo": "hexo generate",
}  # fmt: skip
"""What builds where no script says it."""
_ROOTED = {"vite build": "--base=/", "ng build": "--base-href=/"}
"""How tools are told that the pages are at the root of their name, as commands end. Not Astro: pages that write
`${import.meta.env.BASE_URL}/about` would lead to a host called about. Nor Eleventy, for which `--pathprefix=/` is as if
nothing were said. What they make is served below its place."""
_ELSEWHERE = re.compile(r"""\b(?:base|baseHref)\b["']?\s{0,9}[:=]\s{0,9}[^\n,]{0,80}?["'`](?:https?://|/[\w.-]|\./)""")
"""Settings that want the pages below another address."""
_SETTINGS = ("vite.config.js", "vite.config.ts", "vite.config.mjs", "vite.config.mts", "angular.json")


_WRITE = {"prisma", "@prisma/client", "zenstack", "patch-package"}
"""Packages that write among the others when a project is built."""


def script_of(node: NodeApp, tool: str) -> str | None:
    """The line for the shell that builds; None where nothing does."""
    for name in _SCRIPTS:
        if name in node.scripts:
            return f"npm run {name}{_rooted(node, node.scripts[name], '-- ')}"
    command = _COMMANDS.get(tool)
    return f"{command}{_rooted(node, command)}" if command else None


def _rooted(node: NodeApp, command: str, before: str = "") -> str:
    """What is added to a command so that pages meant for another place find their files here."""
    words = command.rpartition("&&")[2].split()
    flag = next((flag for end, flag in _ROOTED.items() if words[: len(end.split())] == end.split()), None)
    told = any(word.startswith("--base") for word in words)
    if flag is None or (not told and not any(_ELSEWHERE.search(node.tree.text(path)) for path in _SETTINGS)):
        return ""
    return f" {before}{flag}"


def site(p: Project, tool: str, folder: str, what: str) -> Decision | None:
    """The site that a build makes, where it can be built here; `what` is a sentence's beginning that says why it has to
    be. `folder`: where its tool puts it.
    """
    if not p.builds or p.tree.package is None:
        return None
    script = script_of(p.node, tool)
    if script is None:
        return None
    told = said(p.tree, p.node.scripts.get("build", ""))
    outputs = tuple(dict.fromkeys(filter(None, (told, folder, *BUILT))))
    # Create React App: the homepage of package.json is where its author serves it
    env = {"PUBLIC_URL": "/"} if tool == "Create React App" else {}
    return Decision(
        kind="static",
        entrypoint=script,
        why=f"{what}: it is built ({script}), and what that makes is a static site.",
        made=Build(tool, script, TEMPLATES["node"], outputs=outputs, env=env),
    )


def whole(p: Project, tool: str) -> Build | None:
    """The build after which the whole tree is run, where there is one and it can be made here."""
    if not p.builds or p.tree.package is None:
        return None
    script = script_of(p.node, tool)
    # as good a way to know it as its failure, and sooner
    copied = bool(_WRITE & p.node.all_dependencies.keys())
    return Build(tool, script, TEMPLATES["node"], site=False, copied=copied) if script else None
