"""What a version is in full: a ControllerRevision for each, owned by its VibedApp and never changed.

What became of it is in the app's status, whether its source is kept in the app's ledger.
"""

from __future__ import annotations

import json
from typing import Any

from vibed.apps.app import Resources, Version
from vibed.apps.decision import as_json, of_json
from vibed.cluster import names
from vibed.cluster.kinds import VIBED_APP, Object
from vibed.cluster.ledger import Line


def written(app: Object, version: Version, line: Line) -> Object:
    """The ControllerRevision of a version."""
    labels = {names.APP: version.app_id, names.SOURCE: names.source(line.digest)}
    if line.key:
        labels[names.IDEMPOTENCY] = line.key
    said = {
        "app": version.app_id,
        "write": line.write,
        "source": {"digest": version.source_digest, "size": version.source_size},
        "decision": as_json(version.runtime),
        "env": dict(version.env),
        "resources": {"cpu": version.resources.cpu, "memory_mb": version.resources.memory_mb},
        "created_at": version.created_at,
        "created_by": version.created_by,
        "rolled_back_from": version.rolled_back_from,
        "timings": dict(version.timings),
        "fingerprint": line.fingerprint,
    }
    return {
        "metadata": {
            "name": names.revision(version.app_id, version.number),
            "labels": labels,
            "ownerReferences": [owner(app)],
        },
        "revision": version.number,
        "data": {"version": _text(said)},
    }


def read(revision: Object) -> Version:
    """The version, without what became of it."""
    data = _said(revision)
    resources = data.get("resources") or {}
    return Version(
        app_id=data["app"], number=revision["revision"], source_digest=data["source"]["digest"],
        source_size=data["source"]["size"], runtime=of_json(data["decision"]), env=data.get("env") or {},
        resources=Resources(resources.get("cpu"), resources.get("memory_mb")), created_at=float(data["created_at"]),
        created_by=data["created_by"], rolled_back_from=data.get("rolled_back_from"),
        timings=data.get("timings") or {},
    )  # fmt: skip


def write_of(revision: Object) -> str:
    """The write that the revision is of (`Line.write`)."""
    return str(_said(revision).get("write", ""))


def app_of(revision: Object) -> str:
    """The app that it says it is of."""
    return str(_said(revision)["app"])


def digest_of(revision: Object) -> str:
    """Of its version's source."""
    return str(_said(revision)["source"]["digest"])


def is_of(revision: Object, app: Object) -> bool:
    """Whether it belongs to this app, and not to an earlier one of its name."""
    owners = revision["metadata"].get("ownerReferences") or ()
    return any(one["uid"] == app["metadata"]["uid"] for one in owners)


def owner(app: Object) -> dict[str, Any]:
    """The owner reference of what goes with the app."""
    return {
        "apiVersion": VIBED_APP.api_version,
        "kind": VIBED_APP.kind,
        "name": app["metadata"]["name"],
        "uid": app["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _text(said: object) -> str:
    """ASCII, and without what Go's JSON writes otherwise than Python's: the API server compares `data` as text with
    what it has written itself, and would refuse any label (findings/kubernetes-revision-compared-as-text.sh).
    """
    text = json.dumps(said, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _said(revision: Object) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(revision["data"]["version"])
    return said
