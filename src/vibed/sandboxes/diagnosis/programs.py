"""Programs that cannot be run: those that a start command or a script names, and those that an app runs itself."""

from __future__ import annotations

import re

from vibed.sandboxes.diagnosis import shell_errors
from vibed.sandboxes.diagnosis.about import About, Cause
from vibed.sandboxes.diagnosis.fault import Fault

_RUN_BY_IT = re.compile(
    r"^(?:Error: )?spawn (?P<node>[\w.+/-]+) ENOENT|exec: \"(?P<go>[^\"]+)\": executable file not found"
    r"|No such file or directory: '(?P<python>[\w.+-]+)'$"
)


def not_there(fault: Fault, about: About) -> Cause | None:
    """What a start command or a script names and cannot be run."""
    if (found := shell_errors.program(fault)) is None:
        return None
    what, why = found
    lowered = why.lower()
    if "unbound" in lowered or "parameter" in lowered:
        return None
    if "permission denied" in lowered and about.kind == "go" and what.startswith("/"):
        return Cause("is built to no program: its package is not `main`", "write `package main` with a `func main()`")
    if "permission denied" in lowered:
        return Cause(
            f"may not run {what}: it is not executable",
            f"send it with its mode (chmod +x {what}), or start it by its interpreter (`sh {what}`, `python {what}`)",
            complete=True,
        )
    if "exec format" in lowered or "cannot execute binary" in lowered:
        return Cause(
            f"cannot run {what}: it is a program for another kind of machine, or a script without its first line `#!`",
            "build it for Linux on x86-64 (GOOS=linux GOARCH=amd64), or give the script its `#!/bin/sh`",
            complete=True,
        )
    return Cause(f"cannot be started: the program {what} is not there", _program_hint(what, about), complete=True)


def run_by_the_app(fault: Fault, about: About) -> Cause | None:
    """A program that the app itself starts."""
    if (match := _RUN_BY_IT.search(fault.text)) is None:
        return None
    if match["python"] and not any("subprocess" in line for line in fault.context):
        return None
    name = match["node"] or match["go"] or match["python"]
    template = f"the template {about.template}" if about.template else "its template"
    return Cause(
        f"runs the program {name}, which {template} does not have",
        "do without it, or send a static build of it with the source and run that by its path",
        complete=True,
    )


def _program_hint(what: str, about: About) -> str:
    name = what.rpartition("/")[2]
    if name in ("poetry", "uv", "pipenv", "pdm", "hatch", "rye", "conda"):
        return f"{name} is not in the template: leave `{name} run` out of the start command, what it runs is there"
    if name in ("npm", "npx", "yarn", "pnpm", "bun", "bunx", "corepack"):
        return f"{name} is not in the template: write into the start command what it runs (`node server.js`)"
    if "/" in what or name.endswith((".sh", ".py", ".js")):
        return (
            "send it with the others, or mend the start command: nothing builds it here. A script whose first line"
            " names an interpreter that is not there (or ends in a carriage return) looks the same"
        )
    template = f" {about.template}" if about.template else ""
    return f"mend the start command, or choose a template that has it: {name} is not in the template{template}"
