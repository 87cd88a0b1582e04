"""Apps' own domains in the cluster: an annotation of the VibedApp, which routers see, and a claim for each name.

The annotation has every domain of the app, also those that wait for their record. Who has shown a name to be theirs
claims it: a ConfigMap in the namespace of API keys whose name follows from the domain, so that the API server lets one
app have it. A claim is good as long as the app that it names (by uid) lives and has the domain with the same token; one
that is not is replaced by whoever shows the name next, so that nothing has to be cleaned up for a name to be free.

Whoever may edit a VibedApp may write any name into its annotation, and claims are the API's alone to make: a name leads
to an app only if both say so (`led_to`).
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime

from vibed.apps.domains import MOST, Domain, absent, taken, too_many
from vibed.apps.errors import Conflict, NotFound
from vibed.cluster import names
from vibed.cluster.answers import no_app
from vibed.cluster.client import Client
from vibed.cluster.errors import KubeConflict, KubeExists, KubeNotFound
from vibed.cluster.kinds import CONFIG_MAP, VIBED_APP, Object
from vibed.cluster.objects import AppObjects, Kept, decided

_TRIES = 20
_LONGEST_PAUSE_S = 0.3
_UNWRITTEN_S = 30.0
"""How old a claim gets that its app does not know of: its process was killed between the two."""


class Domains:
    """Of one installation; see `vibed.apps.store.AppStore` for what each promises."""

    def __init__(self, client: Client, apps: AppObjects, own_namespace: str) -> None:
        self._client = client
        self._apps = apps
        self._own_namespace = own_namespace

    async def add(self, app_id: str, name: str, by: str) -> Domain:
        wanted = Domain.wanted(name, app_id, by, time.time())

        def adding(there: Sequence[Domain]) -> Sequence[Domain]:
            if any(domain.name == name for domain in there):
                return there
            if len(there) >= MOST:
                raise too_many(app_id)
            return [*there, wanted]

        holder = await self.find(name)
        if holder is not None and holder.app_id != app_id:
            raise taken(name)
        return _named(await self._change(app_id, adding), name)

    async def verify(self, app_id: str, name: str, token: str) -> Domain:
        kept = await self._living(app_id)
        wanted = _wanted(kept, name, token)
        await self._claim(kept, wanted)

        def verifying(there: Sequence[Domain]) -> Sequence[Domain]:
            return [
                replace(domain, verified_at=time.time())
                if domain.name == name and domain.token == token and domain.verified_at is None
                else domain
                for domain in there
            ]

        return _wanted_of(await self._change(app_id, verifying), app_id, name, token)

    async def remove(self, app_id: str, name: str) -> None:
        gone: list[Domain] = []

        def removing(there: Sequence[Domain]) -> Sequence[Domain]:
            gone[:] = [domain for domain in there if domain.name == name]
            if not gone:
                raise absent(app_id, name)
            return [domain for domain in there if domain.name != name]

        kept = await self._living(app_id)
        await self._change(app_id, removing)
        await self._release(kept, gone)

    async def release(self, kept: Kept) -> None:
        """Free what an app that is being deleted has."""
        await self._release(kept, read(kept.object))

    async def of_app(self, app_id: str) -> Sequence[Domain]:
        try:
            there = read((await self._living(app_id)).object)
        except NotFound:
            return []
        found = []
        for domain in there:
            holder = await self.find(domain.name)
            if (holder is None and domain.verified_at is None) or (holder is not None and holder.app_id == app_id):
                found.append(domain)
        return found

    async def find(self, name: str) -> Domain | None:
        claim = await self._claim_of(name)
        return None if claim is None else await self._holder(claim)

    async def all_verified(self) -> Mapping[str, str]:
        found = [kept for kept in decided(await self._apps.all()) if not kept.deleted]
        return {
            domain.name: kept.app_id for kept in found for domain in read(kept.object) if domain.verified_at is not None
        }

    # claims

    async def _claim(self, kept: Kept, wanted: Domain) -> None:
        """Have the name be this app's. Raises `DomainTaken`, `Conflict`."""
        said = {"name": wanted.name, "app_id": wanted.app_id, "token": wanted.token}
        body: Object = {
            "metadata": {
                "name": names.domain(wanted.name),
                "labels": {names.DOMAIN: str(kept.object["metadata"]["uid"])},
            },
            "immutable": True,
            "data": said,
        }
        for attempt in range(_TRIES):
            try:
                await self._client.create(CONFIG_MAP, body, namespace=self._own_namespace)
                return
            except KubeExists:
                claim = await self._claim_of(wanted.name)
            if claim is not None and _is_of(claim, kept) and _text(claim, "token") == wanted.token:
                return
            if claim is not None:
                if (holder := await self._holder(claim)) is not None and holder.app_id != wanted.app_id:
                    raise taken(wanted.name)
                # who has just claimed it and not written it down yet is given the time
                if _age_s(claim) > _UNWRITTEN_S or (attempt and await self._of_claim(claim) is None):
                    await self._drop(claim)
            await asyncio.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.01 * 2**attempt)))
        raise taken(wanted.name)

    async def _claim_of(self, name: str) -> Object | None:
        try:
            found = await self._client.get(CONFIG_MAP, names.domain(name), namespace=self._own_namespace)
        except KubeNotFound:
            return None
        return found if _text(found, "name") == name else None

    async def _holder(self, claim: Object) -> Domain | None:
        """The domain that a claim is of, if it is verified."""
        found = await self._of_claim(claim)
        return found if found is not None and found.verified_at is not None else None

    async def _of_claim(self, claim: Object) -> Domain | None:
        try:
            kept = await self._living(_text(claim, "app_id"))
        except NotFound:
            return None
        if not _is_of(claim, kept):
            return None
        name, token = _text(claim, "name"), _text(claim, "token")
        return next((one for one in read(kept.object) if one.name == name and one.token == token), None)

    async def _release(self, kept: Kept, gone: Sequence[Domain]) -> None:
        for domain in gone:
            claim = await self._claim_of(domain.name)
            if claim is not None and _is_of(claim, kept):
                await self._drop(claim)

    async def _drop(self, claim: Object) -> None:
        metadata = claim["metadata"]
        try:
            await self._client.delete(CONFIG_MAP, metadata["name"], namespace=self._own_namespace, uid=metadata["uid"])
        except KubeConflict:
            return  # another one of that name by now, which is not the one that was looked at

    # the annotation

    async def _living(self, app_id: str) -> Kept:
        kept = await self._apps.get(app_id)
        if kept.deleted:
            raise no_app(app_id)
        return kept

    async def _change(self, app_id: str, change: Callable[[Sequence[Domain]], Sequence[Domain]]) -> Sequence[Domain]:
        """Write what `change` makes of an app's domains. Raises `NotFound`, `Conflict`."""
        for attempt in range(_TRIES):
            kept = await self._living(app_id)
            there = read(kept.object)
            wanted = change(there)
            if wanted == there:
                return wanted
            told = json.dumps([asdict(domain) for domain in wanted], separators=(",", ":"))
            body: Object = {
                "metadata": {
                    "resourceVersion": kept.object["metadata"]["resourceVersion"],
                    "annotations": {names.DOMAINS: told if wanted else None},
                }
            }
            try:
                done = await self._client.patch(VIBED_APP, app_id, body, namespace=self._apps.namespace)
            except KubeNotFound as error:
                raise no_app(app_id) from error
            except KubeConflict:
                await asyncio.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.01 * 2**attempt)))
                continue
            self._apps.wrote(done)
            return wanted
        raise Conflict(f"{app_id!r} is being changed by many at once", hint="try again")


def read(app: Object) -> Sequence[Domain]:
    """The domains of a VibedApp, oldest first; none where somebody wrote nonsense there."""
    said = (app["metadata"].get("annotations") or {}).get(names.DOMAINS)
    if said is None:
        return []
    try:
        return [Domain(**one) for one in json.loads(said)]
    except (ValueError, TypeError, RecursionError):
        return []


def app_of(claim: Object) -> str:
    """The app that a claim says it is of."""
    return _text(claim, "app_id")


def led_to(app: Object, claim_named: Callable[[str], Object | None]) -> list[str]:
    """The domains that lead to a VibedApp: those that it says were verified, and whose claims say the same."""
    found = []
    for domain in read(app):
        if domain.verified_at is None or not isinstance(domain.name, str) or not domain.name.isascii():
            continue  # what vibeD has written is punycode
        claim = claim_named(names.domain(domain.name))
        if claim is None or not _names(claim, app):
            continue
        if (_text(claim, "name"), _text(claim, "token")) == (domain.name, domain.token):
            found.append(domain.name)
    return found


def _wanted(kept: Kept, name: str, token: str) -> Domain:
    return _wanted_of(read(kept.object), kept.app_id, name, token)


def _wanted_of(there: Sequence[Domain], app_id: str, name: str, token: str) -> Domain:
    for domain in there:
        if domain.name == name and domain.token == token:
            return domain
    raise absent(app_id, name)


def _named(there: Sequence[Domain], name: str) -> Domain:
    return next(domain for domain in there if domain.name == name)


def _is_of(claim: Object, kept: Kept) -> bool:
    return _names(claim, kept.object)


def _names(claim: Object, app: Object) -> bool:
    """Whether it is this app that a claim is of."""
    labels = claim["metadata"].get("labels") or {}
    return bool(labels.get(names.DOMAIN) == app["metadata"]["uid"])


def _age_s(claim: Object) -> float:
    created = datetime.fromisoformat(claim["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
    return time.time() - created.timestamp()


def _text(claim: Object, name: str) -> str:
    return str((claim.get("data") or {}).get(name, ""))
