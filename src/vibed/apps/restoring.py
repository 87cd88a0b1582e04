"""The port by which apps and keys move from one vibeD to another, as they were: what a deploy cannot say.

Contract, proven by tests/contract/test_restoring.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from vibed.apps.app import App, Key, Version


@dataclass(frozen=True, slots=True)
class Restored:
    """An app with its versions, as another vibeD had them."""

    app_id: str
    owner: str
    created_at: float
    versions: Sequence[Version]
    """The oldest first, at least one, numbers growing; the last is the one that should serve."""


@dataclass(frozen=True, slots=True)
class KeptKey:
    """An API key with what is kept of its secret."""

    key: Key
    secret_sha256: str


@runtime_checkable
class Restoring(Protocol):
    """See the module's docstring."""

    async def restore(self, app: Restored) -> App:
        """Write an app under a name that is free, all of it or nothing, durably: versions with their numbers, times,
        decisions, variables, outcomes and by whom. It stands as one that was just deployed, and the controller begins.
        A store that keeps fewer versions of an app leaves the oldest out.

        Raises `NameTaken`, `AlreadyExists` (the owner has an app of that name), `Conflict` with the code
        `BeingDeleted` (and still has it for a moment), `StoreUnavailable`.
        """
        ...

    async def kept_keys(self) -> Sequence[KeptKey]:
        """All keys that were not revoked."""
        ...

    async def restore_key(self, kept: KeptKey) -> bool:
        """Add a key (durable); False when a key of that id or that secret is there already, which then stays."""
        ...
