"""The rules, in order: the first that has an answer decides. docs/reference/classifier.md is this table for people.

A rule answers with a decision, or refuses by raising a `ClassifyError` that says what would work, or has no answer
(None)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from vibed.classify import refusals, server_rules, site_rules, workspace_rules
from vibed.classify.decision import GENERAL, Decision
from vibed.classify.errors import ClassifyError, NoEntrypoint
from vibed.classify.project import Project

_SERVED = re.compile(r"[A-Za-z_][\w.]*(?::[A-Za-z_][\w.()]*|\.[aw]sgi)")


@dataclass(frozen=True)
class Rule:
    """One row of the table."""

    name: str
    kind: str | None
    """Which kind of app it decides for; None for refusals, which an explicit template passes over."""
    when: str
    then: str
    apply: Callable[[Project], Decision | None]


RULES: tuple[Rule, ...] = (
    Rule(
        "worker-config",
        "worker",
        "wrangler.jsonc, .json or .toml, with an entry that is there",
        "a worker; its vars, flags and assets count",
        server_rules.worker_config,
    ),
    Rule(
        "worker-assets",
        "static",
        "wrangler’s file names only assets (or a Pages output folder)",
        "a static site from that folder",
        site_rules.worker_assets,
    ),
    Rule(
        "worker-module",
        "worker",
        "worker.js/ts, _worker.js or index.js/ts exports fetch (or listens for it) and opens no port",
        "a worker",
        server_rules.worker_module,
    ),
    Rule(
        "procfile",
        "general",
        "a Procfile has a web line",
        "that command; a shell only where it needs one",
        server_rules.procfile,
    ),
    Rule(
        "host-file",
        "general",
        "a file of another host names a command or a file: render.yaml, railway.json or .toml, nixpacks.toml, fly.toml,"
        " app.yaml, heroku.yml, .do/app.yaml, apprunner.yaml, vercel.json, startup.txt, .replit",
        "that command",
        server_rules.host_file,
    ),
    Rule(
        "two-servers",
        None,
        "a Python file and a Node file are both servers",
        "the one that a Dockerfile, a script or the README starts; else refused: AmbiguousProject",
        server_rules.two_servers,
    ),
    Rule(
        "django",
        "python",
        "manage.py at the root or one folder down",
        "gunicorn if the requirements have it or WhiteNoise, else runserver; SQLite is migrated",
        server_rules.django,
    ),
    Rule(
        "reflex",
        None,
        "rxconfig.py of Reflex, whose pages are compiled when it starts",
        "refused: BuildRequired",
        refusals.reflex,
    ),
    Rule(
        "python-server",
        "python",
        "a Python file uses a web framework or http.server and serves",
        "its own command, python FILE, or gunicorn or uvicorn on its object",
        server_rules.python_server,
    ),
    Rule(
        "python-script",
        "python",
        "[project.scripts] of pyproject.toml calls a package that serves",
        "that function",
        server_rules.python_script,
    ),
    Rule(
        "mcp-on-standard-input",
        None,
        "nothing listens, and a file is a server of the Model Context Protocol that speaks on standard input",
        "refused: NotAWebApp, with what has it speak HTTP",
        refusals.mcp_on_standard_input,
    ),
    Rule(
        "node-framework",
        "node",
        "Next.js, Nuxt, SvelteKit, Remix and the like",
        "its static export if it is there; else built and served or started; else refused: BuildRequired",
        server_rules.node_framework,
    ),
    Rule(
        "other-javascript",
        None,
        "deno.json or Deno.serve; Bun.serve and the like, where nothing can be installed",
        "refused: UnsupportedRuntime",
        server_rules.foreign_javascript,
    ),
    Rule(
        "node-start",
        "node",
        "scripts.start runs a file that is there and is no development server",
        "that file, built first where it is not there; nodemon, tsx and ts-node become node",
        server_rules.node_start,
    ),
    Rule(
        "node-entry",
        "node",
        "main, server.js, index.js, app.js … listens, or scripts.dev runs such a file",
        "node FILE",
        server_rules.node_entry,
    ),
    Rule(
        "workspace",
        None,
        "a project of several packages (workspaces), whose root starts none of them",
        "the package that no other one needs, with those that it needs; of several: refused: AmbiguousProject",
        workspace_rules.member,
    ),
    Rule(
        "go-server",
        "go",
        "package main at the root or in cmd/, and something listens",
        "go build, then the program",
        server_rules.go_server,
    ),
    Rule(
        "dockerfile",
        "general",
        "CMD or ENTRYPOINT in a Dockerfile starts a file that is there",
        "that command: a hint, where nothing else says it",
        server_rules.dockerfile,
    ),
    Rule(
        "program",
        "binary",
        "one x86-64 Linux program at the root",
        "the program, on the Debian base",
        server_rules.program,
    ),
    Rule(
        "other-language",
        None,
        "Java, Rust, .NET, PHP, Ruby, Elixir and others by their files",
        "refused: UnsupportedRuntime",
        refusals.other_language,
    ),
    Rule(
        "built-site",
        "static",
        "a front-end project whose output folder is there, with an index page",
        "a static site from that folder",
        site_rules.built_site,
    ),
    Rule(
        "front-end",
        "static",
        "a front-end tool, a site generator, or a page that refers to .tsx, .jsx and the like",
        "built, and what that makes is a static site; else refused: BuildRequired, with the command and the folder",
        site_rules.front_end,
    ),
    Rule(
        "index-page",
        "static",
        "index.html at the root",
        "a static site",
        site_rules.index_page,
    ),
    Rule(
        "unknown-start",
        None,
        "scripts.start runs what is neither in the archive nor in the template, nor a tool for development or files",
        "refused: NoEntrypoint",
        refusals.unknown_start,
    ),
    Rule(
        "site-folder",
        "static",
        "index.html in public/, dist/, build/, docs/ …",
        "a static site from that folder",
        site_rules.site_folder,
    ),
    Rule(
        "single-page",
        "static",
        "one HTML file, whatever its name",
        "a static site with that page first; several: with a list of them first",
        site_rules.single_page,
    ),
    Rule(
        "component",
        None,
        "only .jsx, .tsx, .vue or .svelte files",
        "refused: BuildRequired",
        site_rules.component,
    ),
    Rule(
        "functions",
        None,
        "only functions of other hosts (api/, netlify/functions/ …)",
        "refused: NotAWebApp, with how to make a server of them",
        refusals.functions,
    ),
    Rule(
        "not-a-server",
        None,
        "a notebook, library, command-line or desktop program, or chat bot",
        "refused: NotAWebApp",
        refusals.not_a_server,
    ),
    Rule(
        "subfolder",
        None,
        "one or several folders hold a project, the root does not",
        "the only one is taken for the app; of several: refused: AmbiguousProject, with the folder to deploy",
        refusals.subfolder,
    ),
    Rule(
        "nothing",
        None,
        "none of the above",
        "refused: NoEntrypoint; a script that starts no server: NotAWebApp",
        refusals.nothing,
    ),
)


def first(project: Project, kinds: frozenset[str] | None) -> Decision:
    """What the first rule with an answer says; `kinds` leaves out the rules for others."""
    for rule in RULES:
        if kinds is not None and not _concerns(rule.kind, kinds):
            continue
        decision = rule.apply(project)
        if decision is None or (kinds is not None and decision.kind not in kinds):
            continue
        return replace(decision, rule=rule.name)
    wanted = " or ".join(sorted(kinds or ()))
    raise NoEntrypoint(
        f"nothing in it can be started as {wanted}", hint="name an entrypoint, or leave lane and template to vibeD"
    )


def following(project: Project, kinds: frozenset[str] | None, decided: Decision) -> Decision | None:
    """What the evidence behind a decision for a server says, where that is another start in the same template."""
    if decided.lane != "general":
        return None
    if decided.otherwise is not None:
        return decided.otherwise
    names = [rule.name for rule in RULES]
    passed_over = list(project.passed_over)
    try:
        for rule in RULES[names.index(decided.rule) + 1 :]:
            if rule.kind is None or (kinds is not None and not _concerns(rule.kind, kinds)):
                continue
            found = rule.apply(project)
            if found is not None and found.kind != decided.kind:
                return None
            if found is not None and _started(found) != _started(decided):
                return replace(found, rule=rule.name)
    except ClassifyError:
        return None
    finally:
        project.passed_over[:] = passed_over
    return None


def _started(decision: Decision) -> str:
    """What a command comes to: the object that it serves, where it serves one, whoever does and with what options."""
    served = [word for word in decision.command.split() if _SERVED.fullmatch(word)]
    if served and any(server in decision.command for server in ("gunicorn", "uvicorn", "hypercorn")):
        return served[-1] if ":" in served[-1] else f"{served[-1]}:application"
    return decision.command


def _concerns(kind: str | None, kinds: frozenset[str]) -> bool:
    return kind in kinds or (kind == "general" and bool(kinds & GENERAL))
