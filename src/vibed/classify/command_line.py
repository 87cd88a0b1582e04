"""Start commands as projects write them down: where they stand, what they start, and whether they need a shell."""

from __future__ import annotations

import re
import shlex

from vibed.classify import shell_text
from vibed.classify.node_tools import PROGRAMS
from vibed.classify.tree import Tree
from vibed.classify.wrappers import unwrapped

COMMANDS = {
    "python": "python", "python3": "python", "gunicorn": "python", "uvicorn": "python", "hypercorn": "python",
    "flask": "python", "streamlit": "python", "waitress-serve": "python", "daphne": "python", "granian": "python",
    "fastapi": "python", "chainlit": "python", "panel": "python", "shiny": "python", "django-admin": "python",
    "node": "node", "npm": "node", "npx": "node", "yarn": "node", "pnpm": "node", "tsx": "node", "nodemon": "node",
    "bun": "node", "bunx": "node",
    "go": "go",
}  # fmt: skip
"""The kind of app that a command belongs to."""

AS_MODULES = {
    "gunicorn",
    "uvicorn",
    "hypercorn",
    "flask",
    "streamlit",
    "daphne",
    "granian",
    "chainlit",
    "panel",
    "shiny",
}
_FOREIGN_COMMANDS = {
    "java": "Java or Kotlin", "mvn": "Java or Kotlin", "gradle": "Java or Kotlin", "ruby": "Ruby", "bundle": "Ruby",
    "rails": "Ruby", "puma": "Ruby", "php": "PHP", "heroku-php-apache2": "PHP",
    "vendor/bin/heroku-php-apache2": "PHP", "dotnet": ".NET", "cargo": "Rust", "mix": "Elixir",
    "deno": "Deno", "rscript": "R", "julia": "Julia", "perl": "Perl",
}  # fmt: skip
_PROCFILE = re.compile(r"^web[ \t]*:[ \t]*(\S.*)$", re.MULTILINE)
_PORT = re.compile(r"\$\{?PORT(?::?-\d+)?\}?")


def procfile(tree: Tree) -> str | None:
    """The `web` line of a Procfile: a shell command."""
    match = _PROCFILE.search(tree.text("Procfile")) if tree.has("Procfile") else None
    return match[1].strip()[:4000] if match else None


def kind_of(command: str) -> tuple[str | None, str | None]:
    """The kind of app that a shell command starts, or the language that is not supported: (kind, language)."""
    for words in _simple(command):
        if not words or words[0] == "cd":
            continue
        first = words[0].rpartition("/")[2]
        if first in COMMANDS or re.fullmatch(r"python3?(\.\d+)?", first):
            return COMMANDS.get(first, "python"), None
        if words[0].lower() in _FOREIGN_COMMANDS or first.lower() in _FOREIGN_COMMANDS:
            return None, _FOREIGN_COMMANDS.get(words[0].lower()) or _FOREIGN_COMMANDS[first.lower()]
        if words[0].startswith("./") or first in ("sh", "bash"):
            return "binary", None
    return None, None


def _simple(command: str) -> list[tuple[str, ...]]:
    """The words of each simple command, without what wraps them; by and large where it is more than that."""
    parts = shell_text.parse(command)
    if parts is not None:
        return [unwrapped(part.words).words for part in parts]
    return [unwrapped(part.split()).words for part in re.split(r"&&|\|\||[;&|\n]", command[: shell_text.LONGEST])]


def with_port(text: str, port: int) -> str:
    """With the number in the place of the variable PORT."""
    return _PORT.sub(str(port), text)


def is_known(program: str) -> bool:
    """Whether a program by this name is a shell's or a template's, or of a language that is known."""
    return (
        program in COMMANDS
        or program in AS_MODULES
        or program in PROGRAMS
        or program.lower() in _FOREIGN_COMMANDS
        or re.fullmatch(r"python(?:3(?:\.\d+)?)?", program) is not None
    )


def as_arguments(command: str) -> tuple[str, ...] | None:
    """A plain command as a list of arguments, so that it can start in a warm process; None when it needs a shell."""
    if re.search(r"[|&;<>()$`*?\[\]{}~#!\n]", command):
        return None
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    if not words or "=" in words[0]:
        return None
    if words[0] in AS_MODULES:
        return ("python3", "-m", *words)
    if words[0] == "python":
        words[0] = "python3"
    return tuple(words)
