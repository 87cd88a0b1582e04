"""The definition of a VibedApp (a CRD), brought into a cluster and kept up to date there.

Helm installs definitions and never changes them again, so an upgrade of vibeD applies its own: `vibed crds apply`,
which the chart calls in a hook. A schema decides what is stored: a field that it lacks is dropped from an app the
next time it is written, without a word. So a newer definition than ours is left in place (fields are only ever
added, so that it serves this vibeD too), and one that would drop what some app has is refused.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vibed.apps.errors import VibedError
from vibed.cluster.client import Client
from vibed.cluster.errors import KubeNotFound
from vibed.cluster.kinds import ALL, CRD, VIBED_APP, Object

FILE = Path(__file__).parent / "crds" / "vibedapps.yaml"
SCHEMA = "vibed.dev/schema"
"""Annotation: a number that grows with each change of the schema."""
_ESTABLISHED_S = 30.0
_LOOK_EVERY_S = 0.1
_NAMED = 5


class DefinitionWouldDrop(VibedError):
    """Applying this definition would drop what apps have in fields that it lacks."""

    code = "DefinitionWouldDrop"
    status = 409


class DefinitionRefused(VibedError):
    """The cluster does not serve the definition: its names are taken, or it takes too long."""

    code = "DefinitionRefused"
    status = 502
    retryable = True


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a definition."""

    action: str
    """`created`, `changed`, `unchanged`, or `kept` for a newer one."""
    changes: Sequence[str]
    """For a person: `spec.egress: new`."""
    schema: int
    """Of what is in the cluster now."""


def ours() -> Object:
    """The definition that this vibeD brings."""
    crd: Object = yaml.safe_load(FILE.read_text())
    return crd


async def apply(
    client: Client, *, dry_run: bool = False, downgrade: bool = False, crd: Object | None = None
) -> Applied:
    """Bring the definition into the cluster and wait until it is served; with `dry_run` only ask the server whether it
    would take it, and say what would change. `downgrade` replaces a newer one. `crd`: another than ours.

    Raises `DefinitionWouldDrop`, `DefinitionRefused`, and what the client raises.
    """
    wanted = ours() if crd is None else crd
    try:
        there = await client.get(CRD, wanted["metadata"]["name"])
    except KubeNotFound:
        there = None
    if there is not None:
        if schema_of(there) > schema_of(wanted) and not downgrade:
            return Applied("kept", [], schema_of(there))
        if lost := sorted(
            {path for path, _ in _fields(there)} - {path for path, _ in _fields(wanted)} - _open(there, wanted)
        ):
            await _check_stored(client, lost)
    answer = await client.apply(CRD, wanted, manager="vibed-crds", dry_run=dry_run)
    changes = [] if there is None else differences(there, answer)
    if not dry_run:
        await _established(client, wanted["metadata"]["name"])
    action = "created" if there is None else "changed" if changes else "unchanged"
    return Applied(action, changes, schema_of(answer))


def schema_of(crd: Object) -> int:
    """The number of its schema; 0 for one that is not of ours."""
    said = str((crd["metadata"].get("annotations") or {}).get(SCHEMA, ""))
    return int(said) if said.isdecimal() else 0


def differences(before: Object, after: Object) -> list[str]:
    """What an app or its reader may notice, one line each."""
    old, new = dict(_fields(before)), dict(_fields(after))
    found = [f"{path}: new" for path in new if path not in old]
    found += [f"{path}: gone" for path in old if path not in new]
    found += [f"{path}: other rules" for path in new if path in old and _rules(old[path]) != _rules(new[path])]
    was, is_ = _version(before), _version(after)
    for key, what in (
        ("additionalPrinterColumns", "columns"),
        ("selectableFields", "fields to select by"),
        ("subresources", "subresources"),
    ):
        if (was.get(key) or None) != (is_.get(key) or None):
            found.append(f"{what}: changed")
    if schema_of(before) != schema_of(after):
        found.append(f"schema: {schema_of(before)} before, {schema_of(after)} now")
    return sorted(found)


async def _check_stored(client: Client, lost: Sequence[str]) -> None:
    """Raises `DefinitionWouldDrop` where an app has something in one of these fields."""
    holding = [
        (f"{app['metadata']['namespace']}/{app['metadata']['name']}", path)
        for app in (await client.objects(VIBED_APP, namespace=ALL)).items
        for path in lost
        if _has(app, path.split("."))
    ]
    if not holding:
        return
    told = ", ".join(f"{path} of {name}" for name, path in holding[:_NAMED])
    more = f" and {len(holding) - _NAMED} more" if len(holding) > _NAMED else ""
    raise DefinitionWouldDrop(
        f"this definition lacks fields that apps have, and would drop them: {told}{more}",
        hint="keep the newer definition, which serves this vibeD too; or remove these fields from the apps first",
        details={"fields": sorted({path for _, path in holding}), "apps": sorted({name for name, _ in holding})},
    )


async def _established(client: Client, name: str) -> None:
    try:
        async with asyncio.timeout(_ESTABLISHED_S):
            while True:
                status = (await client.get(CRD, name)).get("status") or {}
                conditions = {one["type"]: one for one in status.get("conditions") or ()}
                if (conditions.get("NamesAccepted") or {}).get("status") == "False":
                    raise DefinitionRefused(
                        f"the names of {name} are taken: {conditions['NamesAccepted'].get('message', '')}",
                        hint="another definition has its kind or its short name `vapp`: remove one of them",
                        retryable=False,
                    )
                if (conditions.get("Established") or {}).get("status") == "True":
                    return
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        raise DefinitionRefused(f"{name} was not established within {_ESTABLISHED_S:g} s", hint="try again") from None


def _version(crd: Object) -> Mapping[str, Any]:
    """The stored one."""
    versions: Sequence[Mapping[str, Any]] = crd["spec"]["versions"]
    return next(version for version in versions if version.get("storage"))


def _fields(crd: Object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every field of spec and status by its path, items of lists as `[]`."""
    schema = _version(crd)["schema"]["openAPIV3Schema"]
    for name in ("spec", "status"):
        if name in schema.get("properties", {}):
            yield from _within(name, schema["properties"][name])


def _within(path: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, schema
    for name, inner in (schema.get("properties") or {}).items():
        yield from _within(f"{path}.{name}", inner)
    if isinstance(schema.get("items"), Mapping):
        yield from _within(f"{path}.[]", schema["items"])


def _open(there: Object, wanted: Object) -> set[str]:
    """Fields of `there` that `wanted` does not name and keeps all the same."""
    keeps = [
        path
        for path, schema in _fields(wanted)
        if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("additionalProperties")
    ]
    return {path for path, _ in _fields(there) if any(path.startswith(f"{one}.") for one in keeps)}


def _rules(schema: Mapping[str, Any]) -> str:
    """Without what is told of its own, and without what is only told to people."""
    return json.dumps(
        {k: v for k, v in schema.items() if k not in ("properties", "items", "description")}, sort_keys=True
    )


def _has(value: object, path: Sequence[str]) -> bool:
    if not path:
        return True
    if path[0] == "[]":
        return isinstance(value, list) and any(_has(item, path[1:]) for item in value)
    return isinstance(value, Mapping) and path[0] in value and _has(value[path[0]], path[1:])
