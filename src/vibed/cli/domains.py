"""`vibed domains`: names of the user's own that lead to an app."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from vibed.cli import output
from vibed.cli.apps import Json
from vibed.cli.link import app_or_linked
from vibed.client.api import Client

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Give an app domains of your own: add one, set the record it asks for, verify it.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The domain, e.g. www.example.com")]
App = Annotated[str | None, typer.Option("--app", help="The app; the one of this folder when left out")]


@app.command("add")
def add(name: Name, app_id: App = None, as_json: Json = False) -> None:
    """Have a domain wait for its record."""
    client = Client()
    made = client.call("POST", f"{_domains(client, app_id)}", body={"name": name}).body
    if as_json:
        output.show_json(made)
        return
    if made["verified"]:
        sys.stderr.write(f"{made['name']} leads to {made['app_id']} already: {made['url']}\n")
        return
    record = made["record"]
    sys.stderr.write(f"set this record where the DNS of {made['name']} is kept, and lead the name itself here:\n")
    sys.stdout.write(f'{record["name"]}. {record["type"]} "{record["text"]}"\n')
    sys.stderr.write(f"then: vibed domains verify {made['name']} --app {made['app_id']}\n")


@app.command("verify")
def verify(name: Name, app_id: App = None, as_json: Json = False) -> None:
    """Look for the record; when it is there, the domain leads to the app."""
    client = Client()
    found = client.call("POST", f"{_domains(client, app_id)}/{name}/verify").body
    if as_json:
        output.show_json(found)
        return
    sys.stderr.write(
        f"{found['name']} leads to {found['app_id']}; its first visitor waits some seconds for the certificate\n"
    )
    sys.stdout.write(f"{found['url']}\n")


@app.command("list")
def list_domains(app_id: App = None, as_json: Json = False) -> None:
    """List an app's own domains."""
    client = Client()
    page = client.get(_domains(client, app_id))
    if as_json:
        output.show_json(page)
        return
    if not page["items"]:
        sys.stderr.write("no domains yet; `vibed domains add NAME` adds one\n")
        return
    output.table(("DOMAIN", "STATE", "ADDED", "RECORD"), (_row(domain) for domain in page["items"]))


@app.command("remove")
def remove(name: Name, app_id: App = None, as_json: Json = False) -> None:
    """Have a domain lead nowhere; it is free again."""
    client = Client()
    client.call("DELETE", f"{_domains(client, app_id)}/{name}")
    if as_json:
        output.show_json({"name": name, "removed": True})
    else:
        sys.stderr.write(f"{name} leads nowhere any more\n")


def _row(domain: dict[str, Any]) -> list[str]:
    record = domain["record"]
    state = "verified" if domain["verified"] else "waits for its record"
    return [
        domain["name"],
        state,
        f"{output.age(domain['created_at'])} ago",
        f'{record["name"]} {record["type"]} "{record["text"]}"',
    ]


def _domains(client: Client, app_id: str | None) -> str:
    return f"/v1/apps/{app_or_linked(app_id, client.url)}/domains"
