"""`vibed deploy [DIR]`: pack a folder, send it, wait until it is live."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from vibed.apps import ids
from vibed.cli import output
from vibed.cli.link import Link, Usage, is_output_name, project_of, read_link, write_link
from vibed.cli.output import Progress
from vibed.cli.settled import told
from vibed.client.api import Client
from vibed.client.connection import Refused, Unreachable
from vibed.client.waiting import wait_until_settled

if TYPE_CHECKING:
    from vibed.sources.pack import Packed

_TRIES = 3
_SHOWN = 5


def deploy(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that holds the app")] = Path(),
    name: Annotated[
        str | None, typer.Option(help="The app's name; the folder's when left out, for dist and its like the project's")
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Update your app of that name from this folder")] = False,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="K=V", help="Set a variable, or remove it: -K; repeat")
    ] = None,
    template: Annotated[str | None, typer.Option(help="The runtime to use instead of the one that is found")] = None,
    entrypoint: Annotated[str | None, typer.Option(help="What to start instead of what is found")] = None,
    port: Annotated[int | None, typer.Option(help="The value of PORT; found by itself when left out")] = None,
    warm: Annotated[bool | None, typer.Option("--warm/--no-warm", help="May start in a warm process")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the app is live")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most")] = 900.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Also when it is a home folder")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Put a folder at a live URL."""
    folder = directory.resolve()
    if not folder.is_dir():
        raise Usage(f"{directory} is not a folder", hint="give the folder that holds the app")
    from vibed.sources.pack import Why, has_home, pack_directory

    if not yes and has_home(folder):
        raise Usage(
            f"{folder} is a home folder, or has one in it: all that lies there would be sent",
            hint="give the folder that holds the app, or --yes when this is it",
        )
    client = Client()
    link = read_link(folder, client.url)
    if link is not None and name is not None and name != link.app_id:
        link = None
    app_id = name or (link.app_id if link else ids.nearest(project_of(folder).name))
    wanted = Link(
        app_id,
        client.url,
        template or (link.template if link else None),
        entrypoint or (link.entrypoint if link else None),
        port or (link.port if link else None),
        warm if warm is not None or link is None else link.warm,
    )
    metadata: dict[str, Any] = {"name": app_id, "if_exists": "update" if update or link is not None else "fail"}
    runtime = {"template": wanted.template, "entrypoint": wanted.entrypoint, "port": wanted.port, "warm": wanted.warm}
    if any(value is not None for value in runtime.values()):
        metadata["runtime"] = {key: value for key, value in runtime.items() if value is not None}
    if env:
        metadata |= {"env": _env(env), "env_mode": "merge"}
    with Progress(quiet=as_json) as progress, tempfile.TemporaryFile() as source:
        progress.say(f"packing {folder.name}")
        packed = pack_directory(folder, source, ask_limit=client.source_limit)
        left_out = {str(why): packed.left_out(why) for why in Why if why is not Why.NEVER}
        modules = _modules(folder, left_out[Why.PACKAGES])
        for line in _left_out(left_out[Why.GITIGNORE], left_out[Why.SECRET]):
            progress.note(line)
        try:
            body = _send(client, source, packed, metadata, progress)
        except Refused as error:
            again = shlex.join(["vibed", "deploy", *([] if directory == Path() else [str(directory)])])
            _explain_what_is_missing(error, packed, left_out[Why.GITIGNORE], modules)
            raise _explained(error, app_id, again, named=name is not None) from error
        try:
            write_link(folder, wanted)
        except OSError as error:
            progress.note(f"which app this folder is cannot be kept ({error}): deploy with --update the next time")
        if wait:
            body = wait_until_settled(client, body, progress.say, timeout_s=timeout)
    body["left_out"] = {why: paths for why, paths in left_out.items() if paths}
    status = told(body, as_json=as_json, waited=wait)
    lacking = body["phase"] == "Failed" and body["reason"] == "DependenciesMissing"
    if modules and lacking and _uses_modules(body["runtime"]["template"]) and not as_json:
        sys.stderr.write(f"hint: {modules}\n")
    raise typer.Exit(status)


def _send(
    client: Client, source: IO[bytes], packed: Packed, metadata: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    size = packed.compressed
    # The same key for every try: an answer that was lost does not make a second version.
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    what = f"{packed.files} files, {output.size(size)}"
    for attempt in range(_TRIES):
        source.seek(0)
        progress.say(f"sending {what}")
        try:
            return dict(
                client.upload(
                    "/v1/deploy",
                    metadata,
                    source,
                    size,
                    headers=headers,
                    progress=lambda sent: progress.say(
                        f"starting {metadata['name']}"
                        if sent >= size
                        else f"sending {output.size(sent)} of {output.size(size)}"
                    ),
                ).body
            )
        except (Unreachable, Refused) as error:
            if not error.may_retry or attempt == _TRIES - 1:
                raise
            progress.say(f"{error.message}; trying again")
            time.sleep(1.0 + attempt)
    raise AssertionError("unreachable")


def _left_out(ignored: Iterable[str], secret: Iterable[str]) -> list[str]:
    """What the user may miss, a line for each reason."""
    lines = []
    if found := sorted(ignored, key=lambda path: (not _is_env(path), not _is_output(path))):
        example = next(filter(_is_output, found), found[0])
        lines.append(f"left out (.gitignore): {_listed(found)}; e.g. {_brought_back(example)}")
    if found := list(secret):
        lines.append(f"never sent (private keys and credentials): {_listed(found)}")
    return lines


def _listed(paths: list[str]) -> str:
    more = f" … ({len(paths)} in all)" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more


def _is_env(path: str) -> bool:
    return path.rpartition("/")[2].startswith(".env")


def _is_output(path: str) -> bool:
    return path.endswith("/") and is_output_name(path.rstrip("/").rpartition("/")[2])


def _brought_back(path: str) -> str:
    return f"`!{path}` in .vibedignore sends it"


def _modules(folder: Path, packages: Iterable[str]) -> str | None:
    """What to do when a package is missing that an installed node_modules may have."""
    for path in packages:
        if path.endswith("node_modules/") and any((folder / path).iterdir()):
            return f"{path} was left out: {_brought_back(path)}"
    return None


def _uses_modules(template: object) -> bool:
    return str(template).startswith(("node", "workerd"))


def _env(given: list[str]) -> list[dict[str, str | None]]:
    """Variables that are set on top of what the app has; `-NAME` takes one away."""
    env: dict[str, str | None] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if item.startswith("-") and not equals and len(item) > 1:
            env[item[1:]] = None
            continue
        if not equals or not name:
            raise Usage(f"--env takes NAME=VALUE, or -NAME to remove it, not {item!r}", hint="e.g. --env DEBUG=1")
        env[name] = value
    return [{"name": name, "value": value} for name, value in env.items()]


def _explain_what_is_missing(error: Refused, packed: Packed, ignored: Iterable[str], modules: str | None) -> None:
    """Add to the hint what vibeD cannot know: what was left at home."""
    more = None
    if error.error_code == "BuildRequired":
        if path := _ignored_part(f"{error.extra.get('output')}/", ignored):
            more = f"{path} is there and .gitignore leaves it out: {_brought_back(path)}"
    elif error.error_code == "DependenciesMissing":
        more = modules if _uses_modules(error.extra.get("template")) else None
    elif error.http_status == 413:
        from vibed.sources.pack import largest_text

        more = f"the largest, before compression: {largest_text(packed.heaviest)}"
    if more:
        error.hint = f"{error.hint}; {more}" if error.hint else more


def _ignored_part(wanted: str, ignored: Iterable[str]) -> str | None:
    """What has to come back for the folder `wanted` to be sent, if git ignores it."""
    for path in ignored:
        if f"/{path}".endswith(f"/{wanted}") or wanted.startswith(path):
            return path
        if path.startswith(wanted):
            return wanted
    return None


def _explained(error: Refused, app_id: str, again: str, *, named: bool) -> Refused | Usage:
    other = "--name ANOTHER" if named else "--name NAME"
    if error.error_code == "AlreadyExists":
        update = f"{again} --name {app_id} --update" if named else f"{again} --update"
        return Usage(
            f"you already have an app {app_id!r}, and this folder is not linked to it",
            hint=f"`{update}` makes this folder its next version; `{again} {other}` makes a new app",
            details={"app_id": app_id, "code": "AlreadyExists"},
        )
    if error.error_code == "NameTaken":
        return Refused(error.message, code="NameTaken", status=409, hint=f"use {other}", details={"app_id": app_id})
    return error
