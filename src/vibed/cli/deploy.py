"""`vibed deploy [DIR]`: pack a folder, send it, wait until it is live."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from vibed.apps import ids
from vibed.cli import output
from vibed.cli.client import Client, Refused, Unreachable
from vibed.cli.link import Link, Usage, read_link, write_link
from vibed.cli.output import Progress
from vibed.cli.settled import told, wait_until_settled

_TRIES = 3


def deploy(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that holds the app")] = Path(),
    name: Annotated[str | None, typer.Option(help="The app's name; the folder's name when left out")] = None,
    update: Annotated[bool, typer.Option("--update", help="Update your app of that name from this folder")] = False,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", metavar="K=V", help="Set a variable; repeat")] = None,
    template: Annotated[str | None, typer.Option(help="The runtime to use instead of the one that is found")] = None,
    entrypoint: Annotated[str | None, typer.Option(help="What to start instead of what is found")] = None,
    port: Annotated[int | None, typer.Option(help="The value of PORT; found by itself when left out")] = None,
    warm: Annotated[bool | None, typer.Option("--warm/--no-warm", help="May start in a warm process")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the app is live")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most")] = 900.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Put a folder at a live URL."""
    folder = directory.resolve()
    if not folder.is_dir():
        raise Usage(f"{directory} is not a folder", hint="give the folder that holds the app")
    client = Client()
    link = read_link(folder, client.url)
    if link is not None and name is not None and name != link.app_id:
        link = None
    app_id = name or (link.app_id if link else ids.nearest(folder.name))
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
        metadata["env"] = _env(env, client, app_id if metadata["if_exists"] == "update" else None)
    with Progress(quiet=as_json) as progress:
        try:
            body = _send(client, folder, metadata, progress)
        except Refused as error:
            raise _explained(error, app_id, named=name is not None) from error
        write_link(folder, wanted)
        if wait:
            body = wait_until_settled(client, body, progress, timeout_s=timeout)
    raise typer.Exit(told(body, as_json=as_json, waited=wait))


def _send(client: Client, folder: Path, metadata: dict[str, Any], progress: Progress) -> dict[str, Any]:
    from vibed.sources.pack import pack_directory

    progress.say(f"packing {folder.name}")
    with tempfile.TemporaryFile() as source:
        packed = pack_directory(folder, source)
        size = source.seek(0, os.SEEK_END)
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


def _env(given: list[str], client: Client, app_id: str | None) -> list[dict[str, str]]:
    """What was given on top of what the app has."""
    env: dict[str, str] = {}
    if app_id is not None:
        try:
            app = client.get(f"/v1/apps/{app_id}")
            version = client.get(f"/v1/apps/{app_id}/versions/{app['version']}")
            env = {item["name"]: item["value"] for item in version["env"]}
        except Refused as error:
            if error.error_code != "NotFound":
                raise
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise Usage(f"--env takes NAME=VALUE, not {item!r}", hint="e.g. --env DEBUG=1")
        env[name] = value
    return [{"name": name, "value": value} for name, value in env.items()]


def _explained(error: Refused, app_id: str, *, named: bool) -> Refused | Usage:
    other = "another --name" if named else "--name NAME"
    if error.error_code == "AlreadyExists":
        return Usage(
            f"you already have an app {app_id!r}, and this folder is not linked to it",
            hint=f"`vibed deploy --update` makes this folder its next version; `vibed deploy {other}` makes a new app",
            details={"app_id": app_id, "code": "AlreadyExists"},
        )
    if error.error_code == "NameTaken":
        return Refused(error.message, code="NameTaken", status=409, hint=f"use {other}", details={"app_id": app_id})
    return error
