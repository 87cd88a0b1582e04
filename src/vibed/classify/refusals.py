"""The rules that only refuse: what no rule for servers or pages took, and why."""

from __future__ import annotations

import re

from vibed.classify import below, foreign, halves, mcp_servers, unpublished
from vibed.classify.decision import Decision
from vibed.classify.errors import (
    AmbiguousProject,
    BuildRequired,
    NoEntrypoint,
    NotAWebApp,
    ProjectBelow,
    UnsupportedRuntime,
)
from vibed.classify.node_tools import SERVERS
from vibed.classify.project import Project
from vibed.sources.errors import quoted


def other_language(p: Project) -> Decision | None:
    name = foreign.language(p.tree, finished_page=p.site.finished())
    if name is None:
        return None
    raise UnsupportedRuntime(f"it is written in {name}, which no template has", hint=foreign.hint(name))


def unknown_start(p: Project) -> Decision | None:
    text = p.node.scripts.get("start", "")
    found = p.script_tools.not_understood() if text else None
    if found is None:
        return None
    reason, cure = found
    raise NoEntrypoint(
        f"the start script of package.json, {quoted(text)}, cannot be followed: {reason}",
        hint=cure,
    )


def functions(p: Project) -> Decision | None:
    # such a folder, when it is all there is, was taken for the root
    above = p.tree.strip if p.tree.strip in unpublished.FUNCTIONS else ""
    found = unpublished.functions([above + path for path in p.tree.paths], lambda path: p.tree.text(path[len(above) :]))
    configured = any(map(p.tree.has, _FUNCTION_HOSTS))
    handlers = [path for path in found if configured or _CALLED.search(p.tree.text(path[len(above) :]))]
    if not handlers or (SERVERS & p.node.dependencies.keys() and not configured):
        return None
    file = handlers[0]
    if file.endswith(".py"):
        call = f"serve {quoted('handler')} with http.server's HTTPServer in app.py"
    else:
        call = f"call what {quoted(file)} exports from a server.js that listens on PORT (node:http or Express)"
    raise NotAWebApp(
        f"{quoted(file)} is a function that another host would call: nothing calls it here, and there is no page and no"
        " server",
        hint=f"make a server of it: {call}; or add the index.html that its functions are for",
        details={"files": handlers[:20]},
    )


_FUNCTION_HOSTS = ("vercel.json", "now.json", "netlify.toml")
_CALLED = re.compile(
    r"\bonRequest|\bexports\.handler\b|\bmodule\.exports\s{0,5}=\s{0,5}(?:async\b|function\b|\()"
    r"|\bexport\s{1,9}(?:default\s{1,9})?(?:const|async|function)\b"
    r"|\bexport\s{1,9}default\s{0,5}\(|^(?:class|def) handler\b",
    re.MULTILINE,
)
"""What a host of functions calls, as it stands in one; a library of a server's exports other things."""


def reflex(p: Project) -> Decision | None:
    if not p.tree.has("rxconfig.py") or "reflex" not in p.tree.text("rxconfig.py"):
        return None
    raise BuildRequired(
        "it is a Reflex app: its pages are compiled with packages of npm when it starts, and apps have no network then",
        hint="write its pages with NiceGUI, Streamlit or FastHTML, which need no such step",
    )


def mcp_on_standard_input(p: Project) -> Decision | None:
    if p.tree.has("index.html") or p.node.framework() is not None or p.python_server or p.node_server:
        return None
    found = mcp_servers.of_python(p.tree, p.sources) or mcp_servers.of_node(p.node)
    if found is None:
        return None
    path, cure = found
    raise NotAWebApp(
        f"{quoted(path)} is an MCP server that speaks on standard input: nobody is there on a host, and it answers no"
        " requests",
        hint=cure,
    )


def not_a_server(p: Project) -> Decision | None:
    notebooks = sorted(path for path in p.tree.paths if path.endswith(".ipynb"))
    instead = "make it answer HTTP: with Flask or FastAPI in app.py, or with Streamlit"
    if notebooks and not p.tree.first(["app.py", "main.py"]):
        raise NotAWebApp(
            f"{quoted(notebooks[0])} is a notebook: nothing in it listens for a browser",
            hint="turn it into a Streamlit app: the same code in app.py with st.write and st.pyplot",
        )
    package = p.tree.package
    if p.tree.first(["setup.py", "setup.cfg"]) or (
        p.tree.has("pyproject.toml")
        and "[project]" in p.tree.text("pyproject.toml")
        and not p.tree.first(["main.py", "app.py"])
    ):
        raise NotAWebApp("it is a Python library: nothing in it listens for a browser", hint=instead)
    found = p.python.not_a_server()
    if found:
        sort, path = found
        raise NotAWebApp(f"{quoted(path)} is {sort}: nothing in it listens for a browser", hint=instead)
    if p.go.mains():
        raise NotAWebApp(
            "it is a command-line program in Go: nothing in it opens a port", hint="make it answer HTTP with net/http"
        )
    if p.tree.known(".go"):
        raise NotAWebApp(
            "it is a Go library: there is no package main", hint="add a main.go that answers HTTP with net/http"
        )
    if package is not None and "bin" in package:
        raise NotAWebApp("it is a command-line program in Node", hint="make it answer HTTP with node:http or Express")
    if _is_library(p):
        raise NotAWebApp(
            "it is a Node library: nothing in it listens for a browser", hint="add a server.js that listens on PORT"
        )
    return None


def _is_library(p: Project) -> bool:
    package = p.tree.package
    if package is None or not ("main" in package or "exports" in package) or SERVERS & p.node.dependencies.keys():
        return False
    main = package.get("main")
    # npm init writes a main that nobody meant
    return not (isinstance(main, str) and p.node.file(main) is None and below.projects(p.tree))


_COLLECTION = 4
"""So many folders with an app each are a collection, whatever lies beside them."""


def subfolder(p: Project) -> Decision | None:
    found = below.projects(p.tree)
    # a server's own package.json with a folder of pages beside it is no collection
    if not found or (len(found) < _COLLECTION and p.tree.package is not None and SERVERS & p.node.dependencies.keys()):
        return None
    if (half := halves.of(p)) is not None and half.apart:
        server = ProjectBelow("the app is not at the root", hint=f"deploy one folder: vibed deploy {half.folder}")
        server.folder, server.beside = half.folder, half.others
        raise server
    one = len(found) == 1
    refused = (ProjectBelow if one else AmbiguousProject)(
        f"the app is not at the root; {', '.join(map(quoted, found[:5]))}"
        f" {'looks like one' if one else 'look like several'}",
        hint=f"deploy one folder: vibed deploy {found[0]}",
        details={"candidates": found[:20]},
    )
    if isinstance(refused, ProjectBelow):
        refused.folder = found[0]
    raise refused


_STARTED = ("app.py", "main.py", "server.js", "index.js", "worker.js")
"""Files that would be started if they were servers."""


def nothing(p: Project) -> Decision | None:
    script = p.tree.first(_STARTED) or (p.tree.root[0] if len(p.tree.root) == 1 else "")
    if script.endswith((".py", ".js")):
        python = script.endswith(".py")
        prints = "print(" if python else "console.log("
        listens = re.search(r"(?i)\b\w{0,20}(?:serve(?:r|_\w{1,20})?\b|listen\w{0,20}|bind)\(", p.tree.text(script))
        if listens:
            raise NoEntrypoint(
                f"{quoted(script)} calls {quoted(listens[0])}, but not as a server that is known here",
                hint=f"if it is one, say so: entrypoint, for example {'python3' if python else 'node'} {script}",
                details={"files": p.tree.root[:20]},
            )
        raise NotAWebApp(
            f"{quoted(script)} starts no server: it {'prints' if prints in p.tree.text(script) else 'runs'} and ends",
            hint=(
                "make it answer HTTP: with Flask or FastAPI, or with Streamlit (st.write in the place of print)"
                if python
                else "make it answer HTTP: with node:http or Express, listening on PORT; or put it into an index.html"
            ),
        )
    if p.tree.has("Dockerfile") and not p.passed_over:
        p.passed_over.append("its Dockerfile is not built, since there are no containers here")
    shown = p.tree.root[:5]
    seen = f"found {', '.join(map(quoted, shown))}" if shown else "no file is at the root"
    seen = "; ".join([seen, *p.passed_over])
    raise NoEntrypoint(
        f"nothing says how to start it: {seen}",
        hint=(
            "have one of index.html, app.py, main.py, server.js, worker.js, main.go or a Procfile at the root; or name"
            " an entrypoint"
        ),
        details={"files": p.tree.root[:20]},
    )
