"""What an earlier keeper or controller left of an app: found again in the store, the markers and its sandboxes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from vibed.apps.app import App, Phase, Status
from vibed.apps.errors import NotFound
from vibed.apps.store import AppStore, VersionResult
from vibed.controller.life import Life
from vibed.controller.link import Outcome
from vibed.controller.means import Means, destroy
from vibed.controller.names import Published
from vibed.controller.run import LiveRun, app_key
from vibed.controller.telling import TRIED_AGAIN, Telling
from vibed.controller.trouble import SOUND_AFTER_S, Trouble
from vibed.sandboxes.driver import Sandbox, State


async def take_over(means: Means, app: App, adopted: Sequence[Sandbox], life: Life, telling: Telling) -> None:
    """Fill a new keeper's `life` and `telling`; what cannot be gone on with is ended and removed."""
    telling.begin_at(app.version)
    published = means.names.published(app.app_id)
    if not (app.version > 1 or app.runs or adopted or published):
        return
    life.restarts, life.last_crash = app.status.restarts, app.status.last_crash
    # read first, changed afterwards: when the store does not answer, this is done again
    versions = await _versions_to_last_good(means.store, app)
    sites = {marker.run: await _site(means, app.app_id, marker) for marker in published if marker.site}
    telling.good = {version.number for version in versions if version.phase is Phase.READY}
    life.sound = sound(app.status, versions, time.time())
    for version in versions:
        if version.number < app.version and version.phase not in (Phase.READY, Phase.FAILED):
            telling.outcomes[version.number] = Outcome(version.phase, version.reason, version.message)
        if version.number == app.version and version.phase is Phase.FAILED and version.reason not in TRIED_AGAIN:
            life.troubles[version.number] = Trouble(version.reason, version.message)
    for sandbox in adopted:
        assert sandbox.claimed is not None
        if sandbox.claimed.number in life.runs:
            continue  # it was taken over before the disk, for one, refused what came after it
        run = LiveRun(sandbox.claimed.number, sandbox.claimed.version, sandbox=sandbox, layer=sandbox.claimed.layer)
        # nobody answers there yet (a pod whose node is just away): it served if the name leads to it
        unproven = sandbox.state is State.STARTING and run.number not in {marker.run for marker in published}
        if sandbox.endpoint is None or sandbox.exit is not None or unproven or is_of_another(sandbox, app):
            # It was half way when its controller died: a new run is cleaner than guessing how far it got. Or it is of
            # an earlier app of this name, that was deleted while the sandbox could not be.
            await means.names.forget(app.app_id, run.number)
            means.tasks.spawn(destroy(sandbox))
            continue
        life.serve(run)
    for marker in published:
        if marker.run in life.runs:
            continue
        site = sites.get(marker.run)
        if site is None or site.endpoint is None:
            await means.names.forget(app.app_id, marker.run)
            continue
        life.serve(LiveRun(marker.run, marker.version, sandbox=site))
    await life.name.lead_to_newest()


def is_of_another(sandbox: Sandbox, app: App) -> bool:
    """Whether a sandbox was claimed for another app of that name, or for a run that the app knows nothing of."""
    claim = sandbox.claimed
    return claim is not None and (claim.app_key not in ("", app_key(app.created_at)) or claim.number > app.runs)


def sound(status: Status, versions: Sequence[VersionResult], now: float) -> set[int]:
    """The versions that have proven to be sound, by what was told of them: those that were good and are no news. What
    took minutes to build may have gone live just now.
    """
    long_ago = now - SOUND_AFTER_S
    found = {version.number for version in versions if version.phase is Phase.READY and version.created_at < long_ago}
    crashed = status.last_crash.version if status.last_crash is not None else None
    if status.updated_at > long_ago and crashed != status.serving_version:
        found.discard(status.serving_version or 0)
    return found


async def _site(means: Means, app_id: str, marker: Published) -> Sandbox | None:
    with contextlib.suppress(NotFound):
        runtime = (await means.store.version(app_id, marker.version)).runtime
        return means.sites.find(app_id, marker.version, index=runtime.index, spa=runtime.spa or marker.endpoint.spa)
    return None


async def _versions_to_last_good(store: AppStore, app: App) -> list[VersionResult]:
    """The versions from the wanted one back to the last before it that was Ready, in pages; all when none was."""
    found: list[VersionResult] = []
    while True:
        page, total = await store.results(app.app_id, limit=100, offset=len(found))
        found += page
        good = any(version.phase is Phase.READY and version.number != app.version for version in page)
        if not page or len(found) >= total or good:
            return found
