"""Waiting for a version that was accepted and is not Ready yet, and telling how it went."""

from __future__ import annotations

import sys
import time
from typing import Any

from vibed.cli import output
from vibed.cli.output import Progress
from vibed.client.api import Client
from vibed.client.connection import Refused, Unreachable

_LONGEST_PAUSE_S = 2.0


def wait_until_settled(client: Client, body: dict[str, Any], progress: Progress, *, timeout_s: float) -> dict[str, Any]:
    """Ask until the version is Ready or Failed or replaced, or time is up; returns the answer brought up to date."""
    began = time.monotonic()
    deadline = began + timeout_s
    before = body["timings"].get("total", 0.0)
    pause = 0.1
    while body["phase"] not in ("Ready", "Failed", "Suspended") and time.monotonic() < deadline:
        progress.say(f"{body['phase']}: {body['message'] or body['reason'] or body['app_id']}")
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)
        try:
            version = client.get(f"/v1/apps/{body['app_id']}/versions/{body['version']}")
            app = client.get(f"/v1/apps/{body['app_id']}")
        except Unreachable as error:
            # vibeD may restart meanwhile; what it has accepted it keeps.
            progress.say(error.message)
            continue
        except Refused as error:
            if error.may_retry:
                continue
            raise
        if version["phase"] in ("Ready", "Failed"):
            seen = version
        elif app["version"] != body["version"]:
            return {**body, "reason": "Superseded", "message": f"version {app['version']} was deployed meanwhile"}
        else:
            seen = version if version["reason"] not in ("", "Accepted") else app
        phase = seen["phase"] if seen is version or app["settled"] else body["phase"]
        body = {
            **body,
            "phase": phase,
            "reason": seen["reason"],
            "message": seen["message"],
            "serving_version": app["serving_version"],
            # What the answer said ended with the answer.
            "timings": {**body["timings"], **version["timings"], "total": before + (time.monotonic() - began) * 1000},
        }
    return body


def told(body: dict[str, Any], *, as_json: bool, waited: bool) -> int:
    """Show how a version stands; returns the exit status."""
    ready = body["phase"] == "Ready"
    if as_json:
        output.show_json(body)
    else:
        _told(body, ready=ready)
    return output.OK if ready or (not waited and body["phase"] != "Failed") else output.FAILED


def _told(body: dict[str, Any], *, ready: bool) -> None:
    err = sys.stderr
    runtime = body["runtime"]
    took = body["timings"].get("total")
    if ready:
        what = "created" if body["created"] else f"version {body['version']}"
        err.write(f"{body['app_id']} is live ({what}, {runtime['template']}")
        err.write(f", {output.took(took)})\n" if took is not None else ")\n")
        err.write(f"  why: {output.printable(runtime['why'])}\n")
        for note in body["notes"]:
            err.write(f"  note: {output.printable(note)}\n")
        sys.stdout.write(f"{body['url']}\n")
        return
    err.write(f"version {body['version']} of {body['app_id']} is {body['phase']}: {body['reason']}\n")
    if body["message"]:
        err.write(f"{output.printable(body['message'], lines=True)}\n")
    if body["phase"] == "Failed":
        if body["serving_version"]:
            err.write(f"version {body['serving_version']} goes on serving at {body['url']}\n")
        err.write(f"hint: `vibed logs {body['app_id']}` shows what it printed\n")
    else:
        err.write(f"it goes on by itself; `vibed status {body['app_id']}` shows how it stands\n")
        sys.stdout.write(f"{body['url']}\n")
