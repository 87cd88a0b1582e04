"""`vibed layers`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vibed.cli import output
from vibed.cli.apps import Json
from vibed.cli.link import Usage
from vibed.client.api import Client

_SHOWN = 4


def layers(
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="Show this one's packages")] = None,
    as_json: Json = False,
) -> None:
    """Show what was installed for apps: how large, how often made, when used. Needs an admin key."""
    items = Client().get("/v1/layers")["items"]
    if key is not None:
        items = [item for item in items if item["key"].startswith(key)]
        if len(items) != 1:
            found = "several layers begin" if items else "no layer begins"
            raise Usage(f"{found} with {key!r}", hint="`vibed layers` lists them")
    if as_json:
        output.show_json(items[0] if key is not None else {"items": items, "total": len(items)})
        return
    output.table(
        ("KEY", "TEMPLATE", "SIZE", "MADE", "TOOK", "BUILDS", "USED", "APPS", "PACKAGES"),
        (
            [
                item["key"][:12],
                item["template"],
                output.size(item["bytes"]),
                output.age(item["made_at"]),
                output.took(item["took_s"] * 1000),
                item["builds"],
                output.age(item["used_at"]),
                len(item["apps"]),
                _packages(item["packages"], private=item["private"]),
            ]
            for item in items
        ),
    )
    if key is not None:
        for package, version in sorted(items[0]["packages"].items()):
            sys.stdout.write(f"  {package} {version}\n")


def _packages(packages: dict[str, str], *, private: bool) -> str:
    names = sorted(packages)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}{' (one source only)' if private else ''}"
