"""Start commands in the files that other hosts read: where they stand, and where they run. The order is fixed; of
several services of one file the first that is a server counts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vibed.classify.errors import BadConfiguration
from vibed.classify.tree import Tree, table
from vibed.classify.yaml_lines import scalars

_LONGEST = 4000
_CMD = re.compile(r"^[ \t]*(CMD|ENTRYPOINT|WORKDIR|FROM)[ \t]+(\S.*)$", re.MULTILINE | re.IGNORECASE)
_SITE = frozenset({"static", "worker", "cron", "pserv", "keyvalue", "redis"})


@dataclass(frozen=True)
class HostCommand:
    """One of them."""

    command: str
    file: str
    """Where it stands."""


def host_commands(tree: Tree) -> Iterator[HostCommand]:
    """Every start command of a host's file, in their order."""
    for file, read in _FILES.items():
        if not tree.has(file):
            continue
        try:
            for command in read(tree, file):
                if command.strip():
                    yield HostCommand(command.strip()[:_LONGEST], file)
        except BadConfiguration:
            continue  # it is another host's, and says nothing here


def vercel_entries(tree: Tree) -> list[str]:
    """The files whose exported app is served where there is a vercel.json: what its builders name, or api/index."""
    if not tree.has("vercel.json"):
        return []
    try:
        builds = tree.json("vercel.json").get("builds")
    except BadConfiguration:
        return []
    sources = [table(build).get("src") for build in builds[:20]] if isinstance(builds, list) else []
    named = [source.removeprefix("./") for source in sources if isinstance(source, str)]
    named = named or [f"api/index.{extension}" for extension in ("js", "mjs", "cjs", "ts", "py")]
    return [source for source in named if tree.has(source) and source.endswith((".py", ".js", ".mjs", ".cjs", ".ts"))]


def dockerfile(tree: Tree) -> HostCommand | None:
    """What the last stage of a Dockerfile starts."""
    if not tree.has("Dockerfile"):
        return None
    said: dict[str, list[str] | str] = {}
    for name, rest in _CMD.findall(re.sub(r"\\\n[ \t]*", " ", tree.text("Dockerfile")[:65536])):
        name, text = name.upper(), rest.strip()[:_LONGEST]
        if name == "FROM":
            said.clear()
        elif name in ("CMD", "ENTRYPOINT"):
            listed = re.findall(r'"((?:[^"\\]|\\.){0,1000})"', text) if text.startswith("[") else None
            said[name] = [word.replace('\\"', '"') for word in listed] if listed is not None else text
    entry, command = said.get("ENTRYPOINT", ""), said.get("CMD", "")
    if isinstance(entry, list) and isinstance(command, list):
        words = [*entry, *command]
        # a script of its own that ends by starting what it is given
        words = command if entry and re.search(r"(?:entry-?point|docker-\w+)[\w.-]*$", entry[0]) else words
        text = shlex.join(words)
    else:
        chosen = command if command and not entry else entry
        text = chosen if isinstance(chosen, str) else shlex.join(chosen)
    return HostCommand(text, "Dockerfile") if text else None


def _render(tree: Tree, file: str) -> Iterator[str]:
    services: dict[str, dict[str, str]] = {}
    for path, value in scalars(tree.text(file)):
        if len(path) == 3 and path[0] == "services":
            services.setdefault(path[1], {})[path[2]] = value
    for service in services.values():
        sort = {service.get("type", "web"), service.get("env", ""), service.get("runtime", "")}
        if not sort & _SITE:
            yield _within(service.get("rootDir", ""), service.get("startCommand") or service.get("dockerCommand", ""))


def _railway(tree: Tree, file: str) -> Iterator[str]:
    deploy = table((tree.json if file.endswith(".json") else tree.toml)(file).get("deploy"))
    command = deploy.get("startCommand")
    if isinstance(command, str):
        yield command


def _nixpacks(tree: Tree, file: str) -> Iterator[str]:
    command = table(tree.toml(file).get("start")).get("cmd")
    if isinstance(command, str):
        yield command


def _fly(tree: Tree, file: str) -> Iterator[str]:
    data = tree.toml(file)
    processes = table(data.get("processes"))
    for name in dict.fromkeys(["app", "web", *processes]):
        if isinstance(processes.get(name), str):
            yield processes[name]
            break
    command = table(data.get("experimental")).get("cmd")
    if isinstance(command, list) and all(isinstance(word, str) for word in command):
        yield shlex.join(command)


def _app_engine(tree: Tree, file: str) -> Iterator[str]:
    values = dict(scalars(tree.text(file)))
    yield values.get(("entrypoint",), "")
    # Without one, App Engine serves `app` of main.py.
    if values.get(("runtime",), "").startswith("python") and tree.has("main.py"):
        yield "gunicorn -b :$PORT main:app"


def _heroku(tree: Tree, file: str) -> Iterator[str]:
    values = dict(scalars(tree.text(file)))
    yield values.get(("run", "web")) or values.get(("run", "web", "command", "0"), "")


def _digital_ocean(tree: Tree, file: str) -> Iterator[str]:
    values = dict(scalars(tree.text(file)))
    for path, value in values.items():
        if path[-1] == "run_command" and "services" in path:
            yield _within(values.get((*path[:-1], "source_dir"), ""), value)


def _app_runner(tree: Tree, file: str) -> Iterator[str]:
    yield dict(scalars(tree.text(file))).get(("run", "command"), "")


def _replit(tree: Tree, file: str) -> Iterator[str]:
    data = tree.toml(file)
    for said in (table(data.get("deployment")).get("run"), data.get("run")):
        if isinstance(said, list) and said and all(isinstance(word, str) for word in said):
            yield shlex.join(said)
        elif isinstance(said, str) and not re.search(r"\bdev\b", said):
            yield said


def _startup(tree: Tree, file: str) -> Iterator[str]:
    yield next((line.strip() for line in tree.text(file).splitlines() if line.strip()), "")


def _within(folder: str, command: str) -> str:
    folder = folder.strip("./")
    return f"cd {shlex.quote(folder)} && {command}" if folder and command else command


_FILES: dict[str, Callable[[Tree, str], Iterator[str]]] = {
    "render.yaml": _render,
    "railway.json": _railway,
    "railway.toml": _railway,
    "nixpacks.toml": _nixpacks,
    "fly.toml": _fly,
    "app.yaml": _app_engine,
    "heroku.yml": _heroku,
    ".do/app.yaml": _digital_ocean,
    ".do/deploy.template.yaml": _digital_ocean,
    "apprunner.yaml": _app_runner,
    "startup.txt": _startup,
    ".replit": _replit,
}
"""The files, in their order."""
