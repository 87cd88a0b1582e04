"""Who calls: API keys as bearer tokens.

A secret is 256 random bits; only its SHA-256 is kept (a slow hash protects guessable secrets, and these are not). The
admin key comes from a file that `vibed up` makes and is read once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from vibed.api.errors import Forbidden, TooManyAttempts, Unauthorized
from vibed.api.keyuse import KeyUse
from vibed.apps.store import AppStore

ADMIN = "admin"
"""Owner of what is deployed with the admin key."""

_PREFIX = "vbd_"
_LONGEST_HEADER = 512
_HINT = "send the header 'Authorization: Bearer <key>'; `vibed keys create` makes a key"


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of the key that a request came with."""

    owner: str
    admin: bool
    key_id: str
    label: str
    secret_sha256: str = field(repr=False)
    """Finds the key again, for what goes on longer than a request: it may be revoked meanwhile."""

    def must_be_admin(self) -> None:
        """Raises `Forbidden` for everybody else."""
        if not self.admin:
            raise Forbidden("this needs an admin key", hint="ask whoever runs this vibeD")


def new_secret() -> str:
    """A fresh API key, as it is shown to its holder once."""
    return _PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is kept of a secret: the hex SHA-256."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read_admin_key(path: Path) -> str:
    """The digest of the admin key in the file at `path`. Raises `OSError`, `ValueError` when it is empty."""
    secret = path.read_text().strip()
    if not secret:
        raise ValueError(f"{path} is empty")
    return digest(secret)


class WrongKeys:
    """Counts wrong keys by address, so that guessing is slow and costs little.

    It never delays a right key: the key is looked up first, and only the answer to a wrong one changes.
    """

    def __init__(self, *, burst: int = 20, per_second: float = 0.5, addresses: int = 4096) -> None:
        self._burst = burst
        self._per_second = per_second
        self._addresses = addresses
        self._seen: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def count(self, address: str, now: float | None = None) -> float | None:
        """Take one wrong key into account; seconds until the next is answered 401 again when it is one too many."""
        at = time.monotonic() if now is None else now
        tokens, before = self._seen.pop(address, (float(self._burst), at))
        tokens = min(self._burst, tokens + (at - before) * self._per_second)
        wait = None if tokens >= 1 else (1 - tokens) / self._per_second
        self._seen[address] = (max(0.0, tokens - 1) if wait is None else tokens, at)
        while len(self._seen) > self._addresses:
            self._seen.popitem(last=False)
        return wait


class Keyring:
    """Turns an `Authorization` header into a `Caller`."""

    def __init__(self, store: AppStore, admin_digest: str | None, use: KeyUse, wrong: WrongKeys | None = None) -> None:
        self._store = store
        self._admin_digest = admin_digest
        self._use = use
        self._wrong = wrong or WrongKeys()

    async def authenticate(self, authorization: str | None, address: str) -> Caller:
        """Raises `Unauthorized`, `TooManyAttempts`, `StoreUnavailable`."""
        if not authorization:
            raise Unauthorized("a key is needed, on this machine too", hint=_HINT)
        scheme, _, secret = authorization.partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret or len(authorization) > _LONGEST_HEADER:
            raise Unauthorized("the Authorization header is not 'Bearer <key>'", hint=_HINT)
        given = digest(secret)
        if self._is_admins(given):
            return Caller(ADMIN, True, "admin", "admin key", given)
        # The index is looked up by a hash of the secret: its timing tells nothing that helps to find a secret.
        key = await self._store.find_key(given)
        if key is not None:
            self._use.note(key.key_id)
            return Caller(key.owner, key.admin, key.key_id, key.label, given)
        wait = self._wrong.count(address)
        if wait is not None:
            raise TooManyAttempts(
                "too many wrong keys from this address",
                hint="check the key; a right one works at once",
                details={"retry_after_s": round(wait, 1)},
            )
        raise _unknown()

    async def check(self, caller: Caller) -> None:
        """Raises `Unauthorized` when the caller's key was revoked since the request came, `StoreUnavailable`."""
        given = caller.secret_sha256
        if not self._is_admins(given) and await self._store.find_key(given) is None:
            raise _unknown()

    def _is_admins(self, given: str) -> bool:
        return self._admin_digest is not None and hmac.compare_digest(given, self._admin_digest)


def _unknown() -> Unauthorized:
    return Unauthorized("this key is not known here, or was revoked", hint=_HINT)
