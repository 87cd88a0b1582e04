"""`vibed layers` and what belongs to it."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vibed.cli import output
from vibed.cli.apps import Json
from vibed.cli.link import Usage
from vibed.cli.output import Progress
from vibed.client.api import Client
from vibed.sources import lock_files

_SHOWN = 4
_LOOK_EVERY_S = 1.0
_LISTS = (
    "package.json", *lock_files.NODE, "pnpm-workspace.yaml", ".yarnrc.yml", "pyproject.toml", "Pipfile",
    *lock_files.PYTHON, "setup.cfg", "environment.yml",
)  # fmt: skip
"""Beside `requirements*.txt` and `requirements.in`: what says which packages are wanted."""


class _Shows(TyperGroup):
    """`vibed layers` and `vibed layers KEY` show; anything else is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = next((word for word in args if not word.startswith("-")), None)
        if "--help" not in args and named not in self.commands:
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    add_completion=False,
    cls=_Shows,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Show what was installed for apps, or have it be made before one asks for it. Needs an admin key.",
)

Key = Annotated[str, typer.Argument(metavar="KEY", help="The layer's key, or how it begins")]


@app.command("show")
def show(
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="Show this one's packages")] = None,
    as_json: Json = False,
) -> None:
    """Show what was installed for apps: how large, how often made, when used. `show` may be left out."""
    client = Client()
    items = client.get("/v1/layers")["items"] if key is None else [_the(client, key)]
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
                _packages(item),
            ]
            for item in items
        ),
    )
    if key is not None:
        for package, version in sorted(items[0]["packages"].items()):
            sys.stdout.write(f"  {package} {version}\n")


@app.command("bake")
def bake(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Lists with their locks, or a folder of them")],
    template: Annotated[
        str | None, typer.Option(help="For which it is made; the usual one of its language when left out")
    ] = None,
    development: Annotated[bool, typer.Option("--dev", help="npm: with what an app is built with")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is there")] = True,
    as_json: Json = False,
) -> None:
    """Have layers made of lists of packages before an app asks for them; they stay until they are unpinned."""
    from vibed.sources.pack import pack_files

    packed = pack_files(_lists(paths))
    client = Client()
    metadata = {"development": development, **({"template": template} if template else {})}
    with Progress(quiet=as_json) as progress:
        items = client.upload("/v1/layers", metadata, io.BytesIO(packed), len(packed)).body["items"]
        while wait and any(item["state"] == "building" for item in items):
            progress.say("; ".join(f"{item['template']}: {item['message'] or item['state']}" for item in items))
            time.sleep(_LOOK_EVERY_S)
            items = [client.get(f"/v1/layers/bakes/{item['bake_id']}") for item in items]
    if as_json:
        output.show_json({"items": items, "total": len(items)})
    else:
        for item in items:
            told = item["key"][:12] if item["state"] == "ready" else item["state"]
            sys.stdout.write(f"{item['template']}: {told}{f' ({said})' if (said := item['message']) else ''}\n")
    raise typer.Exit(1 if any(item["state"] == "failed" for item in items) else 0)


@app.command("pin")
def pin(key: Key, as_json: Json = False) -> None:
    """Have a layer stay, however long it is unused."""
    _change("POST", key, "/pin", as_json=as_json)


@app.command("unpin")
def unpin(key: Key, as_json: Json = False) -> None:
    """Have a layer go when it is not used any more, as every other."""
    _change("POST", key, "/unpin", as_json=as_json)


@app.command("remove")
def remove(key: Key, as_json: Json = False) -> None:
    """Have a layer go now; not while an app has it."""
    _change("DELETE", key, "", as_json=as_json)


def _change(method: str, key: str, what: str, *, as_json: bool) -> None:
    client = Client()
    whole = _the(client, key)["key"]
    client.call(method, f"/v1/layers/{whole}{what}")
    if as_json:
        output.show_json({"key": whole})


def _the(client: Client, key: str) -> dict[str, Any]:
    found = [item for item in client.get("/v1/layers")["items"] if item["key"].startswith(key)]
    if len(found) != 1:
        what = "several layers begin" if found else "no layer begins"
        raise Usage(f"{what} with {key!r}", hint="`vibed layers` lists them")
    return dict(found[0])


def _lists(paths: list[Path]) -> dict[str, str | bytes]:
    """The files that are sent, by name."""
    found: dict[str, str | bytes] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.is_file())
            found |= {one.name: one.read_bytes() for one in inside if one.name in _LISTS or _is_requirements(one)}
        elif path.is_file():
            name = path.name if path.name in _LISTS or _is_requirements(path) else "requirements.txt"
            found[name] = path.read_bytes()
        else:
            raise Usage(f"there is no {path}", hint="give requirements.txt, package.json with its lock, or a folder")
    if not found:
        raise Usage("no list of packages is there", hint=f"for example requirements.txt or {_LISTS[0]}")
    return found


def _is_requirements(path: Path) -> bool:
    return path.name.startswith("requirements") and path.suffix in (".txt", ".in")


def _packages(item: dict[str, Any]) -> str:
    names = sorted(item["packages"])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    marks = [text for name, text in (("private", "one source only"), ("pinned", "pinned")) if item.get(name)]
    return f"{', '.join(names[:_SHOWN])}{more}{_marked(marks)}"


def _marked(marks: list[str]) -> str:
    return f" ({', '.join(marks)})" if marks else ""
