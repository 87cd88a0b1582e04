"""The `vibed` command: finds the command that was called and imports no other."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from vibed.cli.registry import ENTRIES, PROCESSES, Entry

_HEAD = "From the app an AI assistant just wrote to a live URL in seconds, in a governed sandbox."
USAGE = 2

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)

_MEANT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("list", "ls", "ps"), ("apps",)),
    **dict.fromkeys(("rm", "remove", "destroy", "del"), ("delete",)),
    "stop": ("delete", "down"),
    "start": ("up", "deploy"),
    "restart": ("redeploy",),
    **dict.fromkeys(("push", "publish", "create", "run", "update"), ("deploy",)),
    **dict.fromkeys(("info", "show"), ("status",)),
    **dict.fromkeys(("undo", "revert"), ("rollback",)),
    "history": ("versions",),
    "url": ("open",),
    "login": ("keys",),
    "uninstall": ("clean",),
}
"""What other tools call it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exit statuses: 0 well, 1 failed, 2 wrong usage, 3 vibeD not reachable, 4 key refused."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["help"] and len(given) > 1:
        given = [*given[1:], "--help"]
    if not given or given[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        sys.exit(0 if given else USAGE)
    name = "version" if given[0] == "--version" else given[0]
    entry = next((entry for entry in ENTRIES if entry.name == name), None)
    if entry is None:
        _unknown(name)
    _run(entry, given[1:])


def overview() -> str:
    """What `vibed --help` shows; comes from the registry, so nothing is imported for it."""
    lines = ["Usage: vibed COMMAND [OPTIONS] [ARGS]...", "", f"  {_HEAD}", ""]
    width = max(len(entry.name) for entry in ENTRIES)
    for section in dict.fromkeys(entry.section for entry in ENTRIES):
        lines.append(f"{section}:")
        lines += [f"  {entry.name:<{width}}  {entry.help}" for entry in ENTRIES if entry.section == section]
        lines.append("")
    lines += ["`vibed COMMAND --help` explains a command.", ""]
    return "\n".join(lines)


def _unknown(name: str) -> NoReturn:
    import difflib

    near = _MEANT.get(name) or difflib.get_close_matches(name, [entry.name for entry in ENTRIES], 1)
    meant = " or ".join(f"`vibed {command}`" for command in near)
    sys.stderr.write(f"there is no command {name!r}{f'; did you mean {meant}?' if meant else ''}\n")
    sys.exit(USAGE)


def _run(entry: Entry, arguments: list[str]) -> None:
    from vibed.apps.errors import VibedError

    try:
        target = getattr(importlib.import_module(entry.module), entry.attribute)
        if entry.module == PROCESSES and not arguments:
            target()
        else:
            _parse(entry, target, arguments)
    except VibedError as error:
        from vibed.cli.output import fail

        if error.hint and error.hint.startswith("list your apps"):
            error.hint = "`vibed apps` lists your apps"  # the API does not know who asks
        sys.exit(fail(error, as_json="--json" in arguments))
    except OSError as error:
        if error.errno not in _DISK:
            raise
        from vibed.cli.output import fail

        # without a name it is standard output
        where = f" ({error.filename})" if error.filename else ""
        full = VibedError(
            f"the disk cannot be written: {os.strerror(error.errno)}{where}",
            code="StorageFailed",
            hint="free some space, or see the machine's kernel log, then try again",
        )
        sys.exit(fail(full, as_json="--json" in arguments and bool(where)))


def _parse(entry: Entry, target: Any, arguments: list[str]) -> None:
    import typer

    if not isinstance(target, typer.Typer):
        made = typer.Typer(
            add_completion=False,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        made.command(entry.name)(target)
        target = made
    typer.main.get_command(target).main(arguments, prog_name=f"vibed {entry.name}")


if __name__ == "__main__":
    main()
