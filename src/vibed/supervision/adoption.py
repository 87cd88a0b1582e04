"""Taking over the sandboxes that an earlier controller left: those that live are connected to, others removed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from vibed import records, wire
from vibed.apps.errors import VibedError
from vibed.sandboxes.driver import State
from vibed.supervision.death import Death
from vibed.supervision.place import Place, folders, read_json
from vibed.supervision.roots import Root
from vibed.supervision.supervised import Owner, Supervised

log = records.logger("vibed.controller")


async def adopt(owner: Owner, known: Collection[Path], watch: Callable[[Supervised], None]) -> list[Supervised]:
    """The owner's sandboxes that live and are not `known` by their folders; `watch` is told of each at once."""
    found: list[Supervised] = []
    for folder in sorted(folders(owner.host.layout.sandboxes)):
        spec = read_json(folder / "spec.json")
        if spec is None or spec.get("driver") != owner.name:
            continue
        if folder in known:
            continue
        try:
            sandbox = await _take_over(owner, folder, spec, watch)
        except (OSError, VibedError) as error:
            # A process that does not end must not cost the others theirs; the sweep and the next start try again.
            log.error("a sandbox could not be taken over or removed", folder=str(folder), error=str(error))
            continue
        if sandbox is not None:
            found.append(sandbox)
    return found


async def _take_over(
    owner: Owner, folder: Path, spec: Mapping[str, Any], watch: Callable[[Supervised], None]
) -> Supervised | None:
    uid = int(spec["uid"])
    place = Place(folder, uid, owner.host.uids.app(uid))
    group = owner.host.cgroups.get(place.id)
    state = read_json(place.state) or {}
    death = Death.of_other(state.get("pid"), state.get("pid_start"))
    if death is None:
        await owner.clean(place, group, state, lost=True)
        return None
    root = Root(spec["template"], spec["template_digest"])
    sandbox = Supervised(owner, place, root, group, death)
    watch(sandbox)
    try:
        async with asyncio.timeout(5):
            await sandbox.connect()
            await sandbox.become(*(state for state in State if state is not State.BOOTING))
    except (wire.Disconnected, TimeoutError):
        death.kill()
        await sandbox.wait()
        return None
    # who waited for what a builder does is gone, and no app may ever get one
    if sandbox.state in (State.WARM, State.RUNNING, State.DRAINING) and not spec.get("builder"):
        return sandbox
    await sandbox.destroy(0)
    return None
