"""Server frameworks that are built: whether that makes a site, or else how what it makes is started."""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace

from vibed.classify import front_build, worker_build
from vibed.classify.decision import Decision
from vibed.classify.node_command import Command, decision
from vibed.classify.project import Project
from vibed.sources.errors import quoted

_NITRO = ("node", ".output/server/index.mjs")
_EXPORT = re.compile(r"\boutput\s{0,9}:\s{0,9}[\"'`]export[\"'`]")
_NO_SERVER = re.compile(r"\bssr\s{0,9}:\s{0,9}false\b")
_OUT = re.compile(r"""\badapter\(\s{0,9}\{[^{}]{0,400}?\bout\s{0,9}:\s{0,9}["'`]([\w./-]{1,100})["'`]""")
_TANSTACK = ("@tanstack/react-start", "@tanstack/start")
_NITROS = {"nitro", "nitropack", "@tanstack/nitro-v2-vite-plugin"}
_NODE_PRESET = {"NITRO_PRESET": "node-server"}
"""What comes before a default that a project's own tools set, such as Cloudflare's."""
_CHOOSES_NODE = {"GCP_BUILDPACKS": "1"}
"""By this adapter-auto knows a host that runs Node."""
_ENDINGS = ("js", "mjs", "cjs", "ts", "mts")


def framework(p: Project, package: str, name: str, folder: str) -> Decision | None:
    """What a build here makes of an app of a framework; None where it cannot be built, or cannot run here then."""
    if not p.builds or p.tree.package is None:
        return None
    if _makes_pages(p, package):
        site = front_build.site(p, name, folder, f"It is a {name} app that is exported as pages")
        return replace(site, made=replace(site.made, copied=package == "next")) if site and site.made else site
    if package == "@sveltejs/kit" and "@sveltejs/adapter-cloudflare" in p.node.all_dependencies:
        return _worker(p, name)
    command = _command(p, package)
    made = front_build.whole(p, name)
    if command is None or made is None:
        return None
    why = f"It is a {name} app: it is built ({made.script}), and started by {quoted(' '.join(command.argv))}."
    # Turbopack refuses packages behind links that lead out of the app's folder
    made = replace(made, copied=made.copied or package == "next")
    if package == "@sveltejs/kit" and _chooses_adapter(p):
        made = replace(made, env=_CHOOSES_NODE, packages=(f"@sveltejs/adapter-node@{_node_adapter(p)}",))
    if _takes_presets(p, package):
        made = replace(made, env=_NODE_PRESET)
    return replace(decision(command, why), made=made)


def _worker(p: Project, name: str) -> Decision | None:
    """The worker that SvelteKit's adapter for Cloudflare makes, beside its pages, where no wrangler file says so."""
    script = front_build.script_of(p.node, name)
    if script is None:
        return None
    place = ".svelte-kit/cloudflare"
    entry = f"{place}/_worker.js"
    return Decision(
        kind="worker",
        entrypoint=entry,
        why=f"It is a {name} app for Cloudflare: it is built ({script}), and what that makes is a worker.",
        made=worker_build.made_by(name, script, entry, place),
        options={"assets": {"directory": place}},
    )


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
    own = _own(p)
    # Next.js has a server of its own for whatever it built; another one is around it
    if own is not None and (own.file or package != "next"):
        return replace(own, env={**env, **own.env})
    if package == "next":
        next_ = ("node", "node_modules/next/dist/bin/next", "start", "-H", "0.0.0.0", "-p", str(p.port))
        return Command(next_, env={"NODE_ENV": "production"})
    if package == "nuxt" and _before_nitro(p):
        return Command(("node_modules/.bin/nuxt", "start"), env=env)
    if package in ("nuxt", "@solidjs/start") or _takes_presets(p, package):
        return Command(_NITRO, env=env)
    if package == "@sveltejs/kit" and ("@sveltejs/adapter-node" in p.node.all_dependencies or _chooses_adapter(p)):
        told = _OUT.search(_settings(p, "svelte.config") + _settings(p, "vite.config"))
        return Command(("node", f"{posixpath.normpath(told[1]) if told else 'build'}/index.js"), env=env)
    if package == "@astrojs/node" and "standalone" in _settings(p, "astro.config"):
        return Command(("node", "dist/server/entry.mjs"), env=env)
    for server, program in (("@react-router/serve", "react-router-serve"), ("@remix-run/serve", "remix-serve")):
        if server in p.node.all_dependencies:
            return Command((f"node_modules/.bin/{program}", "build/server/index.js"), env=env)
    return None


def _before_nitro(p: Project) -> bool:
    """Whether its Nuxt is of before 3, which has a server of its own."""
    major = re.match(r"\D{0,3}(\d+)", p.node.all_dependencies.get("nuxt", ""))
    return major is not None and int(major[1]) < 3


def _takes_presets(p: Project, package: str) -> bool:
    """Whether TanStack Start is built by Nitro, which makes what runs where its preset says."""
    return package in _TANSTACK and not _NITROS.isdisjoint(p.node.all_dependencies)


def _own(p: Project) -> Command | None:
    """What the project's own scripts start once it is built."""
    scripts = replace(p.scripts, built=True)
    if found := scripts.from_start_script():
        return found[0]
    served = next((text for name, text in p.node.scripts.items() if name.startswith("serve:ssr")), None)
    return scripts.command(served) if served else None


def _chooses_adapter(p: Project) -> bool:
    """Whether SvelteKit takes the adapter of the host on which it is built."""
    ours = [name for name in p.node.all_dependencies if name.startswith("@sveltejs/adapter-")]
    return ours == ["@sveltejs/adapter-auto"]


def _node_adapter(p: Project) -> str:
    """The versions of the adapter that belong to the app's SvelteKit."""
    major = re.search(r"\d+", p.node.all_dependencies.get("@sveltejs/kit", ""))
    return "^6" if major and int(major[0]) >= 3 else "^5"


def _settings(p: Project, stem: str) -> str:
    found = p.tree.first([f"{stem}.{ending}" for ending in _ENDINGS])
    return p.tree.text(found) if found else ""
