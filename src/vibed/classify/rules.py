"""The rules, in order: the first that has an answer decides. docs/reference/classifier.md is this table for people.

A rule answers with a decision, or refuses by raising a `ClassifyError` that says what would work, or has no answer
(None)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from vibed.classify import foreign
from vibed.classify.decision import PORT, Decision, TemplateFacts
from vibed.classify.errors import AmbiguousProject, BuildRequired, NoEntrypoint, NotAWebApp, UnsupportedRuntime
from vibed.classify.go_app import GoApp
from vibed.classify.node_app import SERVERS, Command, NodeApp
from vibed.classify.python_app import PythonApp
from vibed.classify.python_source import Sources
from vibed.classify.site import Site, is_template
from vibed.classify.tree import Tree
from vibed.classify.worker_app import WorkerApp
from vibed.sources.errors import quoted


class Project:
    """A tree with its views; what is costly is found once, and only when a rule asks."""

    def __init__(self, tree: Tree, templates: Mapping[str, TemplateFacts] | None, port: int = PORT) -> None:
        self.tree = tree
        self.templates = templates
        self.port = port
        self.sources = Sources(tree)
        self.python = PythonApp(tree, self.sources, port)
        self.node = NodeApp(tree, "tsx" in (self.packages("node-24") or {}))
        self.worker = WorkerApp(tree, self.node)
        self.go = GoApp(tree)
        self.site = Site(tree)

    def packages(self, template: str) -> Mapping[str, str] | None:
        """What a template has; None when nothing is known of any template."""
        if self.templates is None:
            return None
        return self.templates[template].packages if template in self.templates else {}

    @cached_property
    def python_server(self) -> str | None:
        """The Python file that is a server. Raises `AmbiguousProject`."""
        return self.python.server() if self.tree.known(".py") else None

    @cached_property
    def node_server(self) -> str | None:
        """What makes it a Node server, in words; development tools make none."""
        if self.node.only_development():
            return None
        found = self.node.entry()
        if found:
            return quoted(found[0])
        if SERVERS & self.node.dependencies.keys() and "start" in self.node.scripts:
            return "the start script in package.json"
        return None


@dataclass(frozen=True)
class Rule:
    """One row of the table."""

    name: str
    kind: str | None
    """Which kind of app it decides for; None for refusals, which an explicit template passes over."""
    when: str
    then: str
    apply: Callable[[Project], Decision | None]


def _worker_config(p: Project) -> Decision | None:
    return p.worker.configured()


def _worker_assets(p: Project) -> Decision | None:
    found = p.worker.assets_only()
    if found is None:
        return None
    folder, spa = found
    return p.site.decide(
        folder, f"{p.worker.file} serves the folder {quoted(folder or '.')} without a worker.", spa=spa or None
    )


def _worker_module(p: Project) -> Decision | None:
    return p.worker.unconfigured()


def _procfile(p: Project) -> Decision | None:
    command = foreign.procfile(p.tree)
    return None if command is None else _from_command(p, command, "the web line of its Procfile")


def _from_command(p: Project, command: str, where: str) -> Decision | None:
    kind, language = foreign.kind_of(command)
    if language:
        raise UnsupportedRuntime(f"{where} starts {language}, which no template has", hint=foreign.hint(language))
    if kind is None or (kind == "binary" and re.search(r"\.sh\b", command)):
        # A script may start anything: what lies beside it tells which template has it.
        kind = "python" if p.tree.known(".py") else "node" if p.tree.package is not None else "binary"
    text = re.sub(r"\$\{?PORT(?::-?\d+)?\}?", str(p.port), command)
    argv = foreign.as_arguments(text)
    # Development tools of Node's that are not in the template: what they wrap is.
    if argv and argv[0] in ("npm", "yarn", "pnpm", "nodemon", "npx", "tsx"):
        found = p.node._script(" ".join(argv), 0)
        if found:
            return replace(p.node.decide(found, f"It is started by {where}."), entrypoint=command)
        return None
    return Decision(
        kind=kind,
        argv=argv or (),
        shell=None if argv else command,
        entrypoint=command,
        why=f"It is started by {where}.",
    )


def _two_servers(p: Project) -> Decision | None:
    if p.python_server and p.node_server and p.node.foreign_runtime() is None:
        raise AmbiguousProject(
            f"both {quoted(p.python_server)} (Python) and {p.node_server} (Node) are servers",
            hint="say which: template python-313 or node-24; or deploy each from a folder of its own",
            details={"candidates": [p.python_server, p.node_server]},
        )
    return None


def _django(p: Project) -> Decision | None:
    return p.python.django()


def _python_server(p: Project) -> Decision | None:
    return p.python.decide(p.python_server) if p.python_server else None


def _python_script(p: Project) -> Decision | None:
    return p.python.script()


def _node_framework(p: Project) -> Decision | None:
    found = p.node.framework()
    if found is None:
        return None
    _, name, folder = found
    built = p.site.built(folder)
    if built:
        return p.site.decide(built, f"It is a {name} app, and {quoted(built)} holds its static export.")
    raise BuildRequired(
        f"it is a {name} app: a server framework with a build step, which is not a static site",
        hint=(
            f"if it can be exported as static files, do so and deploy {folder}/; otherwise write the server with"
            " Express or Hono"
        ),
        details={"framework": name, "output": folder},
    )


def _foreign_javascript(p: Project) -> Decision | None:
    name = p.node.foreign_runtime()
    if name:
        raise UnsupportedRuntime(f"it is written for {name}, which no template has", hint=foreign.hint(name))
    return None


def _node_start(p: Project) -> Decision | None:
    if p.tree.package is None or not p.node.scripts:
        return None
    if _is_other_program(p):
        return None
    found = p.node.from_start_script()
    if found is None:
        return None
    command, script = found
    _refuse_unbuilt(p, command.argv[-1] if command.argv else "")
    return p.node.decide(command, f"It is a Node app: the script {quoted(script)} of package.json starts it.")


def _node_entry(p: Project) -> Decision | None:
    if _is_other_program(p):
        return None
    found = p.node.entry()
    if found:
        path, why = found
        _refuse_unbuilt(p, path)
        command = p.node.run(path)
        return p.node.decide(Command(command), f"It is a Node app: {quoted(path)} {why}.")
    script = p.node.from_dev_script()
    if script:
        command_, name = script
        return p.node.decide(command_, f"It is a Node app: what the script {quoted(name)} runs is a server.")
    return None


def _is_other_program(p: Project) -> bool:
    for package, sort, instead in (
        ("electron", "a desktop program (Electron)", "deploy its pages as static files"),
        ("react-native", "a mobile app (React Native)", "export it for the web (expo export) and deploy dist/"),
        ("expo", "a mobile app (Expo)", "export it for the web (expo export) and deploy dist/"),
        ("discord.js", "a chat bot", "give it a web page: a server that listens on PORT"),
        ("telegraf", "a chat bot", "give it a web page: a server that listens on PORT"),
    ):
        if package in p.node.all_dependencies and not p.node.entry():
            raise NotAWebApp(f"it is {sort}", hint=instead)
    return False


def _refuse_unbuilt(p: Project, path: str) -> None:
    folder = p.node.unbuilt_folder(path)
    if folder:
        raise BuildRequired(
            f"{quoted(path)} serves the pages in {quoted(folder)}, which its build script makes and which are not in"
            " the archive",
            hint=f"run npm run build and deploy {folder}/ with the rest, also if .gitignore names it",
            details={"output": folder},
        )


def _go_server(p: Project) -> Decision | None:
    if not p.tree.known(".go"):
        return None
    folder = p.go.server()
    return None if folder is None else p.go.decide(folder, p.packages("go-123"))


def _hidden_command(p: Project) -> Decision | None:
    found = foreign.hidden_command(p.tree)
    if found is None or foreign.kind_of(found[0]) == (None, None) or foreign.language(p.tree):
        return None
    kind, language = foreign.kind_of(found[0])
    if language or (kind == "binary" and not _has_program(p, found[0])) or (kind == "go"):
        return None
    files = re.findall(r"[\w./-]+\.(?:py|[cm]?[jt]s|sh)\b", found[0])
    if files and not any(file.removeprefix("./").removeprefix("/app/") in p.tree.paths for file in files):
        return None
    command = found[0].replace("/usr/src/app/", "").replace("/app/", "")
    return _from_command(p, command, f"the start command in its {found[1]}")


def _has_program(p: Project, command: str) -> bool:
    return any(word.removeprefix("./").removeprefix("/app/") in p.tree.paths for word in command.split())


def _program(p: Project) -> Decision | None:
    programs = [path for path in p.tree.root if p.tree.raw(path)[:4] == b"\x7fELF"]
    fitting = [path for path in programs if p.tree.raw(path)[18:20] == b"\x3e\x00"]
    if programs and not fitting:
        raise UnsupportedRuntime(
            f"{quoted(programs[0])} is a program for another processor", hint="compile it for x86-64 Linux"
        )
    if len(fitting) == 1:
        path = fitting[0]
        return Decision(
            kind="binary", argv=(f"./{path}",), entrypoint=f"./{path}", why=f"{quoted(path)} is a program for Linux."
        )
    if fitting:
        raise AmbiguousProject(
            f"{', '.join(map(quoted, fitting[:5]))} are all programs",
            hint="name the one to start in a Procfile: web: ./NAME",
        )
    return None


def _foreign(p: Project) -> Decision | None:
    name = foreign.language(p.tree)
    if name is None:
        return None
    raise UnsupportedRuntime(f"it is written in {name}, which no template has", hint=foreign.hint(name))


def _built_site(p: Project) -> Decision | None:
    served = p.node.served_folder()
    if served and p.site.page(served):
        return p.site.decide(served, f"The start script serves the files in {quoted(served)}.")
    tool = p.node.front_end()
    if tool is None and "build" not in p.node.scripts and not _generator(p):
        return None
    name, folder = tool or ("a build", "dist")
    built = p.site.built(folder)
    page = p.site.page("")
    if built is None or (built == "public" and page and not p.site.is_source(page)):
        return None
    return p.site.decide(built, f"It is a front-end project ({name}), and {quoted(built)} holds its built pages.")


def _front_end(p: Project) -> Decision | None:
    generator = _generator(p)
    tool = p.node.front_end() or generator
    page = p.site.page("")
    source = bool(page and p.site.is_source(page))
    plain = bool(page and not source and not (generator and is_template(p.tree.text(page or ""))))
    if plain and page:
        lacking = p.site.lacks(page) if "build" in p.node.scripts else None
        if lacking is None:
            return None
        what = (
            f"{quoted(page)} refers to {quoted(lacking)}, which its build script makes and which is not in the archive"
        )
    elif source:
        what = f"{quoted(page or '')} refers to source files that a browser cannot run"
    elif tool or "build" in p.node.scripts:
        what = f"it is a front-end project ({tool[0]})" if tool else "it is a front-end project with a build script"
    else:
        return None
    name, folder = tool or ("", "dist")
    command = _BUILDERS.get(name, "npm run build")
    raise BuildRequired(
        f"{what}: it has to be built first, and the built pages are not in the archive",
        hint=f"run {command} and deploy the folder it makes: vibed deploy {folder}",
        details={"tool": name, "output": folder, "command": command},
    )


_BUILDERS = {
    "Jekyll": "jekyll build",
    "Hugo": "hugo",
    "MkDocs": "mkdocs build",
    "Sphinx": "make html",
    "Zola": "zola build",
    "mdBook": "mdbook build",
}


def _generator(p: Project) -> tuple[str, str] | None:
    """A site generator that is not a package of Node's."""
    has = p.tree.has
    if has("_config.yml") and (p.tree.folders & {"_posts", "_layouts", "_includes"} or has("Gemfile")):
        return "Jekyll", "_site"
    if p.tree.first(["hugo.toml", "hugo.yaml", "config.toml", "config.yaml"]) and p.tree.folders & {
        "content",
        "archetypes",
        "layouts",
    }:
        return "Hugo", "public"
    if p.tree.first(["mkdocs.yml", "mkdocs.yaml"]):
        return "MkDocs", "site"
    if has("conf.py") and p.tree.first(["index.rst", "index.md"]):
        return "Sphinx", "_build/html"
    if has("book.toml"):
        return "mdBook", "book"
    return None


def _index_page(p: Project) -> Decision | None:
    page = p.site.page("")
    if page is None:
        return None
    return p.site.decide("", f"It is a static site: {quoted(page)} is at its root and no file is a server.")


def _site_folder(p: Project) -> Decision | None:
    folder = p.site.somewhere()
    if folder is None:
        return None
    page = p.site.page(folder)
    if page and p.site.is_source(page):
        raise BuildRequired(
            f"{quoted(page)} refers to source files that a browser cannot run",
            hint="run the build and deploy the folder it makes (often dist)",
            details={"output": "dist"},
        )
    return p.site.decide(folder, f"It is a static site: its index page is in {quoted(folder)} and no file is a server.")


def _single_page(p: Project) -> Decision | None:
    pages = p.tree.pages
    root = [page for page in pages if "/" not in page]
    if len(root) == 1 and len(pages) < 20:
        pages = root
    if len(pages) == 1:
        folder, _, name = pages[0].rpartition("/")
        return p.site.decide(folder, f"It is a static site: {quoted(name)} is its only page.", page=pages[0], spa=False)
    if pages and not _has_code(p):
        raise NoEntrypoint(
            f"there are {len(pages)} pages and none is called index.html",
            hint="rename the one to show first to index.html",
            details={"candidates": pages[:20]},
        )
    return None


def _has_code(p: Project) -> bool:
    return bool(p.tree.known(".py", ".js", ".ts", ".go", ".jsx", ".tsx"))


def _component(p: Project) -> Decision | None:
    found = sorted(path for path in p.tree.paths if path.endswith((".jsx", ".tsx", ".vue", ".svelte")))
    if not found:
        return None
    raise BuildRequired(
        f"{quoted(found[0])} is a component: a browser cannot run it, and there is no page and no server",
        hint=(
            "put it into a Vite project, run npm run build and deploy dist/; or write one index.html with plain"
            " JavaScript"
        ),
        details={"output": "dist"},
    )


def _not_a_server(p: Project) -> Decision | None:
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
    if package is not None and ("main" in package or "exports" in package) and not SERVERS & p.node.dependencies.keys():
        raise NotAWebApp(
            "it is a Node library: nothing in it listens for a browser", hint="add a server.js that listens on PORT"
        )
    return None


def _subfolder(p: Project) -> Decision | None:
    found = []
    for top in p.tree.tops:
        prefix = f"{top}/"
        names = {path[len(prefix) :] for path in p.tree.inside(prefix)}
        if names & {
            "package.json", "requirements.txt", "pyproject.toml", "go.mod", "index.html", "app.py", "main.py",
            "manage.py", "wrangler.toml", "wrangler.jsonc", "Procfile", "server.js", "index.js", "main.go", "worker.js",
        }:  # fmt: skip
            found.append(top)
    if not found or (p.tree.package is not None and SERVERS & p.node.dependencies.keys()):
        return None
    raise AmbiguousProject(
        f"the app is not at the root; {', '.join(map(quoted, found[:5]))} {'looks' if len(found) == 1 else 'look'} like"
        f" {'one' if len(found) == 1 else 'several'}",
        hint=f"deploy one folder: vibed deploy {found[0]}",
        details={"candidates": found[:20]},
    )


_STARTED = ("app.py", "main.py", "server.js", "index.js", "worker.js")
"""Files that would be started if they were servers."""


def _nothing(p: Project) -> Decision | None:
    script = p.tree.first(_STARTED) or (p.tree.root[0] if len(p.tree.root) == 1 else "")
    if script.endswith((".py", ".js")):
        prints = "print(" if script.endswith(".py") else "console.log("
        raise NotAWebApp(
            f"{quoted(script)} starts no server: it {'prints' if prints in p.tree.text(script) else 'runs'} and ends",
            hint=(
                "make it answer HTTP: with Flask or FastAPI, or with Streamlit (st.write in the place of print)"
                if script.endswith(".py")
                else "make it answer HTTP: with node:http or Express, listening on PORT; or put it into an index.html"
            ),
        )
    shown = p.tree.root[:5]
    seen = f"found {', '.join(map(quoted, shown))}" if shown else "no file is at the root"
    raise NoEntrypoint(
        f"nothing says how to start it: {seen}",
        hint=(
            "have one of index.html, app.py, main.py, server.js, worker.js, main.go or a Procfile at the root; or name"
            " an entrypoint"
        ),
        details={"files": p.tree.root[:20]},
    )


RULES: tuple[Rule, ...] = (
    Rule(
        "worker-config",
        "worker",
        "wrangler.jsonc, .json or .toml, with an entry that is there",
        "a worker; its vars, flags and assets count",
        _worker_config,
    ),
    Rule(
        "worker-assets",
        "static",
        "wrangler’s file names only assets (or a Pages output folder)",
        "a static site from that folder",
        _worker_assets,
    ),
    Rule(
        "worker-module",
        "worker",
        "worker.js/ts, _worker.js or index.js/ts exports fetch (or listens for it) and opens no port",
        "a worker",
        _worker_module,
    ),
    Rule(
        "procfile",
        "general",
        "a Procfile has a web line",
        "that command; a shell only where it needs one",
        _procfile,
    ),
    Rule(
        "two-servers",
        None,
        "a Python file and a Node file are both servers",
        "refused: AmbiguousProject",
        _two_servers,
    ),
    Rule(
        "django",
        "python",
        "manage.py at the root or one folder down",
        "gunicorn if the requirements have it or WhiteNoise, else runserver; SQLite is migrated",
        _django,
    ),
    Rule(
        "python-server",
        "python",
        "a Python file uses a web framework or http.server and serves",
        "its own command, python FILE, or gunicorn or uvicorn on its object",
        _python_server,
    ),
    Rule(
        "python-script",
        "python",
        "[project.scripts] of pyproject.toml calls a package that serves",
        "that function",
        _python_script,
    ),
    Rule(
        "node-framework",
        "node",
        "Next.js, Nuxt, SvelteKit, Remix and the like",
        "its static export if it is there; else refused: BuildRequired",
        _node_framework,
    ),
    Rule(
        "other-javascript",
        None,
        "deno.json, Bun.serve or Deno.serve",
        "refused: UnsupportedRuntime",
        _foreign_javascript,
    ),
    Rule(
        "node-start",
        "node",
        "scripts.start runs a file that is there and is no development server",
        "that file; nodemon, tsx and ts-node become node",
        _node_start,
    ),
    Rule(
        "node-entry",
        "node",
        "main, server.js, index.js, app.js … listens, or scripts.dev runs such a file",
        "node FILE",
        _node_entry,
    ),
    Rule(
        "go-server",
        "go",
        "package main at the root or in cmd/, and something listens",
        "go build in the sandbox, then the program",
        _go_server,
    ),
    Rule(
        "hidden-command",
        "general",
        "startup.txt, or CMD in a Dockerfile, starts a file that is there",
        "that command",
        _hidden_command,
    ),
    Rule(
        "program",
        "binary",
        "one x86-64 Linux program at the root",
        "the program, on the Debian base",
        _program,
    ),
    Rule(
        "other-language",
        None,
        "Java, Rust, .NET, PHP, Ruby, Elixir and others by their files",
        "refused: UnsupportedRuntime",
        _foreign,
    ),
    Rule(
        "built-site",
        "static",
        "a front-end project whose output folder is there, with an index page",
        "a static site from that folder",
        _built_site,
    ),
    Rule(
        "front-end",
        "static",
        "a front-end tool, a site generator, or a page that refers to .tsx, .jsx and the like",
        "refused: BuildRequired, with the command and the folder",
        _front_end,
    ),
    Rule(
        "index-page",
        "static",
        "index.html at the root",
        "a static site",
        _index_page,
    ),
    Rule(
        "site-folder",
        "static",
        "index.html in public/, dist/, build/, docs/ …",
        "a static site from that folder",
        _site_folder,
    ),
    Rule(
        "single-page",
        "static",
        "one HTML file, whatever its name",
        "a static site with that page first; several: refused, NoEntrypoint",
        _single_page,
    ),
    Rule(
        "component",
        None,
        "only .jsx, .tsx, .vue or .svelte files",
        "refused: BuildRequired",
        _component,
    ),
    Rule(
        "not-a-server",
        None,
        "a notebook, library, command-line or desktop program, or chat bot",
        "refused: NotAWebApp",
        _not_a_server,
    ),
    Rule(
        "subfolder",
        None,
        "one or several folders hold a project, the root does not",
        "refused: AmbiguousProject, with the folder to deploy",
        _subfolder,
    ),
    Rule(
        "nothing",
        None,
        "none of the above",
        "refused: NoEntrypoint; a script that starts no server: NotAWebApp",
        _nothing,
    ),
)
