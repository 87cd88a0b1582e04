"""Errors as shells and `env` write them, and as the agent does of a program that it cannot start."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vibed.sandboxes.diagnosis.fault import Fault, Place, one_line, own

_SHELL = re.compile(
    r"^(?P<script>(?:/\S+/|\./)?(?:sh|bash|dash|ash|\S+\.sh|\S+)): (?:line )?(?:(?P<line>\d+): )?(?:exec: |eval: )?"
    r"(?P<what>\S.*?): (?P<why>not found|command not found|inaccessible or not found|Permission denied"
    r"|Exec format error|No such file or directory|cannot execute: required file not found|unbound variable"
    r"|parameter not set(?: or null)?|cannot execute binary file: Exec format error|bad interpreter.*)$"
)
_SHELLS = re.compile(r"(?:^|/)(?:sh|bash|dash|ash|busybox)$|\.sh$|/app/\S+$|^\./\S+$")
_CD = re.compile(r"^(\S+: (?:line )?(?:\d+: )?cd: .+)$")
_ENV = re.compile(r"^(?:/usr/bin/)?env: (?:can't execute )?[‘'\"]?(?P<what>[^’'\":]+)[’'\"]?: (?P<why>.+)$")
_SYNTAX = re.compile(r"^(\S+: (?:line )?\d+: [Ss]yntax error.+)$")
_AGENT = re.compile(
    r"^(?:StartFailed: |BuildFailed: )?(?:the app could not be started: |build step .+?: )?run (?P<what>\S+): "
    r"(?P<why>.+)$"
)


def faults(lines: Sequence[str]) -> Iterator[Fault]:
    """The errors in prepared lines, in their order."""
    for at, line in enumerate(lines):
        place: Place | None = None
        if (match := _SHELL.match(line)) and _SHELLS.search(match["script"]):
            script = match["script"].removeprefix("./")
            if match["line"] and not re.search(r"(?:^|/)(?:sh|bash|dash|ash)$", script):
                place = own(script if script.startswith("/") else f"/app/{script}", match["line"])
        elif not (_ENV.match(line) or _AGENT.match(line) or _CD.match(line) or _SYNTAX.match(line)):
            continue
        yield Fault(at, at + 1, one_line([line]), place, (line,))


def program(fault: Fault) -> tuple[str, str] | None:
    """The program (or variable, or file) that the error is about, and what is said of it."""
    line = fault.context[0] if fault.context else fault.text
    match = _ENV.match(line) or _AGENT.match(line)
    if match is None and (match := _SHELL.match(line)) and not _SHELLS.search(match["script"]):
        return None
    return (match["what"], match["why"]) if match else None
