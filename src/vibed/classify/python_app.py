"""Python apps: which file is the server, and the command that starts it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from vibed.classify.decision import PORT, Decision
from vibed.classify.python_frameworks import best
from vibed.classify.python_frameworks import row as framework_row
from vibed.classify.python_servers import USUAL, WITH_FILES, PythonServers, listed
from vibed.classify.python_source import BOTS, COMMANDS
from vibed.classify.tree import strings, table
from vibed.sources.errors import quoted

_LIST = re.compile(r"(?:^|/)(?:requirements(?:[^/]*|/[^/]*)\.txt|pyproject\.toml|Pipfile)$")
_DAEMON = re.compile(r"^daemon\s*=\s*True", re.MULTILINE)
_SHOWN = {"wsgi": "a WSGI callable", "asgi": "an ASGI callable", "socket": "a socket of its own"}


@dataclass(frozen=True)
class Way:
    """A way to start a server file."""

    argv: tuple[str, ...]
    why: str
    """Half a sentence."""
    env: Mapping[str, str]


@dataclass(frozen=True)
class PythonApp(PythonServers):
    """The Python side of a tree; every question is answered when it is asked."""

    port: int = PORT

    def framework(self, path: str) -> str:
        """The framework that matters most, as a person would say it."""
        found = self.sources.own_frameworks(path) or self.sources.frameworks(path)
        row = best(found)
        return row.name if row else _SHOWN.get(min(sorted(found), default=""), "Python")

    def starts(self, path: str) -> list[Way]:
        """The ways to start a server file, the likeliest first: one of them, most often."""
        source = self.sources[path]
        frameworks = self.sources.own_frameworks(path) or self.sources.frameworks(path)
        row = best(frameworks)
        command = best(frameworks & WITH_FILES)
        if command is not None and not (command.itself & source.called and self._starts(path)):
            argv = command.file_command(path, self.port)
            return [Way(argv, f"its file is started by {command.name}’s own command", command.variables(self.port))]
        env = row.variables(self.port) if row else {}
        says = "has a __main__ block" if source.has_main else "starts its own server"
        plain = Way(self._plain(path), f"it {says}", env)
        target = next(iter(self.sources.objects(path)), None) or source.factory
        served = self._served(path, target, frameworks) if target else None
        if served is None:
            return [plain]
        if (source.has_main and source.main_serves) or source.serves_at_top or source.raw:
            return [plain, served]
        return [served]

    def _served(self, path: str, target: str, frameworks: frozenset[str]) -> Way | None:
        """The way to serve an object of a file, or what a function of it answers."""
        made = self.sources.made(path).get(target) or self.sources[path].applications.makers[target]
        row = framework_row(made.module)
        interface = made.interface or _interface(frameworks)
        why = f"it has no __main__ block, so {{}} serves its object ‘{target}’"
        if row and row.worker:
            argv = self.served(path, "wsgi", target, worker=row.worker)
            if made.awaited:  # such a worker calls it itself
                argv = (*argv[:-1], argv[-1].removesuffix("()"))
            return Way(argv, why.format("gunicorn"), {})
        if row and row.method and not made.interface:
            factory = target not in self.sources.objects(path)
            root = self._root(path)
            name = _module(path, root).removesuffix(".__init__")
            call = row.method.format(port=self.port)
            code = f"from {name} import {target}; {target}{'()' if factory else ''}.{call}"
            beside = {"PYTHONPATH": root} if root else {}
            return Way(
                ("python3", "-c", code),
                f"it starts no server itself, so ‘{target}.{call.partition('(')[0]}’ is called",
                {**row.variables(self.port), **beside},
            )
        if not interface:
            return None
        return Way(
            self.served(path, interface, target),
            why.format("uvicorn" if interface == "asgi" else "gunicorn"),
            row.variables(self.port) if row else {},
        )

    def _plain(self, path: str) -> tuple[str, ...]:
        root = self.sources.import_root(path)
        if root is None or root == path.rpartition("/")[0]:
            return "python3", path
        return "python3", "-m", _module(path, root).removesuffix(".__main__")

    def _root(self, path: str) -> str:
        """The folder that has to be on the import path; `""` is the root, which is anyway."""
        root = self.sources.import_root(path)
        if root is not None:
            return root
        return self.sources.outermost_root(path) or ("src" if path.startswith("src/") else "")

    def served(self, path: str, interface: str, target: str, *, worker: str = "") -> tuple[str, ...]:
        """The command that serves an object of a file; a factory where the file has no object. `worker`: the class of
        gunicorn's workers that can."""
        root = self._root(path)
        factory = not self.sources.objects(path)
        name = f"{_module(path, root).removesuffix('.__init__')}:{target}"
        if interface == "asgi":
            command = ("python3", "-m", "uvicorn", name, "--host", "0.0.0.0", "--port", str(self.port))
            return command + (("--factory",) if factory else ()) + (("--app-dir", root) if root else ())
        return self.gunicorn(f"{name}()" if factory else name, root, worker=worker)

    def gunicorn(self, name: str, beside: str = "", *, worker: str = "") -> tuple[str, ...]:
        """Threads keep one slow page from holding up the others."""
        several = ("-k", worker) if worker else ("--threads", "8")
        command: tuple[str, ...] = ("python3", "-m", "gunicorn", "-b", f"0.0.0.0:{self.port}", *several)
        if beside:
            command += ("--pythonpath", beside)
        if _DAEMON.search(self.tree.text("gunicorn.conf.py")):
            command += ("-c", "/dev/null")
        return (*command, name)

    def declares(self, *names: str) -> bool:
        """Whether a list of requirements mentions one of the distributions."""
        lists = (path for path in self.tree.known(".txt", "pyproject.toml", "Pipfile") if _LIST.search(path))
        text = "\n".join(map(self.tree.text, lists)).lower()
        return any(name in text for name in names)

    def decide(self, path: str) -> Decision:
        """The decision for a server file."""
        ways = self.starts(path)
        framework = self.framework(path)
        others = self.also_serving(path)
        notes: tuple[str, ...] = ()
        if others:
            notes = (f"{listed(others)} would serve as well: name an entrypoint if another is meant",)
        if re.search(r"\bdebug\s*=\s*True\b", self.tree.text(path)):
            console = ", and a console to whoever has its PIN," if framework in ("Flask", "Dash") else ""
            notes += (f"debug=True shows tracebacks{console} to every visitor",)
        first, *more = [self._decision(path, way, framework, self.favour(path)) for way in ways[:2]]
        return replace(first, notes=notes, otherwise=more[0] if more else self._next(path))

    def _decision(self, path: str, way: Way, framework: str, favour: str = "") -> Decision:
        argv, env = way.argv, dict(way.env)
        if argv[1] == "-m" and argv[2] not in ("uvicorn", "gunicorn") and (root := self._root(path)):
            env["PYTHONPATH"] = root
        return Decision(
            kind="python", argv=argv, entrypoint=" ".join(argv), env=env,
            why=f"{quoted(path)} is a Python server ({framework}){favour} and {way.why}.",
        )  # fmt: skip

    def _next(self, path: str) -> Decision | None:
        """The start of the server file that is likeliest beside this one at the root, if it is another server."""
        if "/" in path:
            return None
        for name in USUAL:
            other = f"{name}.py"
            if other != path and other in self.tree.paths and self.serves(other) and not self._is_djangos(other):
                return self._decision(other, self.starts(other)[0], self.framework(other))
        return None

    def script(self) -> Decision | None:
        """`[project.scripts]` whose function belongs to a package that serves."""
        if not self.tree.has("pyproject.toml"):
            return None
        project = table(self.tree.toml("pyproject.toml").get("project"))
        for name, target in sorted(strings(project.get("scripts")).items()):
            module, colon, function = target.partition(":")
            if not colon or not re.fullmatch(r"[\w.]+", module) or not re.fullmatch(r"\w+", function):
                continue
            stem = module.replace(".", "/")
            for root in ("", "src/"):
                path = self.tree.first([f"{root}{stem}.py", f"{root}{stem}/__init__.py"])
                if path and self.sources.frameworks(path) and self.sources.function_serves(path, function):
                    return Decision(
                        kind="python",
                        argv=("python3", "-c", f"from {module} import {function}; {function}()"),
                        entrypoint=name,
                        env={"PYTHONPATH": "src"} if root else {},
                        why=f"pyproject.toml names the script {quoted(name)}, which starts a Python server.",
                    )
        return None

    def not_a_server(self) -> tuple[str, str] | None:
        """What the Python code at the root is instead: (sort, file)."""
        root = [name for name in self.tree.root if name.endswith(".py")]
        files = root or [path for path in self._nested() if path.startswith("src/")]
        for path in files:
            tops = {name.split(".")[0] for source in self.sources.reached(path) for name in source.imports}
            if tops & BOTS:
                return "a chat bot", path
        for path in files:
            source = self.sources[path]
            tops = {name.split(".")[0] for name in source.imports}
            if tops & {"tkinter", "pygame", "PyQt5", "PyQt6", "kivy", "wx"}:
                return "a desktop program", path
            if tops & COMMANDS or source.has_main or "input(" in self.tree.text(path):
                return "a command-line program", path
        return None


def _module(path: str, root: str) -> str:
    """The dotted name of a file where `root` is on the import path."""
    return path.removeprefix(f"{root}/").removesuffix(".py").replace("/", ".")


def _interface(frameworks: frozenset[str]) -> str:
    """What the objects of a file are that imports these."""
    found = {row.interface for module in frameworks if (row := framework_row(module))} | frameworks
    return "asgi" if "asgi" in found else "wsgi" if "wsgi" in found else ""
