"""`vibed versions`, `rollback`, `redeploy`."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import typer

from vibed.cli import output
from vibed.cli.apps import App, Json
from vibed.cli.link import Usage, app_or_linked
from vibed.cli.output import Progress
from vibed.cli.settled import told
from vibed.client.api import Client
from vibed.client.waiting import wait_until_settled

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is live")]


def versions(
    app: App = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    as_json: Json = False,
) -> None:
    """List an app's versions, newest first."""
    client = Client()
    app_id = app_or_linked(app, client.url)
    page = client.get(f"/v1/apps/{app_id}/versions", limit=limit)
    if as_json:
        output.show_json(page)
        return
    output.table(
        ("VERSION", "PHASE", "REASON", "TEMPLATE", "BY", "WHEN", ""),
        (
            [
                item["version"],
                *output.pick(item, "phase", "reason"),
                item["runtime"]["template"],
                item["created_by"],
                f"{output.age(item['created_at'])} ago",
                ", ".join(_remarks(item)),
            ]
            for item in page["items"]
        ),
    )


def _remarks(item: dict[str, Any]) -> list[str]:
    remarks = ["serves"] if item["serving"] else []
    if item["rolled_back_from"]:
        remarks.append(f"is version {item['rolled_back_from']} again")
    return remarks


def rollback(
    first: Annotated[str, typer.Argument(metavar="[APP] VERSION", help="The version that is to serve again")],
    second: Annotated[str | None, typer.Argument(hidden=True)] = None,
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Make an earlier version serve again, as a new version."""
    client = Client()
    app, number = (first, second) if second is not None else (None, first)
    if not number.isascii() or not number.isdigit() or int(number) < 1:
        raise Usage(f"{number!r} is not a version", hint="`vibed versions` lists them: vibed rollback [APP] VERSION")
    app_id = app_or_linked(app, client.url)
    _change(client, f"/v1/apps/{app_id}/rollback", {"version": int(number)}, wait=wait, as_json=as_json)


def redeploy(app: App = None, wait: Wait = True, as_json: Json = False) -> None:
    """Deploy an app's current version again, as a new version."""
    client = Client()
    app_id = app_or_linked(app, client.url)
    _change(client, f"/v1/apps/{app_id}/redeploy", {}, wait=wait, as_json=as_json)


def _change(client: Client, path: str, body: dict[str, Any], *, wait: bool, as_json: bool) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    with Progress(quiet=as_json) as progress:
        progress.say("asking")
        answer: dict[str, Any] = client.call("POST", path, body=body, headers=headers).body
        if wait:
            answer = wait_until_settled(client, answer, progress.say, timeout_s=900)
    raise typer.Exit(told(answer, as_json=as_json, waited=wait))
