"""What a script of package.json comes to: one command, or several as one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from vibed.classify.decision import Decision
from vibed.sources.errors import quoted


@dataclass(frozen=True)
class Command:
    """What a script comes to."""

    argv: tuple[str, ...] = ()
    shell: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    """Where it runs, below the root; the files of `argv` are relative to it."""
    file: str = ""
    """The file that it starts, from the root on."""
    notes: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    """What was to run beside it and cannot here."""


def decision(command: Command, why: str) -> Decision:
    """The decision for a command."""
    argv, shell = command.argv, command.shell
    if command.folder:
        argv, shell = (), _line(replace(command, env={}), last=True)
    return Decision(
        kind="node", argv=argv, shell=shell, env=dict(command.env), entrypoint=shell or " ".join(argv), why=why,
        notes=command.notes,
    )  # fmt: skip


def beside_each_other(found: Sequence[tuple[str, Command | None]]) -> Command | None:
    """Commands that run at the same time as one; what cannot run here is left out, and told."""
    known = [command for _, command in found if command]
    if not known:
        return None
    left = [text for text, command in found if command is None]
    notes = tuple(note for command in known for note in command.notes)
    if left:
        notes += (f"not started here: {', '.join(map(quoted, left[:5]))} of the start script",)
    if len(known) == 1:
        return replace(known[0], notes=notes, left=(*known[0].left, *left))
    lines = [*(_line(command, last=False) for command in known[:-1]), _line(known[-1], last=True)]
    return Command(shell=" & ".join(lines), file=known[-1].file, notes=notes, left=tuple(left))


def in_order(known: Sequence[Command]) -> Command:
    """Commands of which each begins when the one before it has succeeded, as one."""
    if len(known) == 1:
        return known[0]
    lines = [*(_line(command, last=False) for command in known[:-1]), _line(known[-1], last=True)]
    return Command(shell=" && ".join(lines), file=known[-1].file, notes=known[-1].notes)


def _line(command: Command, *, last: bool) -> str:
    """The command as text for a shell; the last one replaces the shell, so that signals reach it."""
    env = " ".join(f"{name}={shlex.quote(value)}" for name, value in command.env.items())
    if command.shell is not None:
        line = f"export {env}; {command.shell}" if env else command.shell
        return line if last else f"({line})"
    line = shlex.join(command.argv)
    moved = f"cd {shlex.quote(command.folder)} && " if command.folder else ""
    if last or moved:
        line = f"{moved}exec {f'env {env} ' if env else ''}{line}"
    elif env:
        line = f"{env} {line}"
    return f"({line})" if moved and not last else line
