"""The spec of a VibedApp: what a deploy writes into it, and the version that is read from it.

A version is made of the parts of the spec that decide what runs. `what` (source, runtime) and `rest` (variables,
resources, secrets, the way out) are fingerprints of them, kept in the ledger when a version is made; a spec that has
others was changed by hand, and is not yet decided. `ttl`, `visibility` and `owner` make no version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from vibed.apps.app import Resources, Runtime, Version
from vibed.apps.decision import as_json, of_json
from vibed.apps.store import NewVersion
from vibed.cluster.kinds import Object
from vibed.cluster.ledger import Ledger
from vibed.cluster.names import DECISION

_CPU, _MEMORY = "500m", "256Mi"
"""What the schema gives a spec that says nothing."""
_SUFFIXES = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal("1e3"),
    "M": Decimal("1e6"), "G": Decimal("1e9"), "T": Decimal("1e12"), "P": Decimal("1e15"), "E": Decimal("1e18"),
    "Ki": Decimal(1 << 10), "Mi": Decimal(1 << 20), "Gi": Decimal(1 << 30), "Ti": Decimal(1 << 40),
    "Pi": Decimal(1 << 50), "Ei": Decimal(1 << 60),
}  # fmt: skip
"""Of a quantity (apimachinery, api/resource)."""


def deployed(before: Mapping[str, Any], new: NewVersion, number: int) -> dict[str, Any]:
    """The spec with a new version in it; what makes no version stays as it was."""
    cpu, memory = new.resources.cpu, new.resources.memory_mb
    kept = {name: value for name, value in before.items() if name not in ("env", "source", "runtime")}
    return {
        **kept,
        "owner": new.owner,
        "source": {"digest": new.source_digest, "size": new.source_size},
        "runtime": {"lane": new.runtime.lane, "template": new.runtime.template},
        **({"env": [{"name": name, "value": new.env[name]} for name in sorted(new.env)]} if new.env else {}),
        "resources": {
            "cpu": _CPU if cpu is None else f"{max(1, round(cpu * 1000))}m",
            "memory": _MEMORY if memory is None else f"{memory}Mi",
        },
        "version": number,
        "decision": as_json(new.runtime),
    }


def env(spec: Mapping[str, Any]) -> dict[str, str]:
    """The variables."""
    both = [*(spec["runtime"].get("env") or ()), *(spec.get("env") or ())]
    return {item["name"]: item.get("value", "") for item in both}


def resources(spec: Mapping[str, Any]) -> Resources:
    """What its sandbox may use."""
    said = spec.get("resources") or {}
    cpu, memory = _quantity(said.get("cpu")), _quantity(said.get("memory"))
    return Resources(
        cpu=None if cpu is None else float(cpu),
        memory_mb=None if memory is None else max(1, round(memory / (1 << 20))),
    )


def what(spec: Mapping[str, Any]) -> str:
    """Fingerprint of what is decided upon."""
    runtime = {name: value for name, value in spec["runtime"].items() if name != "env"}
    return _fingerprint({"source": spec["source"], "runtime": runtime})


def rest(spec: Mapping[str, Any]) -> str:
    """Fingerprint of what else makes a version."""
    named = {name: spec[name] for name in ("resources", "secretRefs", "egress") if spec.get(name)}
    return _fingerprint({"env": env(spec), **named})


def is_decided(app: Object, ledger: Ledger) -> bool:
    """Whether the newest version is of the spec as it is now."""
    spec, newest = app["spec"], ledger.newest
    return (what(spec), rest(spec)) == (newest.what, newest.rest)


def decision(app: Object, ledger: Ledger) -> Runtime | None:
    """What was decided of the newest version; None where the app does not say it (any more)."""
    spec, newest = app["spec"], ledger.newest
    by_hand = (app["metadata"].get("annotations") or {}).get(DECISION)
    if by_hand:
        said = json.loads(by_hand)
        if said["version"] == newest.number:
            return of_json(said["decision"])
    if spec.get("decision") and spec.get("version") == newest.number:
        return of_json(spec["decision"])
    return None


def version(app: Object, ledger: Ledger) -> Version | None:
    """The newest version, without what became of it; None where the spec is not of it (any more)."""
    newest, decided = ledger.newest, decision(app, ledger)
    if decided is None or not is_decided(app, ledger):
        return None
    return Version(
        app_id=app["metadata"]["name"], number=newest.number, source_digest=newest.digest, source_size=newest.size,
        runtime=decided, env=env(app["spec"]), resources=newest.resources, created_at=newest.created_at,
        created_by=newest.created_by, rolled_back_from=newest.rolled_back_from, timings=newest.timings,
        source_kept=newest.kept,
    )  # fmt: skip


def _fingerprint(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]


def _quantity(said: object) -> Decimal | None:
    """None for what is not one, which the schema refuses."""
    text = str(said)
    number = text.rstrip("numkKMGTPEi")
    try:
        return Decimal(number) * _SUFFIXES[text[len(number) :]]
    except (InvalidOperation, KeyError):
        return None
