"""`vibed templates`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from vibed.cli import output
from vibed.cli.apps import Json
from vibed.cli.link import Usage
from vibed.client.api import Client


def templates(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show this one's packages")] = None,
    as_json: Json = False,
) -> None:
    """Show the runtimes, how many sandboxes are warm, and what is in them."""
    items = Client().get("/v1/templates")["items"]
    if name is not None:
        items = [item for item in items if item["name"] == name]
        if not items:
            raise Usage(f"there is no template {name!r}", hint="`vibed templates` lists them")
    if as_json:
        output.show_json(items[0] if name is not None else {"items": items, "total": len(items)})
        return
    output.table(
        ("NAME", "LANE", "ISOLATION", "WARM", "IN USE", "STATE", "ABOUT"),
        (
            [
                *output.pick(item, "name", "lane", "isolation"),
                f"{item['ready']}/{item['warm_pool_size']}" if item["warm_pool_size"] else "-",
                item["claimed"],
                _state(item),
                item["description"] if item["available"] else item["reason"],
            ]
            for item in items
        ),
    )
    for limitation in limitations(items):
        sys.stderr.write(f"note: {limitation}\n")
    if name is not None:
        for package, version in sorted(items[0]["packages"].items()):
            sys.stdout.write(f"  {package} {version}\n")


def limitations(items: Iterable[Mapping[str, Any]]) -> list[str]:
    """What does not hold for the templates' sandboxes here, each once."""
    return list(dict.fromkeys(text for item in items for text in item.get("limitations", ())))


def _state(item: dict[str, Any]) -> str:
    if item["available"]:
        return "ready, adding packages" if item["building"] else "ready"
    if item.get("on_need"):
        return "on need"
    if not item["building"]:
        return "not available"
    return f"building {item['progress']:.0%}" if item.get("progress") is not None else "building"
