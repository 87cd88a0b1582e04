"""Commands of Python's world as the template has them: programs as modules, and a server of its own for one that it
does not bring."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from vibed.apps.app import Install
from vibed.classify.command_line import AS_MODULES
from vibed.classify.python_app import PythonApp
from vibed.classify.tree import strings, table

_SERVERS = {"waitress-serve": "waitress", "hypercorn": "hypercorn", "daphne": "daphne", "granian": "granian"}
"""Servers of Python's whose place gunicorn or uvicorn takes, by command: the package."""
_GUNICORN = ("python3", "-m", "gunicorn")
_OLD_GUNICORN = re.compile(r"gunicorn(?:\[[\w,]*\])?==(?:1\d|20\.0)\b")
_TARGET = re.compile(r"[\w.]+:[\w.]+(?:\(\))?")
_BOUND = re.compile(r"(?:[\w.*\[\]]{0,60}:)?(\d{2,5})")
_FASTAPI = ("main.py", "app.py", "api.py", "app/main.py", "app/app.py", "app/api.py")


def module_call(
    app: PythonApp, packages: Mapping[str, str] | None, words: Sequence[str], folder: str = ""
) -> tuple[str, ...]:
    """The words of a simple command, which runs in `folder`, as the template can start them."""
    other = another_server(app, packages, words, folder)
    name = words[0] if words else ""
    if other:
        return other
    if name in AS_MODULES:
        return ("python3", "-m", *words)
    if re.fullmatch(r"python(?:3(?:\.\d+)?)?", name):
        return ("python3", *words[1:])
    return tuple(words)


def as_it_is_installed(argv: tuple[str, ...], install: Install | None) -> tuple[str, ...]:
    """A command as what is installed for it can be started: gunicorn before 20.1 is no module that runs, its command
    line is."""
    listed = (*install.wanted, *install.constraints) if install is not None else ()
    old = any(_OLD_GUNICORN.match(line) for line in listed)
    return ("python3", "-m", "gunicorn.app.wsgiapp", *argv[3:]) if old and argv[:3] == _GUNICORN else argv


def another_server(
    app: PythonApp, packages: Mapping[str, str] | None, words: Sequence[str], folder: str = ""
) -> tuple[str, ...] | None:
    """A command with a server of the template's, where the one that is asked for is none of them."""
    name = words[0] if words else ""
    if name == "fastapi" and len(words) > 1 and words[1] in ("run", "dev"):
        return _fastapi(app, words[2:], folder)
    missing = name in _SERVERS and packages is not None and _SERVERS[name] not in packages
    return _instead(app, words) if missing else None


def _fastapi(app: PythonApp, words: Sequence[str], folder: str) -> tuple[str, ...] | None:
    """What `fastapi run` does: uvicorn on the app that it finds."""
    options = _options(words)
    bound = ("--host", "0.0.0.0", "--port", str(app.port))
    named = [word for word in words if word.endswith(".py") or posixpath.join(folder, word) in app.tree.folders]
    settings = posixpath.join(folder, "pyproject.toml")
    tool = table(table(app.tree.toml(settings).get("tool")).get("fastapi")) if app.tree.has(settings) else {}
    entry = strings(tool).get("entrypoint", "")
    if not named and _TARGET.fullmatch(entry):
        command: tuple[str, ...] = ("python3", "-m", "uvicorn", entry, *bound)
    else:
        tried = [posixpath.join(folder, name) for name in (named[:1] or _FASTAPI)]
        path = app.tree.first(posixpath.normpath(name) for name in tried)
        if path is None:
            modules = ("main.py", "app.py", "api.py", "__init__.py")
            inside = [f"{posixpath.normpath(tried[0])}/{name}" for name in modules]
            path = app.tree.first(inside)
        if path is None or not app.sources.objects(path):
            return None
        target = options.get("--app") or app.sources.objects(path)[0]
        command = app.served(path, "asgi", target)
        if folder:
            module = path.removeprefix(f"{folder}/").removesuffix(".py").replace("/", ".")
            command = ("python3", "-m", "uvicorn", f"{module}:{target}", *bound)
    port = options.get("--port", "")
    if port.isdecimal():
        command = tuple(port if before == "--port" else word for before, word in pairwise(("", *command)))
    kept = [word for name in ("--root-path", "--workers") if name in options for word in (name, options[name])]
    return (*command, *kept)


def _instead(app: PythonApp, words: Sequence[str]) -> tuple[str, ...] | None:
    """gunicorn or uvicorn in the place of a server that is not there."""
    target = next((word for word in words if _TARGET.fullmatch(word)), None)
    if target is None:
        return None
    options = _options(words)
    told = [options[name] for name in ("-p", "--port", "-b", "--bind", "--listen") if name in options]
    bound = _BOUND.fullmatch(told[0]) if told else None
    port = bound[1] if bound else str(app.port)
    wsgi = words[0] == "waitress-serve" or options.get("--interface") == "wsgi"
    factory = bool({"--call", "--factory"} & set(words))
    if wsgi:
        called = f"{target}()" if factory and not target.endswith("()") else target
        return tuple(f"0.0.0.0:{port}" if word == f"0.0.0.0:{app.port}" else word for word in app.gunicorn(called))
    flags = ("--factory",) if factory else ()
    return ("python3", "-m", "uvicorn", target, "--host", "0.0.0.0", "--port", port, *flags)


def _options(words: Sequence[str]) -> dict[str, str]:
    """Options with their values, however they are written."""
    found = {name: value for name, value in pairwise(words) if name.startswith("-") and "=" not in name}
    return found | {word.partition("=")[0]: word.partition("=")[2] for word in words if word[:1] == "-" and "=" in word}
