"""An app's own domains: names beside `<id>.<domain>` that lead to it once their owner has shown that they are theirs.

That is shown by a TXT record at `_vibed.<name>` with a token that was made for this name and this app, and is kept
nowhere but in this vibeD's store: a record for another app, or of an app of that name that was deleted, shows nothing.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from vibed.apps.errors import NotFound, VibedError

MOST = 20
"""Of one app: for each, a certificate may be asked for."""
MOST_LABELS = 8
"""What the router can tell apart (`vibed.router.caddyfile`)."""
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LOCAL = frozenset({"localhost", "local", "internal", "localdomain", "onion", "arpa", "invalid"})
"""Top-level names for which nobody can own anything (RFC 6761 and its like)."""
_FILES = frozenset({"sock", "known"})
"""Labels that are endings of the router's own files (`vibed.router.markers`)."""
_PREFIX = "vibed="


class InvalidDomain(VibedError):
    """A name that cannot be an app's own domain here."""

    code = "InvalidDomain"
    status = 422


class DomainTaken(VibedError):
    """The name leads to another app already; nothing is told about which."""

    code = "DomainTaken"
    status = 409


class TooManyDomains(VibedError):
    """The app has as many as it may have."""

    code = "TooManyDomains"
    status = 409


class NotVerified(VibedError):
    """The record that shows whose the domain is was not found."""

    code = "NotVerified"
    status = 409
    retryable = True


@dataclass(frozen=True, slots=True)
class Domain:
    """A name that an app's owner wants to lead to the app. Times are Unix seconds."""

    name: str
    app_id: str
    token: str
    created_at: float
    created_by: str
    verified_at: float | None = None
    """When the record was seen; until then the name leads nowhere."""

    @classmethod
    def wanted(cls, name: str, app_id: str, by: str, at: float) -> Self:
        """With a token that nobody can guess and that was never used."""
        return cls(name, app_id, secrets.token_hex(16), at, by)

    @property
    def record(self) -> str:
        """Where the TXT record belongs."""
        return f"_vibed.{self.name}"

    @property
    def text(self) -> str:
        """What it has to say."""
        return f"{_PREFIX}{self.token}"

    def shown_by(self, texts: Collection[str]) -> bool:
        """Whether one of the texts at `record` is the one."""
        return any(secrets.compare_digest(text.strip().encode(), self.text.encode()) for text in texts)


def absent(app_id: str, name: str) -> NotFound:
    """That the app has no such domain."""
    return NotFound(f"{app_id!r} has no domain {name[:80]!r}", hint="list its domains to see their names")


def taken(name: str) -> DomainTaken:
    """That another app has it."""
    return DomainTaken(f"{name!r} leads to another app here", hint="it has to be removed from that app first")


def too_many(app_id: str) -> TooManyDomains:
    """That the app may have no more."""
    return TooManyDomains(f"{app_id!r} has {MOST} domains, which is all it may have", hint="remove one first")


def check(name: str, own: str, reserved: Collection[str] = ()) -> str:
    """Return `name` as it is kept when it can be an app's domain; `own` is vibeD's. Raises `InvalidDomain`."""
    plain = name.strip().rstrip(".").lower()
    if not plain.isascii():
        raise InvalidDomain(f"{name[:80]!r} has letters beyond ASCII", hint=_encoded(plain))
    labels = plain.split(".")
    if labels[0] == "*":
        raise InvalidDomain("a wildcard cannot be an app's domain", hint="add each name")
    right = len(plain) <= 240 and all(_LABEL.fullmatch(label) for label in labels)
    if not right or not 2 <= len(labels) <= MOST_LABELS or labels[-1].isdigit() or _FILES & set(labels):
        raise InvalidDomain(
            f"{name[:80]!r} cannot be a domain: it needs two to {MOST_LABELS} labels of letters, digits and hyphens",
            hint="the name alone, e.g. www.example.com: no scheme, no port, no path",
        )
    if labels[-1] in _LOCAL:
        raise InvalidDomain(f"nobody can own {plain!r}", hint="use a name that is in the public DNS")
    for other in (own, *(entry for entry in reserved if "." in entry)):
        if plain == other or plain.endswith(f".{other}"):
            raise InvalidDomain(
                f"{plain!r} is a name of vibeD's own", hint=f"apps are at <id>.{own}; a domain of yours is elsewhere"
            )
    return plain


def _encoded(name: str) -> str:
    try:
        return f"use its encoded form, {name.encode('idna').decode()!r}"
    except UnicodeError:
        return "use its encoded form, xn--…"
