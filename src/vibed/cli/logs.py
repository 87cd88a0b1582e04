"""`vibed logs` and `vibed events`."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from vibed.cli import output
from vibed.cli.apps import App, Json
from vibed.cli.link import app_or_linked
from vibed.client.api import Client

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted")]


def logs(
    app: App = None,
    follow: Follow = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=0, help="The last N lines; all: leave out")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Show when a line was printed")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line")] = False,
) -> None:
    """Show what an app printed, across its runs."""
    client = Client()
    path = f"/v1/apps/{app_or_linked(app, client.url)}/logs"
    for event in client.stream(path, {"follow": follow, "tail": tail}, waiting=_note):
        _line(event.event, event.data, event.id, timestamps=timestamps, as_json=as_json)


def _line(kind: str, data: dict[str, Any], place: str | None, *, timestamps: bool, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({**data, "id": place}, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    text = output.printable(data["text"], lines=True)
    when = f"{datetime.fromtimestamp(data['ts']).astimezone():%Y-%m-%d %H:%M:%S} " if timestamps else ""
    if kind == "gap" or data["stream"] == "system":
        text = f"[vibed] {text}"
    sys.stdout.write(f"{when}{text}" if data.get("cont") else f"{when}{text}\n")
    sys.stdout.flush()


def events(
    app: App = None,
    follow: Follow = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=0, help="The last N events")] = None,
    as_json: Json = False,
) -> None:
    """Show what happened to an app."""
    client = Client()
    path = f"/v1/apps/{app_or_linked(app, client.url)}/events"
    for event in client.stream(path, {"follow": follow, "tail": tail}, waiting=_note):
        data = event.data
        if as_json:
            sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
        else:
            when = f"{datetime.fromisoformat(data['at']).astimezone():%Y-%m-%d %H:%M:%S}"
            mark = "!" if data["kind"] == "Warning" else " "
            version = f"v{data['version']}" if data["version"] else ""
            text = output.printable(data["message"], lines=True)
            sys.stdout.write(f"{when} {mark} {version:<4} {data['reason']:<22} {text}\n")
        sys.stdout.flush()


def _note(text: str) -> None:
    sys.stderr.write(f"[vibed] {text}\n")
