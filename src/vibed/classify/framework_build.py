"""Server frameworks that are built: whether that makes a site, or else how what it makes is started."""

from __future__ import annotations

import re
from dataclasses import replace

from vibed.classify import front_build
from vibed.classify.decision import Decision
from vibed.classify.node_command import Command, decision
from vibed.classify.project import Project
from vibed.sources.errors import quoted

_NITRO = ("node", ".output/server/index.mjs")
_EXPORT = re.compile(r"\boutput\s{0,9}:\s{0,9}[\"'`]export[\"'`]")
_NO_SERVER = re.compile(r"\bssr\s{0,9}:\s{0,9}false\b")
_ENDINGS = ("js", "mjs", "cjs", "ts", "mts")


def framework(p: Project, package: str, name: str, folder: str) -> Decision | None:
    """What a build here makes of an app of a framework; None where it cannot be built, or cannot run here then."""
    if not p.builds or p.tree.package is None:
        return None
    if _makes_pages(p, package):
        site = front_build.site(p, name, folder, f"It is a {name} app that is exported as pages")
        return replace(site, made=replace(site.made, copied=package == "next")) if site and site.made else site
    command = _command(p, package)
    made = front_build.whole(p, name)
    if command is None or made is None:
        return None
    why = f"It is a {name} app: it is built ({made.script}), and started by {quoted(' '.join(command.argv))}."
    # Turbopack refuses packages behind links that lead out of the app's folder
    return replace(decision(command, why), made=replace(made, copied=package == "next"))


def _makes_pages(p: Project, package: str) -> bool:
    build = p.node.scripts.get("build", "")
    if package in ("next", "blitz"):
        return bool(_EXPORT.search(_settings(p, "next.config")) or "next export" in build)
    if package == "nuxt":
        return "generate" in build
    if package == "@sveltejs/kit":
        return "@sveltejs/adapter-static" in p.node.all_dependencies
    if package in ("@react-router/node", "@remix-run/node", "@remix-run/react"):
        return bool(_NO_SERVER.search(_settings(p, "react-router.config") + _settings(p, "vite.config")))
    if package == "@astrojs/node":
        return "adapter" not in _settings(p, "astro.config")
    return False


def _command(p: Project, package: str) -> Command | None:
    env = {"NODE_ENV": "production", "HOST": "0.0.0.0"}
    if package == "next":
        own = p.scripts.from_start_script()
        if own is not None and own[0].file:  # a server of its own around it
            return replace(own[0], env={**env, **own[0].env})
        next_ = ("node", "node_modules/next/dist/bin/next", "start", "-H", "0.0.0.0", "-p", str(p.port))
        return Command(next_, env={"NODE_ENV": "production"})
    if package in ("nuxt", "@solidjs/start"):
        return Command(_NITRO, env=env)
    if package == "@sveltejs/kit" and "@sveltejs/adapter-node" in p.node.all_dependencies:
        return Command(("node", "build/index.js"), env=env)
    if package == "@astrojs/node" and "standalone" in _settings(p, "astro.config"):
        return Command(("node", "dist/server/entry.mjs"), env=env)
    for server, program in (("@react-router/serve", "react-router-serve"), ("@remix-run/serve", "remix-serve")):
        if server in p.node.all_dependencies:
            return Command((f"node_modules/.bin/{program}", "build/server/index.js"), env=env)
    return None


def _settings(p: Project, stem: str) -> str:
    found = p.tree.first([f"{stem}.{ending}" for ending in _ENDINGS])
    return p.tree.text(found) if found else ""
