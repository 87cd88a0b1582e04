"""Programs that only start another one, and what they start: `uv run gunicorn …`, `exec env X=1 node …`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vibed.classify.shell_text import is_assignment

_RUNNERS = {
    ("uv", "run"): frozenset(
        {"--with", "--with-requirements", "--with-editable", "-p", "--python", "--env-file", "--extra", "--group",
         "--only-group", "--no-group", "--package", "--project", "--index", "--index-url", "--cache-dir"}
    ),
    ("poetry", "run"): frozenset[str](),
    ("pipenv", "run"): frozenset[str](),
    ("pdm", "run"): frozenset({"-p", "--project"}),
    ("rye", "run"): frozenset[str](),
    ("hatch", "run"): frozenset[str](),
    ("pixi", "run"): frozenset({"-e", "--environment"}),
    ("conda", "run"): frozenset({"-n", "--name", "-p", "--prefix"}),
    ("doppler", "run"): frozenset({"-p", "--project", "-c", "--config", "-t", "--token"}),
    ("infisical", "run"): frozenset({"--env", "--path", "--projectId"}),
    ("op", "run"): frozenset({"--env-file"}),
    ("npm", "exec"): frozenset({"-p", "--package"}),
    ("pnpm", "exec"): frozenset[str](),
    ("pnpm", "dlx"): frozenset[str](),
    ("yarn", "exec"): frozenset[str](),
    ("yarn", "dlx"): frozenset[str](),
    ("newrelic-admin", "run-program"): frozenset[str](),
}  # fmt: skip
"""Programs that run another in an environment that they make, which is the template here; with the options of theirs
that take a value."""
_PREFIXES = {
    "exec": frozenset[str](), "env": frozenset({"-u", "-C", "-S"}), "cross-env": frozenset[str](),
    "cross-env-shell": frozenset[str](), "npx": frozenset({"-p", "--package"}), "bunx": frozenset[str](),
    "nohup": frozenset[str](), "time": frozenset[str](), "sudo": frozenset({"-u", "-g"}), "nice": frozenset({"-n"}),
    "tini": frozenset[str](), "dumb-init": frozenset[str](), "ddtrace-run": frozenset[str](),
    "opentelemetry-instrument": frozenset[str](), "dotenv": frozenset({"-e", "-f", "--file", "-v"}),
    "dotenvx": frozenset({"-f"}), "env-cmd": frozenset({"-f", "--file", "-e", "--environments"}),
    "stdbuf": frozenset({"-i", "-o", "-e"}), "command": frozenset[str](),
}  # fmt: skip
_READ_FILES = frozenset({"dotenv", "dotenvx", "env-cmd"})
"""Those that read variables from a file, `.env` unless they are told another."""
_PYTHON = frozenset({"uv", "rye", "pdm", "hatch", "pixi"})
"""Those that start a Python file by its name alone."""
_MOST = 8


@dataclass(frozen=True)
class Unwrapped:
    """What is left of a command."""

    words: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    """Variables that were set for it."""
    folder: str = ""
    """Where it is to run, relative to where the wrapper does (`uv run --directory server …`)."""
    skipped: int = 0
    """How many words of the command were taken off; the words that are left are as they were when it is not None."""
    runner: str = ""
    """The environment's program, `uv` of `uv run`; whose scripts may be meant."""
    rewritten: bool = False
    """Whether a word was put before what was left."""
    env_file: str = ""
    """A file of variables that was to be read for it."""


def unwrapped(words: Sequence[str]) -> Unwrapped:
    """The command without the programs that only start it."""
    env: dict[str, str] = {}
    words = list(words)
    at, folder, runner, env_file = 0, "", "", ""
    module = False
    for _ in range(_MOST):
        before = at
        while at < len(words) and is_assignment(words[at]):
            name, _, value = words[at].partition("=")
            env[name] = value
            at += 1
        valued: frozenset[str] | None = None
        if tuple(words[at : at + 2]) in _RUNNERS:
            runner = words[at]
            valued = _RUNNERS[words[at], words[at + 1]]
            at += 2
        elif at < len(words) and words[at].rpartition("/")[2] in _PREFIXES:
            valued = _PREFIXES[words[at].rpartition("/")[2]]
            if words[at] in _READ_FILES:
                runner, env_file = words[at], ".env"
            at += 1
        if valued is not None:
            while at < len(words) and words[at].startswith("-"):
                option, equals, value = words[at].partition("=")
                at += 1
                if option == "--":
                    break
                if runner in _PYTHON and option in ("-m", "--module"):
                    module = True
                    break
                if not equals and (option in valued or option == "--directory"):
                    value = words[at] if at < len(words) else ""
                    at += 1
                if option == "--directory":
                    folder = value
                elif option == "--env-file" or (env_file and option in ("-e", "-f", "--file")):
                    env_file = value
            if runner in _READ_FILES and words[at : at + 1] == ["run"]:
                at += 1
                at += words[at : at + 1] == ["--"]
        if at == before:
            break
    left = tuple(words[at:])
    added: tuple[str, ...] = ()
    if module:
        added = ("python3", "-m")
    elif runner in _PYTHON and left and left[0].endswith(".py"):
        added = ("python3",)
    return Unwrapped(added + left, env, folder, at, runner, bool(added), env_file)
