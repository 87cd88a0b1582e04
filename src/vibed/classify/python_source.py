"""What a Python file says about itself, found by looking at its text: nothing is imported or run."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

from vibed.classify.python_objects import applications, likeliest
from vibed.classify.tree import Tree

WSGI = frozenset({"flask", "bottle", "pyramid", "falcon", "django", "dash", "web", "werkzeug", "flask_socketio"})
ASGI = frozenset(
    {"fastapi", "starlette", "quart", "litestar", "blacksheep", "fasthtml", "shiny", "connexion", "socketio"}
)
OWN = frozenset(
    {
        "aiohttp.web", "tornado", "http.server", "socketserver", "wsgiref", "uvicorn", "hypercorn", "waitress",
        "cherrypy", "gradio", "nicegui", "sanic", "robyn", "twisted", "gevent", "eventlet", "websockets", "flet",
        "pywebio", "mesop", "bokeh.server", "xmlrpc.server", "granian", "gunicorn", "meinheld", "bjoern", "microdot",
        "emmett", "muffin", "panel", "chainlit", "streamlit", "solara", "reflex", "taipy", "marimo", "justpy", "remi",
        "grpc",
    }
)  # fmt: skip
"""Frameworks that bring their own server (or command)."""
BOTS = frozenset({"telegram", "telebot", "aiogram", "discord", "slack_bolt", "tweepy", "pyrogram", "telethon"})
COMMANDS = frozenset(
    {"argparse", "click", "typer", "fire", "optparse", "getopt", "tkinter", "pygame", "PyQt5", "PyQt6"}
)

_IMPORT = re.compile(
    r"^([ \t]*)(?:from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]+([^\n#]+)|import[ \t]+([^\n#;]+))", re.MULTILINE
)
_MAIN = re.compile(
    r"""^if[ \t]{0,9}\(?[ \t]{0,9}(?:__name__[ \t]{0,9}==[ \t]{0,9}['"]__main__['"]"""
    r"""|['"]__main__['"][ \t]{0,9}==[ \t]{0,9}__name__)""",
    re.MULTILINE,
)
_SERVES = re.compile(
    r"\b(?:run|serve|serve_forever|launch|run_app|run_simple|listen|start|main|execute\w*|run_until\w*|run_forever|quickstart|cli|Server)\s*\("
)
_TOP_CALL = re.compile(
    r"^(?:with\b[^\n]*:\n(?:[ \t][^\n]*\n)*?[ \t]+)?"
    r"[\w.]*\b(?:run|launch|serve|serve_forever|run_forever|run_app|run_simple|start|quickstart|run_until_complete)\("
    r"|^(?:\w{1,40}\.){0,4}[A-Z][\w.]{0,80}\([^\n]{0,300}\)\.(?:serve_forever|launch|run|start)\(",
    re.MULTILINE,
)
_SERVER = re.compile(r"(?i)(?<!ob)server|app(?:lication)?$|httpd|ioloop|^start$")
"""What has a `start()` that serves; a thread, a scheduler or an observer of files has one that does not."""
_RAW = re.compile(
    r"\b(?:asyncio\.start_server|create_server|start_server|TCPServer|make_server|listenTCP|adapt_serve_forever)\s{0,3}\("
    r"|\.accept\(\)"
)
"""A server that needs no framework: asyncio's, or a socket that accepts."""
_AT_TOP = re.compile(r"^(?:while|with|for|try|async[ ]with)\b|^(?:\w{1,40}\.){0,3}\w{1,40}\(", re.MULTILINE)
"""Something outside of functions runs."""
_DEEPEST = 4
_MOST_MODULES = 60
_MOST_IMPORTS = 100
"""Of one file: hostile sources import each other a million times over, real ones do not."""


@dataclass(frozen=True)
class Source:
    """One file."""

    path: str
    imports: frozenset[str]
    """Dotted names of what it imports, relative ones with their dots."""
    needed: frozenset[str]
    """Those that are imported whatever happens: not under `try:`."""
    has_main: bool
    main_serves: bool
    """Its `__main__` block calls something that may start a server."""
    calls_at_top: bool
    """Something outside of functions is started."""
    serves_at_top: bool
    """And that is a server, as far as its name tells."""
    objects: tuple[str, ...]
    """Names of web application objects, the likeliest first."""
    factory: str | None
    imported: tuple[tuple[str, str, str], ...] = ()
    """Names that may be an application object of another file: (module, name there, name here)."""
    interface: str = ""
    """`wsgi` or `asgi` where an object is a bare callable of that kind."""
    raw: bool = False
    """It opens a socket without a framework, and runs something outside of functions."""


def read_source(tree: Tree, path: str) -> Source:
    """Look at one file."""
    text = tree.text(path)
    imports: set[str] = set()
    needed: set[str] = set()
    for match in _IMPORT.finditer(text):
        names = _names(match)
        imports |= names
        before = text[max(0, match.start() - 200) : match.start()].rstrip()
        if not (match[1] and before.endswith(("try:", "TYPE_CHECKING:"))):
            needed |= names
    main = _MAIN.search(text)
    body = text[main.end() :] if main else ""
    before = text[: main.start()] if main else text
    found = applications(text)
    return Source(
        path,
        frozenset(imports),
        frozenset(needed),
        bool(main),
        bool(_SERVES.search(body)),
        bool(_TOP_CALL.search(before)),
        any(_is_server(match[0]) for match in _TOP_CALL.finditer(before)),
        found.objects,
        found.factory,
        found.imported,
        found.interface,
        bool(_RAW.search(text) and (main or _AT_TOP.search(before))),
    )


def _is_server(call: str) -> bool:
    """Whether what a match of `_TOP_CALL` calls is a server's, rather than a thread's or another program's."""
    called = call.rpartition("\n")[2].strip()
    if not called.endswith("start("):
        return not called.startswith("subprocess.")
    return bool(_SERVER.search(called.partition("(")[0].removesuffix(".start")))


def _names(match: re.Match[str]) -> set[str]:
    module = match[2]
    if module is None:
        return {part.split(" as ")[0].strip() for part in match[4].split(",") if part.strip()}
    found = {module} if module.strip(".") else set()
    for part in match[3].strip("() \\").split(","):
        name = part.split(" as ")[0].strip()
        if name.isidentifier():
            found.add(f"{module}{'' if module.endswith('.') else '.'}{name}")
    return found


class Sources:
    """All Python files of a tree, looked at when they are asked for."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._read: dict[str, Source] = {}
        self._neighbours: dict[str, tuple[str, ...]] = {}
        self._reached: dict[str, list[Source]] = {}

    def __getitem__(self, path: str) -> Source:
        if path not in self._read:
            self._read[path] = read_source(self.tree, path)
        return self._read[path]

    def objects(self, path: str, depth: int = 0) -> tuple[str, ...]:
        """Names of web application objects that a file has, its own or another file's; a dictionary that is called
        `app` is none."""
        source = self[path]
        if source.objects or depth > _DEEPEST:
            return source.objects
        found = []
        for module, name, here in source.imported:
            files = self.local(module, path)
            if not files or any(name in self.objects(file, depth + 1) for file in files if file != path):
                found.append(here)
        return likeliest(found)

    def reached(self, path: str) -> list[Source]:
        """The file and the files of the app that it imports, directly or not."""
        if path not in self._reached:
            seen = {path: None}
            for at in (waiting := [path]):
                fresh = [local for local in self._imported(at) if local not in seen]
                room = _MOST_MODULES - len(seen)
                seen.update(dict.fromkeys(fresh[:room]))
                waiting += fresh[:room]
            self._reached[path] = [self[at] for at in seen]
        return self._reached[path]

    def _imported(self, path: str) -> tuple[str, ...]:
        """The files of the app that one file imports itself."""
        if path not in self._neighbours:
            names = sorted(self[path].imports)[:_MOST_IMPORTS]
            self._neighbours[path] = tuple(dict.fromkeys(local for name in names for local in self.local(name, path)))
        return self._neighbours[path]

    def local(self, name: str, importer: str) -> list[str]:
        """The files of the app that `name` stands for in `importer`, packages' `__init__.py` included."""
        folder = importer.rpartition("/")[0]
        dots = len(name) - len(name.lstrip("."))
        parts = name.lstrip(".").split(".")
        if dots:
            base = folder.split("/") if folder else []
            base = base[: len(base) - (dots - 1)] if dots - 1 <= len(base) else []
            roots = ["/".join([*base, ""]) if base else ""]
        else:
            roots = list(dict.fromkeys([f"{folder}/" if folder else "", "", "src/", *_above(folder)]))
        for root in roots:
            found = []
            for count in range(1, len(parts) + 1):
                stem = root + "/".join(parts[:count])
                found += [path for path in (f"{stem}.py", f"{stem}/__init__.py") if path in self.tree.paths]
            if found:
                return found
        return []

    def import_root(self, path: str) -> str | None:
        """The folder that has to be on the import path (`""`: the root), so that most of what the file and the files
        that it reaches import of the app is found; None when it does not matter."""
        folder = path.rpartition("/")[0]
        roots = ["", *_above(folder), *([f"{folder}/"] if folder else [])]
        in_package = path.endswith(("/__main__.py", "/__init__.py")) or any(
            name.startswith(".") for name in self[path].imports
        )
        if in_package:
            roots = roots[:-1] or roots
        names = {name for source in self.reached(path) for name in source.imports if not name.startswith(".")}
        found = {root: sum(self._is_in(root, name) for name in names) for root in roots}
        best = max(roots, key=found.__getitem__)
        return best.rstrip("/") if in_package or found[best] else None

    def _is_in(self, root: str, name: str) -> bool:
        stem = root + "/".join(name.split(".")[:2])
        top = root + name.partition(".")[0]
        paths = self.tree.paths
        return bool(
            {f"{top}.py", f"{top}/__init__.py", f"{stem}.py", f"{stem}/__init__.py"} & paths
            or ("." in name and stem in self.tree.folders)
        )

    def frameworks(self, path: str) -> frozenset[str]:
        """The web frameworks that the file, or what it imports of the app, uses."""
        return frozenset(found for source in self.reached(path) for found in _frameworks(source))

    def own_frameworks(self, path: str) -> frozenset[str]:
        """Those that the file itself imports."""
        return frozenset(_frameworks(self[path]))

    def is_local(self, name: str, importer: str) -> bool:
        """Whether the first part of a dotted name is a file or folder of the app."""
        top = name.split(".")[0]
        folder = importer.rpartition("/")[0]
        for root in {"", "src/", f"{folder}/" if folder else "", *_above(folder)}:
            if f"{root}{top}.py" in self.tree.paths or f"{root}{top}" in self.tree.folders:
                return True
        return False


def _above(folder: str) -> list[str]:
    """The folders that a folder lies in, with their slashes, the outermost first."""
    parts = folder.split("/")
    return ["/".join(parts[:count]) + "/" for count in range(1, len(parts))]


def _frameworks(source: Source) -> set[str]:
    found = set()
    for name in source.imports:
        top, _, rest = name.partition(".")
        if top in WSGI or top in ASGI or top in OWN:
            found.add(top)
        elif rest:
            two = f"{top}.{rest.partition('.')[0]}"
            if two in OWN:
                found.add(two)
    if source.interface:
        found.add(source.interface)
    if source.raw:
        found.add("socket")
    return found


def is_standard(name: str) -> bool:
    """Whether a module is part of Python."""
    return name.split(".")[0] in sys.stdlib_module_names or name == "__future__"
