"""`vibed crds`: the definition of a VibedApp, for a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from vibed.cli import output
from vibed.cli.apps import Json
from vibed.cluster import definition
from vibed.cluster.client import Client
from vibed.cluster.definition import Applied
from vibed.cluster.errors import KubeNotFound
from vibed.cluster.kinds import VIBED_APP
from vibed.config import load

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


@app.command("clear")
def clear(
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Of the cluster; else the pod's own, else KUBECONFIG", show_default=False)
    ] = None,
    within: Annotated[float, typer.Option(help="Seconds that the controller is given")] = 90.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
) -> None:
    """Delete every VibedApp of the apps' namespace, as the chart does before it goes: what takes an app away goes, too.

    What the controller has not taken away in time loses what holds it, and goes with its namespace.
    """
    namespace = load().apps_namespace
    if not yes and not typer.confirm(f"Delete every app in the namespace {namespace}?"):
        raise typer.Exit(1)
    there, left = asyncio.run(_clear(kubeconfig, namespace, within))
    sys.stdout.write(f"{there} apps deleted" + (f", {left} of them without their controller\n" if left else "\n"))


async def _clear(kubeconfig: Path | None, namespace: str, within_s: float) -> tuple[int, int]:
    client = Client.connect(kubeconfig=kubeconfig, namespace=namespace)
    try:
        there = [app["metadata"]["name"] for app in (await client.objects(VIBED_APP)).items]
        for name in there:
            await client.delete(VIBED_APP, name)
        left = there
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while left:
                    await asyncio.sleep(1.0)
                    left = [app["metadata"]["name"] for app in (await client.objects(VIBED_APP)).items]
        for name in left:
            with contextlib.suppress(KubeNotFound):
                await client.patch(VIBED_APP, name, {"metadata": {"finalizers": None}})
        return len(there), len(left)
    finally:
        await client.close()


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
