"""Thousands of VibedApps that are at rest, written as vibeD itself would have: copies of one that it has deployed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable

from vibed.cluster import names
from vibed.cluster.client import Client
from vibed.cluster.kinds import CONTROLLER_REVISION, VIBED_APP, Object

PER_OWNER = 50
_AT_ONCE = 16
_ROUTE = frozenset({"route", "routeTarget", "podIP", "sandboxRef", "servingVersion"})


async def populate(client: Client, app_id: str, copies: Iterable[int]) -> None:
    """Have copies `<app>-<number>` of an app, each with its version and its status, and no sandbox: as they are when
    nobody uses them. Of each fifty the owner is another.
    """
    app = await client.get(VIBED_APP, app_id)
    revision = await client.get(CONTROLLER_REVISION, names.revision(app_id, 1))
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> None:
        async with turns:
            await _copy(client, app, revision, f"{app_id}-{number}", f"owner-{number // PER_OWNER}")

    await asyncio.gather(*map(one, copies))


async def _copy(client: Client, app: Object, revision: Object, name: str, owner: str) -> None:
    kept = {key: app["metadata"][key] for key in ("labels", "annotations", "finalizers") if key in app["metadata"]}
    body = {"metadata": {**kept, "name": name}, "spec": {**app["spec"], "owner": owner}}
    made = await client.create(VIBED_APP, body)
    status = {key: value for key, value in app["status"].items() if key not in _ROUTE}
    await client.replace(VIBED_APP, {**made, "status": status}, subresource="status")
    said = json.loads(revision["data"]["version"])
    about = revision["metadata"]
    of = {**about["ownerReferences"][0], "name": name, "uid": made["metadata"]["uid"]}
    version = {
        "metadata": {
            "name": names.revision(name, 1),
            "labels": {**about["labels"], names.APP: name},
            "ownerReferences": [of],
        },
        "revision": 1,
        "data": {"version": json.dumps({**said, "app": name}, separators=(",", ":"))},
    }
    await client.create(CONTROLLER_REVISION, version)
