"""`vibed apps`, `status`, `open`, `delete`."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from vibed.cli import output
from vibed.cli.link import Usage, app_or_linked
from vibed.cli.output import Progress
from vibed.client.api import Client
from vibed.client.connection import Refused

App = Annotated[str | None, typer.Argument(metavar="APP", help="The app; the one of this folder when left out")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON")]


def apps(
    q: Annotated[str | None, typer.Argument(metavar="TEXT", help="Part of a name")] = None,
    phase: Annotated[str | None, typer.Option(help="Only apps in this phase")] = None,
    owner: Annotated[str | None, typer.Option(help="Only this owner's (admin)")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    offset: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
) -> None:
    """List your apps by last deploy."""
    page = Client().get("/v1/apps", q=q, phase=phase, owner=owner, limit=limit, offset=offset)
    if as_json:
        output.show_json(page)
        return
    if not page["items"]:
        sys.stderr.write("no apps yet; `vibed deploy` makes one\n" if not page["total"] else "no more apps\n")
        return
    output.table(
        ("NAME", "PHASE", "VERSION", "TEMPLATE", "ISOLATION", "DEPLOYED", "URL"),
        (
            [
                app["app_id"],
                _phase(app["phase"], app["reason"]),
                _versions(app["version"], app["serving_version"]),
                app["runtime"]["template"],
                *output.pick(app, "isolation"),
                output.age(app["last_deployed_at"]),
                app["url"],
            ]
            for app in page["items"]
        ),
    )
    if page["total"] > offset + len(page["items"]):
        sys.stderr.write(f"{page['total']} in all; --offset {offset + len(page['items'])} shows more\n")


def _phase(phase: str, reason: str) -> str:
    """With what is not as usual: `Ready` alone serves what was deployed last."""
    return phase if reason in ("", phase, "Running") else f"{phase} ({reason})"


def _versions(wanted: int, serving: int | None) -> str:
    return str(wanted) if serving in (None, wanted) else f"{wanted} ({serving} serves)"


def status(app: App = None, as_json: Json = False) -> None:
    """Show how an app stands."""
    client = Client()
    found = client.get(f"/v1/apps/{app_or_linked(app, client.url)}")
    if as_json:
        output.show_json(found)
        return
    for name in ("app_id", "phase", "reason", "message", "url", "isolation", "owner"):
        if found[name]:
            sys.stdout.write(f"{name:<10} {output.printable(found[name], lines=True)}\n")
    sys.stdout.write(f"{'version':<10} {_versions(found['version'], found['serving_version'])}\n")
    runtime = found["runtime"]
    sys.stdout.write(f"{'runtime':<10} {runtime['template']}: {output.printable(runtime['entrypoint'])}\n")
    sys.stdout.write(f"{'why':<10} {output.printable(runtime['why'])}\n")
    sys.stdout.write(f"{'deployed':<10} {output.age(found['last_deployed_at'])} ago\n")
    if found["env_names"]:
        sys.stdout.write(f"{'env':<10} {output.printable(', '.join(found['env_names']))}\n")
    if crash := found["last_crash"]:
        times = f"{found['restarts']} in all, the last {output.age(crash['at'])} ago"
        sys.stdout.write(f"{'crashes':<10} {times}: {output.printable(crash['message'], lines=True)}\n")


def open_app(
    app: App = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser")] = True,
    as_json: Json = False,
) -> None:
    """Print an app's URL and open it in a browser."""
    client = Client()
    found = client.get(f"/v1/apps/{app_or_linked(app, client.url)}")
    if as_json:
        output.show_json({"app_id": found["app_id"], "url": found["url"], "phase": found["phase"]})
    else:
        sys.stdout.write(f"{found['url']}\n")
    if browser:
        sys.stdout.flush()
        typer.launch(found["url"])


def delete(
    app: App = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is gone")] = True,
    as_json: Json = False,
) -> None:
    """Delete an app with its versions and logs."""
    client = Client()
    app_id = app_or_linked(app, client.url)
    if not yes:
        if not sys.stdin.isatty():
            raise Usage("deleting an app needs --yes where nobody can be asked")
        if not typer.confirm(f"Delete {app_id} with its versions and logs?", err=True):
            raise typer.Exit(output.FAILED)
    client.call("DELETE", f"/v1/apps/{app_id}")
    with Progress(quiet=as_json) as progress:
        deadline = time.monotonic() + 30
        while wait and time.monotonic() < deadline:
            progress.say(f"deleting {app_id}")
            # Its own key cannot see it any more from the first moment; its name is free when a deploy may take it.
            try:
                client.get(f"/v1/apps/{app_id}")
            except Refused as error:
                if error.error_code == "NotFound":
                    break
                raise
            time.sleep(0.2)
    if as_json:
        output.show_json({"app_id": app_id, "deleted": True})
    else:
        sys.stderr.write(f"{app_id} is deleted\n")
