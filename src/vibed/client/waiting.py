"""Waiting for a version that was accepted, until waiting is of no use any more."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from vibed.client.api import Client
from vibed.client.connection import Refused, Unreachable

_LONGEST_PAUSE_S = 2.0


def wait_until_settled(
    client: Client, body: dict[str, Any], say: Callable[[str], None], *, timeout_s: float
) -> dict[str, Any]:
    """The answer of a deploy, brought up to date until it is settled or time is up. `say` hears what goes on.

    Raises `Refused` when the app was deleted meanwhile or the key was revoked.
    """
    began = time.monotonic()
    deadline = began + timeout_s
    before = body["timings"].get("total", 0.0)
    pause = 0.1
    while not body["settled"] and time.monotonic() < deadline:
        say(f"{body['phase']}: {body['message'] or body['reason'] or body['app_id']}")
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)
        try:
            version = client.get(f"/v1/apps/{body['app_id']}/versions/{body['version']}")
            app = client.get(f"/v1/apps/{body['app_id']}") if version["serving"] else None
        except Unreachable as error:
            # vibeD may restart meanwhile; what it has accepted it keeps.
            say(error.message)
            continue
        except Refused as error:
            if error.may_retry:
                continue
            raise
        body = {
            **body,
            **{name: version[name] for name in ("phase", "reason", "message", "serving_version", "settled")},
            "isolation": app["isolation"] if app is not None else "",
            # What the answer said ended with the answer.
            "timings": {**body["timings"], **version["timings"], "total": before + (time.monotonic() - began) * 1000},
        }
    return body
