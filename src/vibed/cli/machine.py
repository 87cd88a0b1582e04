"""Commands that run on vibeD's own machine: bringing it up and down, and its processes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vibed.cli import output

Json = Annotated[bool, typer.Option("--json", help="Print JSON")]


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is up")] = False,
    as_json: Json = False,
    domain: Annotated[
        str | None,
        typer.Option("--domain", help="Apps at https://<id>.DOMAIN, by certificates; kept in vibed.toml"),
    ] = None,
) -> None:
    """Bring vibeD up on this machine; stays in the foreground unless --detach is given."""
    from vibed.cli.up import up as bring_up

    raise typer.Exit(bring_up(detach=detach, as_json=as_json, domain=domain))


def down(
    keep_apps: Annotated[bool, typer.Option("--keep-apps", help="Leave the apps running")] = False,
) -> None:
    """Stop vibeD and its sandboxes; data stays."""
    from vibed.cli.down import down as bring_down

    raise typer.Exit(bring_down(keep_apps=keep_apps))


def clean(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False) -> None:
    """Stop vibeD and remove all that it made on this machine."""
    from vibed.cli.down import clean as remove

    raise typer.Exit(remove(yes=yes))


def doctor(
    kubernetes: Annotated[bool, typer.Option("--kubernetes", help="Look at a cluster (that of KUBECONFIG)")] = False,
    runtime_class: Annotated[str, typer.Option(help="With --kubernetes: the RuntimeClass of sandboxes")] = "",
    node_label: Annotated[
        list[str] | None, typer.Option(help="With --kubernetes: KEY=VALUE of the nodes for sandboxes; may be repeated")
    ] = None,
    as_json: Json = False,
) -> None:
    """Explain what is missing on this machine, or in a cluster, and its cure."""
    if kubernetes:
        from vibed.cli.cluster_doctor import doctor as examine_cluster

        raise typer.Exit(examine_cluster(runtime_class=runtime_class, node_labels=node_label or (), as_json=as_json))
    from vibed.cli.doctor import doctor as examine

    raise typer.Exit(examine(as_json=as_json))


def mcp() -> None:
    """Serve MCP on standard input and output: give `vibed mcp` to an AI agent as its command."""
    from vibed.mcp.stdio import run

    run()


def version(as_json: Json = False) -> None:
    """Show vibeD's version."""
    from vibed import __version__

    if as_json:
        output.show_json({"version": __version__})
    else:
        sys.stdout.write(f"vibed {__version__}\n")
