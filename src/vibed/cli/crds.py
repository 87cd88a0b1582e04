"""`vibed crds`: the definition of a VibedApp, for a cluster."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from vibed.cli import output
from vibed.cli.apps import Json
from vibed.cluster import definition
from vibed.cluster.client import Client
from vibed.cluster.definition import Applied

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Bring vibeD's definitions into a cluster, or show them. Helm installs them and never changes them again.",
)

_SAID = {
    "created": "created",
    "changed": "changed",
    "unchanged": "as it should be",
    "kept": "left as it is: it is newer than this vibeD's, and serves it too (--downgrade replaces it)",
}


@app.command("apply")
def apply(
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Of the cluster; else the pod's own, else KUBECONFIG", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing")] = False,
    downgrade: Annotated[
        bool, typer.Option("--downgrade", help="Replace a newer definition, unless apps would lose something")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring the definitions into the cluster and wait until they are served; says what has changed."""
    done = asyncio.run(_apply(kubeconfig, dry_run=dry_run, downgrade=downgrade))
    name = definition.ours()["metadata"]["name"]
    if as_json:
        output.show_json({"name": name, "action": done.action, "changes": list(done.changes), "schema": done.schema})
        return
    would = "would be " if dry_run and done.action in ("created", "changed") else ""
    sys.stdout.write(f"{name}: {would}{_SAID[done.action]}\n")
    for change in done.changes:
        sys.stdout.write(f"  {output.printable(change)}\n")


@app.command("show")
def show() -> None:
    """Print the definitions as YAML, as `kubectl apply --server-side -f -` takes them."""
    sys.stdout.write(definition.FILE.read_text())


async def _apply(kubeconfig: Path | None, *, dry_run: bool, downgrade: bool) -> Applied:
    client = Client.connect(kubeconfig=kubeconfig)
    try:
        return await definition.apply(client, dry_run=dry_run, downgrade=downgrade)
    finally:
        await client.close()
