"""Telling how a deploy went: in words and as an exit status."""

from __future__ import annotations

import sys
from typing import Any

from vibed.cli import output


def told(body: dict[str, Any], *, as_json: bool, waited: bool) -> int:
    """Show how a version stands; returns the exit status: 0 when the url shows it, or when nobody waited for that and
    it has not failed.
    """
    if as_json:
        output.show_json(body)
    elif body["serving_version"] == body["version"]:
        _live(body)
    else:
        _not_live(body)
    if waited:
        return output.OK if body["phase"] == "Ready" else output.FAILED
    return output.FAILED if body["phase"] == "Failed" else output.OK


def _live(body: dict[str, Any]) -> None:
    err = sys.stderr
    runtime = body["runtime"]
    took = body["timings"].get("total")
    what = "created" if body["created"] else f"version {body['version']}"
    err.write(f"{body['app_id']} is live ({what}, {runtime['template']}")
    err.write(f", {output.took(took)})\n" if took is not None else ")\n")
    err.write(f"  why: {output.printable(runtime['why'])}\n")
    for note in body["notes"]:
        err.write(f"  note: {output.printable(note)}\n")
    sys.stdout.write(f"{body['url']}\n")


def _not_live(body: dict[str, Any]) -> None:
    err = sys.stderr
    phase = "not live any more" if body["phase"] == "Ready" else body["phase"]
    err.write(f"version {body['version']} of {body['app_id']} is {phase}: {body['reason']}\n")
    if body["message"]:
        err.write(f"{output.printable(body['message'], lines=True)}\n")
    serving = body["serving_version"]
    if body["phase"] in ("Failed", "Ready"):
        if serving and f"ersion {serving}" not in body["message"]:
            err.write(f"version {serving} serves at {body['url']}\n")
        if body["phase"] == "Failed" and body["reason"] != "Superseded":
            err.write(f"hint: `vibed logs {body['app_id']}` shows what it printed\n")
    else:
        err.write(f"it goes on by itself; `vibed status {body['app_id']}` shows how it stands\n")
        sys.stdout.write(f"{body['url']}\n")
