"""What apps take, read from their ledgers; and forgetting old sources (`vibed.apps.storage` decides which)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vibed.apps.app import Phase
from vibed.apps.storage import Kept as Taken
from vibed.apps.storage import make_room
from vibed.cluster import ledger as ledgers
from vibed.cluster import names, revisions, seen
from vibed.cluster.errors import KubeConflict, KubeNotFound
from vibed.cluster.kinds import CONTROLLER_REVISION, VIBED_APP, Kind, Object
from vibed.cluster.ledger import Ledger
from vibed.cluster.objects import AppObjects, Kept, decided

_TRIES = 8
_PER_SELECTOR = 40
"""Sources that one list asks for; a selector is part of a URL."""


def taken(kept: Kept) -> list[Taken]:
    """Every version of an app that takes room."""
    ledger = kept.ledger
    wanted = ledger.newest.number
    serving = seen.read(kept.object, ledger).serving_version or wanted
    needed = needed_versions(kept)
    return [
        Taken(
            kept.app_id, line.number, line.digest, line.size if line.kept else 0,
            line.unpacked if line.number in (wanted, serving) else 0, line.number in needed, line.created_at,
        )
        for line in ledger.lines
        if line.kept or line.number in (wanted, serving)
    ]  # fmt: skip


def needed_versions(kept: Kept) -> frozenset[int]:
    """Those whose source has to stay: wanted, serving, and the newest that was ever Ready."""
    ledger = kept.ledger
    ready = [line.number for line in ledger.lines if seen.result(kept.object, line).phase is Phase.READY]
    serving = seen.read(kept.object, ledger).serving_version
    return frozenset({ledger.newest.number, *ready[-1:], *(() if serving is None else (serving,))})


class Room:
    """Of the apps of one namespace."""

    def __init__(self, apps: AppObjects) -> None:
        self._apps = apps

    async def needed(self, owner: str, new: Taken, limit: int) -> list[str]:
        """Digests of sources that the owner's apps have to forget so that `new` fits. Raises `StorageLimitReached`."""
        there = [one for kept in await self._apps.owned(owner, exact=False) for one in taken(kept)]
        if sum(one.source + one.unpacked for one in there) + new.source + new.unpacked <= limit:
            return []
        return make_room(there, new, limit)

    async def forget(self, owner: str, digests: Sequence[str], *, app_id: str, but: int) -> None:
        """Have the owner's apps forget these sources, but for version `but` of `app_id`, which has just been made."""
        gone = frozenset(digests)
        for kept in await self._apps.owned(owner):
            spared = but if kept.app_id == app_id else 0
            if any(line.kept and line.digest in gone and line.number != spared for line in kept.ledger.lines):
                await self._write(kept, gone, spared)

    async def named(self, digests: Iterable[str]) -> frozenset[str]:
        """Those of the sources that a version of any app keeps.

        Labels say where to look, ledgers say what is kept: the label of a revision stays when its source is forgotten.
        Apps are asked before revisions: a version that is being made has its app's label first.
        """
        asked = sorted(set(digests))
        found: set[str] = set()
        for at in range(0, len(asked), _PER_SELECTOR):
            labels = _selector(asked[at : at + _PER_SELECTOR])
            apps = {app["metadata"]["name"]: app for app in await self._labelled(VIBED_APP, labels)}
            for revision in await self._labelled(CONTROLLER_REVISION, labels):
                app_id = revisions.app_of(revision)
                if app_id not in apps and (app := await self._apps.find(app_id)) is not None:
                    apps[app_id] = app
                if app_id in apps and ledgers.read(apps[app_id]) is None:
                    found.add(revisions.digest_of(revision))  # rather too much is kept than too little
            for kept in decided(apps.values()):
                found |= {line.digest for line in kept.ledger.lines if line.kept}
        return frozenset(asked) & found

    async def _labelled(self, kind: Kind, labels: str) -> Sequence[Object]:
        return (await self._apps.client.objects(kind, namespace=self._apps.namespace, labels=labels)).items

    async def _write(self, kept: Kept, gone: frozenset[str], spared: int) -> None:
        for _ in range(_TRIES):
            body = with_ledger(kept.object, kept.ledger.without_sources(gone, but=spared))
            try:
                self._apps.wrote(await self._apps.client.replace(VIBED_APP, body, namespace=self._apps.namespace))
                return
            except KubeNotFound:
                return
            except KubeConflict:
                found = await self._apps.find(kept.app_id)
                ledger = None if found is None else ledgers.read(found)
                if found is None or ledger is None:
                    return
                kept = Kept(found, ledger)


def with_ledger(app: Object, ledger: Ledger) -> Object:
    """The app with another ledger."""
    metadata = app["metadata"]
    annotations = {**(metadata.get("annotations") or {}), names.LEDGER: ledgers.written(ledger)}
    return {**app, "metadata": {**metadata, "annotations": annotations}}


def _selector(digests: Iterable[str]) -> str:
    return f"{names.SOURCE} in ({','.join(sorted(map(names.source, digests)))})"
