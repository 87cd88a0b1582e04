"""`vibed keys` and `vibed whoami`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vibed.cli import output
from vibed.cli.apps import Json
from vibed.client.api import Client

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Create, list and revoke API keys.",
)


@app.command("create")
def create(
    owner: Annotated[str, typer.Argument(help="Whose apps the key deploys")],
    label: Annotated[str, typer.Option(help="What the key is for")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="It may see every app and make keys")] = False,
    as_json: Json = False,
) -> None:
    """Make a key; its secret is shown this once."""
    made = Client().call("POST", "/v1/keys", body={"owner": owner, "label": label, "admin": admin}).body
    if as_json:
        output.show_json(made)
        return
    sys.stderr.write(f"key {made['key_id']} of {made['owner']}; this is the only time its secret is shown:\n")
    sys.stdout.write(f"{made['secret']}\n")


@app.command("list")
def list_keys(as_json: Json = False) -> None:
    """List all keys."""
    page = Client().get("/v1/keys")
    if as_json:
        output.show_json(page)
        return
    output.table(
        ("KEY", "OWNER", "ADMIN", "CREATED", "LAST USED", "LABEL"),
        (
            [
                key["key_id"],
                key["owner"],
                "yes" if key["admin"] else "no",
                f"{output.age(key['created_at'])} ago",
                f"{output.age(key['last_used_at'])} ago" if key["last_used_at"] else "never",
                *output.pick(key, "label"),
            ]
            for key in page["items"]
        ),
    )


@app.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(help="As `vibed keys list` shows it")], as_json: Json = False) -> None:
    """Make a key stop working."""
    Client().call("DELETE", f"/v1/keys/{key_id}")
    if as_json:
        output.show_json({"key_id": key_id, "revoked": True})
    else:
        sys.stderr.write(f"{key_id} does not work any more\n")


def whoami(as_json: Json = False) -> None:
    """Show whose key is used, and where."""
    client = Client()
    who = client.get("/v1/whoami")
    if as_json:
        output.show_json({**who, "url": client.url})
    else:
        sys.stdout.write(f"{who['owner']}{' (admin)' if who['admin'] else ''} at {client.url}, key {who['key_id']}\n")
