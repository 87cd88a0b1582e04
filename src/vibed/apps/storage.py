"""What an owner's apps may take on the disk, and which old sources go so that a new version fits.

An app takes its sources, as they were sent, and what is unpacked of the versions that serve or should: a site's files.
Old sources are only there to go back to: where there is no room for a new version, the oldest go first. Those of the
version that should serve, of the one that serves, and of the newest that was ever Ready stay. Pure functions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vibed.apps.errors import VibedError

_NAMED = 5
"""How many apps an error names."""


class StorageLimitReached(VibedError):
    """The owner's apps take what they may; says how much each takes."""

    code = "StorageLimitReached"
    status = 507


@dataclass(frozen=True, slots=True)
class Kept:
    """One version, as far as it takes room. Sizes in bytes."""

    app_id: str
    number: int
    digest: str
    source: int
    """0 when its source is not kept any more."""
    unpacked: int
    """0 unless it serves or should."""
    needed: bool
    """Whether its source has to stay."""
    created_at: float


def taken(kept: Iterable[Kept]) -> int:
    """By all of them together: a source that several have is there once."""
    sources: dict[str, int] = {}
    unpacked = 0
    for version in kept:
        sources[version.digest] = max(version.source, sources.get(version.digest, 0))
        unpacked += version.unpacked
    return unpacked + sum(sources.values())


def by_app(kept: Iterable[Kept]) -> dict[str, int]:
    """By each app for itself."""
    apps: dict[str, list[Kept]] = defaultdict(list)
    for version in kept:
        apps[version.app_id].append(version)
    return {app_id: taken(versions) for app_id, versions in apps.items()}


def make_room(kept: Sequence[Kept], new: Kept, limit: int) -> list[str]:
    """Digests of the sources that have to go, all old ones, so that the owner of `kept` may have `new` as well.

    What is unpacked of the same app makes way for it. Raises `StorageLimitReached`; then nothing has to go.
    """
    staying = [replace(version, unpacked=0) if version.app_id == new.app_id else version for version in kept]
    needed = {version.digest for version in staying if version.needed} | {new.digest}
    old = sorted((version for version in staying if version.source), key=lambda version: version.created_at)
    newest_use = {version.digest: version.created_at for version in old}
    left = taken([*staying, new])
    gone: list[str] = []
    for version in old:
        if left <= limit:
            break
        if version.digest in needed or version.digest in gone or newest_use[version.digest] > version.created_at:
            continue
        gone.append(version.digest)
        left -= max(other.source for other in staying if other.digest == version.digest)
    if left > limit:
        raise _refused(kept, new, limit)
    return gone


def _refused(kept: Sequence[Kept], new: Kept, limit: int) -> StorageLimitReached:
    apps = sorted(by_app(kept).items(), key=lambda item: -item[1])[:_NAMED]
    told = ", ".join(f"{app_id} {_mb(size)}" for app_id, size in apps)
    needs = new.source + new.unpacked
    largest = next((app_id for app_id, _ in apps if app_id != new.app_id), None)
    return StorageLimitReached(
        f"{new.app_id!r} would take {_mb(needs)}, and all apps of one owner may take {_mb(limit)} together"
        + (f"; so far there are {told}" if told else ""),
        hint=(f"delete what is not needed ({largest} takes most), " if largest else "")
        + "leave large files out, or have the operator raise owner_storage_mb",
        details={
            "limit_bytes": limit,
            "taken_bytes": taken(kept),
            "needed_bytes": needs,
            "apps": [{"app_id": app_id, "storage_bytes": size} for app_id, size in apps],
        },
    )


def _mb(size: int) -> str:
    return f"{max(1, round(size / 1e6)):,} MB"
