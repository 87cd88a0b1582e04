"""A start command that the project names itself, in a Procfile or a Dockerfile, as what starts it here."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from vibed.classify import command_line, django_app, foreign, go_build, shell_text
from vibed.classify.decision import Decision
from vibed.classify.errors import UnsupportedRuntime
from vibed.classify.node_command import decision
from vibed.classify.project import Project
from vibed.classify.python_command import another_server, module_call
from vibed.classify.tree import strings, table
from vibed.classify.wrappers import Unwrapped, unwrapped
from vibed.sources.errors import quoted

_NODE = frozenset({"npm", "yarn", "pnpm", "bun", "nodemon", "tsx", "ts-node", "pm2", "pm2-runtime", "concurrently"})
_EXPANDED = re.compile(r"[$`*?~#!]|\[.*\]|\{.*\}")
"""What only a shell gives its meaning."""
_INSTALLS = re.compile(
    r"(?:python3? -m )?pip3? install\b|uv (?:pip install|sync)\b|(?:poetry|pipenv|pdm) (?:install|sync)\b"
    r"|(?:npm|pnpm|bun) (?:i|install|ci)\b|yarn(?: install)?$|(?:apt|apt-get|apk|corepack) "
    r"|(?:python3? -m )?playwright install\b"
)
"""Steps of a command that install what a layer or the template has."""
_CONTROL = re.compile(r"(?:^|;[ ]?)(?:if|then|else|fi|for|while|do|done|case|function|\w+\(\))\b")
_DEEPEST = 3


def decide(p: Project, command: str, where: str, depth: int = 0) -> Decision | None:
    """The decision for a command; None where it starts what is not there, which another rule may make.

    Raises `UnsupportedRuntime`, `BuildRequired`.
    """
    command = _without_installs(command)
    parts = shell_text.parse(command)
    words = unwrapped(parts[0].words).words if parts and len(parts) == 1 else ()
    text = shell_text.inside_shell(words)
    if text and depth < _DEEPEST:
        return decide(p, text, where, depth + 1)
    text = _script_file(p, words)
    if text and depth < _DEEPEST and command_line.kind_of(text)[0] in ("python", "node"):
        return decide(p, text, where, depth + 1)
    kind, language = command_line.kind_of(command)
    if language:
        raise UnsupportedRuntime(f"{where} starts {language}, which no template has", hint=foreign.hint(language))
    if kind == "go" and (compiled := go_build.command(p, command)) is not None:
        return replace(compiled, why=f"It is started by {where}: what that runs is compiled first.")
    at = folders(parts or ())
    absent = next(
        (word for part, folder in zip(parts or (), at, strict=True) if (word := _absent(p, part, folder))), None
    )
    if absent and (compiled := go_build.started(p, command, parts or (), absent)) is not None:
        return replace(compiled, why=f"It is started by {where}, whose program is compiled first.")
    if absent:
        p.passed_over.append(f"{where} names {quoted(absent)}, which is not there, and was passed over")
        return None
    if kind is None or (kind == "binary" and re.search(r"\.sh\b", command)):
        # A script may start anything: what lies beside it tells which template has it.
        kind = "python" if p.tree.known(".py") else "node" if p.tree.package is not None else "binary"
    why = f"It is started by {where}."
    inner = [unwrapped(part.words) for part in parts or ()]
    if any(found.words and found.words[0] in _NODE for found in inner):
        node = p.scripts.command(command)
        return replace(decision(node, why), entrypoint=command) if node else None
    if len(inner) == 1 and depth < _DEEPEST and (script := _script(p, inner[0])):
        return decide(p, script, where, depth + 1)
    argv, shell, env = _started(p, command, parts or (), inner)
    found = Decision(kind=kind, argv=argv, shell=shell, entrypoint=command, why=why, env=env)
    return django_app.prepared(p.python, found) if kind == "python" else found


def _without_installs(command: str) -> str:
    """The command without the steps that install packages: those are there when it runs."""
    parts = shell_text.parse(command)
    if not parts or len(parts) == 1:
        return command
    for at in range(len(parts) - 2, -1, -1):
        part = parts[at]
        if _INSTALLS.match(" ".join(unwrapped(part.words).words)) and part.then in ("&&", ";"):
            command = command[: part.starts[0]] + command[parts[at + 1].starts[0] :]
    return command


def _script_file(p: Project, words: Sequence[str]) -> str | None:
    """The commands of a shell script that only runs some, one after the other."""
    name = words[1] if len(words) == 2 and words[0] in ("sh", "bash") else words[0] if len(words) == 1 else ""
    path = posixpath.normpath(name)
    if not path.endswith(".sh") or not p.tree.has(path):
        return None
    lines = [line.strip() for line in p.tree.text(path).replace("\\\n", " ").splitlines()]
    kept = [line for line in lines if line and not line.startswith("#") and not re.match(r"set [-+]|shopt\b", line)]
    text = "; ".join(line.removesuffix(";") for line in kept)
    return text if kept and not _CONTROL.search(text) and shell_text.parse(text) else None


def _started(
    p: Project, text: str, parts: Sequence[shell_text.Simple], inner: Sequence[Unwrapped]
) -> tuple[tuple[str, ...], str | None, dict[str, str]]:
    """A list of arguments where they say it all, or else a command for a shell; and variables."""
    words = [command_line.with_port(word, p.port) for word in inner[0].words] if len(inner) == 1 else []
    if words and not parts[0].redirected and not any(map(_EXPANDED.search, words)):
        argv = _with_file(p, inner[0], module_call(p.python, p.packages("python-313"), words))
        if not inner[0].folder:
            return argv, None, inner[0].env
        return (), f"cd {shlex.quote(inner[0].folder)} && exec {shlex.join(argv)}", inner[0].env
    # What wraps a command is cut out of the text; whatever else it says is left to the shell.
    at = folders(parts)
    for part, found, folder in zip(reversed(parts), reversed(inner), reversed(at), strict=True):
        other = another_server(p.python, p.packages("python-313"), found.words, folder)
        if not (other or found.rewritten or found.skipped > len(found.env)):
            continue
        env = "".join(f"{name}={shlex.quote(value)} " for name, value in found.env.items())
        kept = text[part.starts[found.skipped] : part.end] if found.skipped < len(part.starts) else ""
        if other or found.rewritten:
            kept = shlex.join(other or found.words)
        moved = f"cd {shlex.quote(found.folder)} && " if found.folder else ""
        text = f"{text[: part.starts[0]]}{moved}{env}{kept}{text[part.end :]}"
    return (), text, {}


def folders(parts: Sequence[shell_text.Simple]) -> list[str]:
    """The folder that each simple command runs in; empty for the root."""
    found, folder = [], ""
    for part in parts:
        found.append(folder)
        if part.words[0] == "cd" and len(part.words) == 2:
            folder = posixpath.normpath(posixpath.join(folder, part.words[1])).removeprefix(".")
    return found


def _with_file(p: Project, inner: Unwrapped, argv: tuple[str, ...]) -> tuple[str, ...]:
    """Started with the variables of the file that its wrapper was to read, where that is there."""
    if not inner.env_file or posixpath.normpath(inner.env_file) not in p.tree.paths or argv[:1] != ("python3",):
        return argv
    return ("python3", "-m", "dotenv", "-f", inner.env_file, "run", "--", *argv)


def _absent(p: Project, part: shell_text.Simple, folder: str) -> str | None:
    """The program of a command, or the file that it starts, if neither the template nor the archive has it."""
    words = unwrapped(part.words).words
    if not words or "$" in words[0]:
        return None
    name = words[0]
    if "/" not in name:
        if command_line.is_known(name):
            return _absent_file(p, words, folder) if part.then in ("", "&") else None
        return None if _script(p, unwrapped(part.words)) else name
    path = posixpath.normpath(name.removeprefix("/app/"))
    beside = name.startswith(("/", "node_modules/", "./node_modules/")) and not name.startswith("/app/")
    return None if beside or path in p.tree.paths or part.words != words else name


def _absent_file(p: Project, words: Sequence[str], folder: str) -> str | None:
    """The file that `python FILE` or `node FILE` names, where there is none."""
    if not re.fullmatch(r"python(?:3(?:\.\d+)?)?|node", words[0]) or {"-c", "-e", "-m", "-p"} & set(words):
        return None
    file = next((word for word in words[1:] if word.endswith((".py", ".js", ".mjs", ".cjs", ".ts"))), None)
    if file is None or "$" in file or file.startswith("/"):
        return None
    return None if posixpath.normpath(posixpath.join(folder, file)) in p.tree.paths else file


def _script(p: Project, inner: Unwrapped) -> str | None:
    """The command behind a script of a Python project's own (`pipenv run start`, `uv run serve`)."""
    name = inner.words[0] if inner.words else ""
    if not inner.runner or command_line.is_known(name):
        return None
    if p.tree.has("Pipfile") and (text := strings(p.tree.toml("Pipfile").get("scripts")).get(name)):
        return text
    if not p.tree.has("pyproject.toml"):
        return None
    data = p.tree.toml("pyproject.toml")
    tool = table(data.get("tool"))
    own = table(table(tool.get("pdm")).get("scripts")).get(name)
    own = table(own).get("cmd") if isinstance(own, dict) else own
    if isinstance(own, str):
        return own
    named = table(data.get("project")).get("scripts"), table(tool.get("poetry")).get("scripts")
    target = next((found for scripts in named if (found := strings(scripts).get(name))), "")
    module, _, function = target.partition(":")
    if not re.fullmatch(r"[\w.]+", module) or not re.fullmatch(r"\w+", function):
        return None
    beside = "PYTHONPATH=src " if f"src/{module.partition('.')[0]}" in p.tree.folders else ""
    return f"{beside}python3 -c 'from {module} import {function}; {function}()'"
