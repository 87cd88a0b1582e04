"""The AppStore port: where specs, status, versions, events, idempotency keys and API keys live.

Contract, proven for every implementation by tests/contract/test_app_store.py: what was written can be read at once, by
every process, and survives the death of all of them. `request_delete`, `create_key`, `revoke_key` and what changes
domains are durable against power loss when they return, `deploy` when a `sync` that was called after it has returned: a
controller can begin meanwhile, and nobody is told before. Status and events may lose their last instants with the
machine's power, since the controller derives them again from the spec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from vibed.apps.app import App, Event, Key, Phase, Resources, Runtime, Status, Version
from vibed.apps.domains import Domain
from vibed.apps.storage import Kept

IDEMPOTENCY_KEPT_S = 24 * 3600.0
"""How long a client's Idempotency-Key stands for what it was used for."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's Idempotency-Key and a fingerprint of the request it came with."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class NewVersion:
    """All that one deploy adds to the store."""

    app_id: str
    owner: str
    created_by: str
    source_digest: str
    source_size: int
    runtime: Runtime
    env: Mapping[str, str]
    resources: Resources = Resources()
    rolled_back_from: int | None = None
    timings: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a deploy became."""

    app: App
    version: Version
    created: bool
    """Whether the app is new."""
    replayed: bool
    """Whether an earlier request with the same Idempotency-Key had already done it."""
    dropped: Sequence[str] = ()
    """Digests of older sources that made way for it (`vibed.apps.storage`)."""
    changed: bool = True
    """False: nothing would have been different, so this is the version that was there."""


@dataclass(frozen=True, slots=True)
class VersionOutcome:
    """How a version's deploy went; timings (milliseconds by step) are merged with those that are there."""

    number: int
    phase: Phase
    reason: str
    message: str
    timings: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class VersionResult:
    """How a version went so far, without what it is."""

    number: int
    created_at: float
    phase: Phase
    reason: str
    message: str
    timings: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append."""

    kind: str
    reason: str
    message: str
    version: int | None = None


class AppStore(Protocol):
    """See the module's docstring. All times are Unix seconds; lists come newest first unless said otherwise."""

    async def deploy(
        self,
        new: NewVersion,
        *,
        if_exists: Literal["update", "fail"] = "update",
        idempotency: Idempotency | None = None,
        expected: App | None = None,
        storage_limit: int | None = None,
    ) -> Deployed:
        """Add a version and make it the wanted one, in one transaction; `sync` makes it durable. `expected`: the app
        that the version builds on, as it was read; without it, a name that is free becomes an app. `storage_limit`:
        bytes that the owner's apps may take; where they would take more, older versions lose their sources first.

        Raises `NameTaken`, `AlreadyExists`, `IdempotencyMismatch`, `NotFound` (`expected` is gone; another app of its
        name is not it), `Conflict` (its generation is another one; with the code `BeingDeleted` while the old app of
        that name is still being deleted), `StorageLimitReached`, `StoreUnavailable`.
        """
        ...

    async def sync(self) -> None:
        """Return when every deploy that had returned is durable. Raises `StoreUnavailable` where that is not known."""
        ...

    async def replay(self, owner: str, idempotency: Idempotency) -> Deployed | None:
        """What an earlier request of that key became, or None. Raises `IdempotencyMismatch`."""
        ...

    async def get(self, app_id: str) -> App:
        """Raises `NotFound`. A deleted app is found (with `deleted`) until it is purged."""
        ...

    async def catch_up(self, app_id: str, version: int | None = None) -> None:
        """Somebody has seen that version of the app (None: something that the store did not say): what it answers from
        now on is no older. Nothing to do for a store that remembers nothing. Raises `NotFound`.
        """
        ...

    async def wanted(self, app_id: str) -> tuple[App, Version]:
        """An app with the version that should serve, as they are together. Raises `NotFound`."""
        ...

    async def list(
        self,
        *,
        owner: str | None = None,
        phase: Phase | None = None,
        q: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[App], int]:
        """A page of apps that are not deleted, by last deploy, and how many there are in all."""
        ...

    async def unsettled(self) -> Sequence[App]:
        """Apps whose status lags behind their spec, or whose wanted version is neither Ready nor Failed, deleted ones
        included: what a controller starts with."""
        ...

    async def version(self, app_id: str, number: int) -> Version:
        """Raises `NotFound`, whatever the number: clients choose it."""
        ...

    async def versions(self, app_id: str, *, limit: int = 50, offset: int = 0) -> tuple[Sequence[Version], int]:
        """A page of an app's versions and how many there are in all."""
        ...

    async def results(self, app_id: str, *, limit: int = 50, offset: int = 0) -> tuple[Sequence[VersionResult], int]:
        """How the versions went, the newest first, and how many there are: what `versions` says of that, for less."""
        ...

    async def record(
        self,
        app_id: str,
        status: Status | None,
        *,
        outcomes: Sequence[VersionOutcome] = (),
        events: Sequence[NewEvent] = (),
    ) -> Status | None:
        """What the controller saw, in one transaction: a status that was derived from `status.revision`, how
        versions' deploys went, and what is worth an event. Returns the status with its new revision.

        Raises `Conflict` when another writer was faster, `NotFound`.
        """
        ...

    async def next_run(self, app_id: str) -> int:
        """The next run number of an app: every sandbox that an app gets has its own, growing."""
        ...

    async def request_delete(self, app_id: str) -> App:
        """Mark for deletion (durable); the controller tears down and purges. Raises `NotFound`."""
        ...

    async def purge(self, app_id: str) -> Sequence[str]:
        """Forget a deleted app, its versions and events; returns source digests that no other app uses."""
        ...

    async def storage(self, owner: str) -> Sequence[Kept]:
        """What the owner's apps take on the disk, those left out that are being deleted."""
        ...

    async def storage_of(self, app_ids: Sequence[str]) -> Mapping[str, int]:
        """Bytes that each of these apps takes on the disk, as far as they exist."""
        ...

    async def prove(self) -> None:
        """Write something that changes nothing, the way every write is written. Raises `StoreUnavailable`."""
        ...

    async def names_source(self, digest: str) -> bool:
        """Whether any version, of any app, keeps this source."""
        ...

    async def digests_in_use(self) -> frozenset[str]:
        """Every source digest that some version keeps."""
        ...

    async def events(self, app_id: str, *, after: int = 0, limit: int = 500) -> Sequence[Event]:
        """Events with a larger seq than `after`, oldest first."""
        ...

    async def add_domain(self, app_id: str, name: str, *, by: str) -> Domain:
        """Say that an app shall have a domain (durable); one that it has already is returned as it is. Several apps may
        want the same until one has shown that it is theirs.

        Raises `NotFound` (also for an app that is being deleted), `DomainTaken`, `TooManyDomains`.
        """
        ...

    async def verify_domain(self, app_id: str, name: str, token: str) -> Domain:
        """The record with that token was seen: from now on the name is this app's alone (durable). What other apps
        wanted of it is forgotten.

        Raises `NotFound` (also when the domain was removed, and added again with another token), `DomainTaken`.
        """
        ...

    async def remove_domain(self, app_id: str, name: str) -> None:
        """Free a name (durable). Raises `NotFound`."""
        ...

    async def domains(self, app_id: str) -> Sequence[Domain]:
        """An app's domains, oldest first; none of an app that is being deleted, or is not there."""
        ...

    async def domain(self, name: str) -> Domain | None:
        """The verified domain of that name."""
        ...

    async def verified_domains(self) -> Mapping[str, str]:
        """Every verified name with the id of the app that has it."""
        ...

    async def create_key(self, owner: str, *, admin: bool, label: str, secret_sha256: str) -> Key:
        """Add an API key (durable)."""
        ...

    async def find_key(self, secret_sha256: str) -> Key | None:
        """The key with that secret's hash, if it was not revoked."""
        ...

    async def keys(self) -> Sequence[Key]:
        """All keys that were not revoked."""
        ...

    async def keys_used(self, used: Mapping[str, float]) -> None:
        """Keep when each of these keys was last used; a time that is earlier than the one that is known, and a key that
        was revoked, change nothing. Not durable against power loss.
        """
        ...

    async def revoke_key(self, key_id: str) -> None:
        """Raises `NotFound`."""
        ...

    async def close(self) -> None:
        """Release what is held; the store is not used afterwards."""
        ...
