"""`vibed source`: what was deployed."""

from __future__ import annotations

import base64
import sys
from typing import Annotated

import typer

from vibed.cli import output
from vibed.cli.apps import Json
from vibed.cli.link import app_or_linked
from vibed.client.api import Client


def source(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH]...", help="Files to print, or folders; all are listed without")
    ] = None,
    app: Annotated[str | None, typer.Option("--app", help="The app; the one of this folder when left out")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Another version than the newest")] = None,
    as_json: Json = False,
) -> None:
    """List an app's files as they were deployed, or print some of them."""
    client = Client()
    app_id = app_or_linked(app, client.url)
    query = {"format": "json", "version": version, "path": paths or None}
    found = client.call("GET", f"/v1/apps/{app_id}/source", query=query).body
    if as_json:
        output.show_json(found)
        return
    if not paths:
        output.table(("SIZE", "FILE"), ([output.size(file["size"]), file["path"]] for file in found["files"]))
        return
    for file in found["files"]:
        if len(found["files"]) > 1:
            sys.stderr.write(f"{file['path']}:\n")
        text = file.get("text")
        content = base64.b64decode(file["base64"]) if text is None else text.encode()
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    for path in found["left_out"]:
        sys.stderr.write(f"{path} had no room in one answer: name it alone\n")
