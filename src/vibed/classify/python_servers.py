"""Which files of a Python app are servers, and which of several is meant."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vibed.classify import mcp_servers
from vibed.classify.errors import AmbiguousProject
from vibed.classify.evidence import favoured
from vibed.classify.python_frameworks import modules
from vibed.classify.python_source import Sources
from vibed.classify.tree import Tree
from vibed.sources.errors import quoted

USUAL = (
    "app", "main", "wsgi", "asgi", "server", "run", "startup", "application", "web", "webapp", "index", "api",
    "streamlit_app", "Home", "home", "dashboard", "start", "serve", "backend", "site", "website", "gui", "ui",
    "manage",
)  # fmt: skip
"""What the file of a server is called, the likeliest first."""
_TELLING = ("Dockerfile", "docker-compose.yml", "docker-compose.yaml", "compose.yml", "compose.yaml", "startup.txt")
_SERVER_FOLDERS = frozenset({"backend", "back-end", "server", "api", "app", "web", "service", "src", "webapp"})
"""What the folder of a server is called."""
_ASIDE = frozenset(
    {"tests", "test", "docs", "scripts", "examples", "migrations", "node_modules", "vendor", "notebooks"}
)
"""Folders whose files are no app."""
_NONE = re.compile(r"(?:tests?_|tests?\.|setup\.|conftest|gunicorn\.|rxconfig\.)|.*_tests?\.py$")
_LIBRARIES = frozenset(
    {"wsgiref", "websockets", "gevent", "eventlet", "twisted", "grpc", "tornado", "socketio", "werkzeug"}
)
"""What a file may import without being a server."""
WITH_FILES = modules(lambda row: bool(row.command))
"""Frameworks whose files have a command of their own."""


@dataclass(frozen=True)
class PythonServers:
    """The servers among the Python files of a tree."""

    tree: Tree
    sources: Sources

    def server(self) -> str | None:
        """The file that is a server. Raises `AmbiguousProject` when several could be."""
        candidates = self.candidates()
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        if (found := favoured(self.tree, candidates)) is not None:
            return found[0]
        first = candidates[0]
        if "/" not in first and first.removesuffix(".py") in USUAL:
            return first
        if "/" not in first:
            starting = [path for path in candidates if self._starts(path)]
            rest = starting if len(starting) == 1 else candidates
        else:
            # of those below the root, that whose folder a Dockerfile or a compose file names, or says by its own
            rest = _of_tops(candidates, self._told_tops()) or _of_tops(candidates, _SERVER_FOLDERS) or candidates
            tops = {path.partition("/")[0] for path in rest}
            rest = rest[:1] if len(tops) == 1 else rest
        if len(rest) == 1:
            return rest[0]
        raise AmbiguousProject(
            f"{listed(rest)} could each be the server, and nothing says which is started",
            hint=f"name the one to start as entrypoint, for example {quoted(rest[0])}; or start it in a Procfile",
            details={"candidates": rest},
        )

    def candidates(self) -> list[str]:
        """The files that could be the server, the likeliest first: those at the root by their names, then the others
        there that no other one imports; where there are none, those below, whose names say it or that start one."""
        usual = [f"{name}.py" for name in USUAL if f"{name}.py" in self.tree.paths]
        named = [path for path in usual if self.serves(path) and not self._is_djangos(path)]
        rest = [path for path in self.tree.root if path.endswith(".py") and path not in named and not _NONE.match(path)]
        rest = [path for path in rest if not self._is_djangos(path)]
        found = [path for path in rest if self.sources.own_frameworks(path) and self.serves(path)]
        found = [path for path in found if not self._is_imported(path, [*named, *found])]
        if named or found:
            return [*named, *found]
        usual = [path for path in self._nested() if self.serves(path) and not self._is_djangos(path)]
        return usual or self._starting_below()

    def _is_djangos(self, path: str) -> bool:
        """Whether it is Django's manage.py, which only does what it is told."""
        return path.endswith("manage.py") and "execute_from_command_line" in self.tree.text(path)

    def _is_imported(self, path: str, others: list[str]) -> bool:
        source = self.sources[path]
        return any(other != path and source in self.sources.reached(other) for other in others)

    def favour(self, path: str) -> str:
        """Why this one of several, as a part of a sentence; empty where nothing says so."""
        candidates = self.candidates()
        found = favoured(self.tree, candidates) if len(candidates) > 1 else None
        return f", of several the one that {found[1]} starts," if found and found[0] == path else ""

    def also_serving(self, path: str) -> list[str]:
        """Other servers beside the one that is started, which has nothing to do with them: they are told."""
        others = [other for other in self.candidates() if other != path]
        if "/" in path:
            others = [other for other in others if other.partition("/")[0] != path.partition("/")[0]]
        apart = [other for other in others if self.sources[other] not in self.sources.reached(path)]
        return [other for other in apart if self.sources[path] not in self.sources.reached(other)]

    def _told_tops(self) -> frozenset[str]:
        """Folders that a Dockerfile or a compose file names."""
        told = "\n".join(self.tree.text(path) for path in _TELLING)
        return frozenset(re.findall(r"(?<![\w/.-])(?:\./)?([\w.-]{1,100})(?=[/\s\"']|$)", told))

    def _starts(self, path: str) -> bool:
        source = self.sources[path]
        return source.has_main or source.calls_at_top

    def _below(self) -> list[str]:
        """The files one or two folders down that may belong to an app, the highest first."""
        found = [path for path in self.tree.known(".py") if 1 <= path.count("/") <= 2]
        return sorted(
            (path for path in found if not _ASIDE & set(path.split("/")[:-1])), key=lambda path: (path.count("/"), path)
        )

    def _nested(self) -> list[str]:
        """Conventional entry files one or two folders down, the likeliest first."""
        names = {f"{name}.py": place for place, name in enumerate((*USUAL, "__main__", "__init__"))}
        found = [path for path in self._below() if path.rpartition("/")[2] in names]
        return sorted(found, key=lambda path: (path.count("/"), names[path.rpartition("/")[2]], path))

    def _starting_below(self) -> list[str]:
        """Files of any name one or two folders down that start a server when they are run."""
        found = []
        for path in self._below():
            if "__main__" not in self.tree.text(path) or _NONE.match(path.rpartition("/")[2]):
                continue
            source = self.sources[path]
            frameworks = self.sources.own_frameworks(path) - _LIBRARIES
            if frameworks and source.has_main and source.main_serves and self.serves(path):
                found.append(path)
        return [path for path in found if not self._is_imported(path, found)]

    def serves(self, path: str) -> bool:
        """Whether starting this file, or serving an object in it, gives a web server."""
        source = self.sources[path]
        own = self.sources.own_frameworks(path)
        frameworks = own or self.sources.frameworks(path)
        if not frameworks:
            return False
        if frameworks <= mcp_servers.MODULES and not mcp_servers.speaks_http(self.tree.text(path)):
            return False
        if frameworks & WITH_FILES:
            return bool(own & WITH_FILES) or self._starts(path)
        if frameworks <= _LIBRARIES and not (self._starts(path) or self.sources.objects(path)):
            return False
        made = self.sources.objects(path) or source.factory or source.calls_at_top
        if made or "socket" in frameworks or (source.has_main and source.main_serves):
            return True
        return bool(own & {"http.server", "socketserver", "aiohttp.web"}) and self._starts(path)


def _of_tops(paths: list[str], tops: frozenset[str]) -> list[str]:
    return [path for path in paths if path.partition("/")[0] in tops]


def listed(names: list[str]) -> str:
    """The first of some names, for a person."""
    return ", ".join(quoted(name) for name in names[:5])
