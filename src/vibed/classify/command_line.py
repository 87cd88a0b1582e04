"""Start commands as projects write them down: where they stand, what they start, and whether they need a shell."""

from __future__ import annotations

import re
import shlex

from vibed.classify.tree import Tree

COMMANDS = {
    "python": "python", "python3": "python", "gunicorn": "python", "uvicorn": "python", "hypercorn": "python",
    "flask": "python", "streamlit": "python", "waitress-serve": "python", "daphne": "python", "granian": "python",
    "fastapi": "python", "chainlit": "python", "panel": "python", "shiny": "python", "django-admin": "python",
    "node": "node", "npm": "node", "npx": "node", "yarn": "node", "pnpm": "node", "tsx": "node", "nodemon": "node",
    "go": "go",
}  # fmt: skip
"""The kind of app that a command belongs to."""

_AS_MODULES = {
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
    "vendor/bin/heroku-php-apache2": "PHP", "dotnet": ".NET", "cargo": "Rust", "mix": "Elixir", "bun": "Bun",
    "deno": "Deno", "rscript": "R", "julia": "Julia", "perl": "Perl",
}  # fmt: skip
_PROCFILE = re.compile(r"^web[ \t]*:[ \t]*(\S.*)$", re.MULTILINE)
_CMD = re.compile(r"^(?:CMD|ENTRYPOINT)[ \t]+(\S.*)$", re.MULTILINE | re.IGNORECASE)


def procfile(tree: Tree) -> str | None:
    """The `web` line of a Procfile: a shell command."""
    match = _PROCFILE.search(tree.text("Procfile")) if tree.has("Procfile") else None
    return match[1].strip()[:4000] if match else None


def hidden_command(tree: Tree) -> tuple[str, str] | None:
    """A start command in another service's file: (command, file)."""
    if tree.has("startup.txt"):
        line = tree.text("startup.txt").strip().splitlines()[:1]
        if line and line[0].strip():
            return line[0].strip()[:4000], "startup.txt"
    found = _CMD.findall(tree.text("Dockerfile")[:65536]) if tree.has("Dockerfile") else []
    if found:
        text = found[-1].strip()[:4000]
        if text[0] == "[":
            words = re.findall(r'"((?:[^"\\]|\\.){0,500})"', text)
            return (shlex.join(words), "Dockerfile") if words else None
        return text, "Dockerfile"
    return None


def kind_of(command: str) -> tuple[str | None, str | None]:
    """The kind of app that a shell command starts, or the language that is not supported: (kind, language)."""
    for part in re.split(r"&&|\|\||;|\n", command):
        try:
            words = shlex.split(part)
        except ValueError:
            words = part.split()
        while words and (
            re.match(r"[A-Za-z_]\w*=", words[0]) or words[0] in ("exec", "env", "cd", "nohup", "time", "sudo")
        ):
            words = words[2:] if words[0] == "cd" else words[1:]
        if not words:
            continue
        first = words[0].rpartition("/")[2]
        if first in COMMANDS or re.fullmatch(r"python3?(\.\d+)?", first):
            return COMMANDS.get(first, "python"), None
        if words[0].lower() in _FOREIGN_COMMANDS or first.lower() in _FOREIGN_COMMANDS:
            return None, _FOREIGN_COMMANDS.get(words[0].lower()) or _FOREIGN_COMMANDS[first.lower()]
        if words[0].startswith("./") or first in ("sh", "bash"):
            return "binary", None
    return None, None


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
    if words[0] in _AS_MODULES:
        return ("python3", "-m", *words)
    if words[0] == "python":
        words[0] = "python3"
    return tuple(words)
