"""What vibeD's objects in the cluster are called, and the labels and annotations by which they are found."""

from __future__ import annotations

import hashlib

APP = "vibed.dev/app"
"""Label of what belongs to an app: the app's id."""
SOURCE = "vibed.dev/source"
"""Label of an app (its newest version's source) and of a ControllerRevision."""
IDEMPOTENCY = "vibed.dev/idempotency"
"""Label of a ControllerRevision whose deploy had an Idempotency-Key: its hash, with the owner's name."""
KEY = "vibed.dev/key"
"""Label of a Secret that is an API key; its value is the key's id."""
LEDGER = "vibed.dev/ledger"
"""Annotation of a VibedApp (`vibed.cluster.ledger`)."""
DECISION = "vibed.dev/decision"
"""Annotation of a VibedApp that was applied by hand: what was decided of its source."""
DOMAINS = "vibed.dev/domains"
"""Annotation of a VibedApp: its own domains, those that wait for their record too (`vibed.cluster.domains`)."""
DOMAIN = "vibed.dev/domain"
"""Label of a ConfigMap that says which app has a domain: the app's uid."""
TEARDOWN = "vibed.dev/teardown"
"""Finalizer of a VibedApp: it stays until the controller has taken its runs away."""

_LABEL = 63
"""Characters of a DNS label, and of a label's value."""


def bounded(name: str, longest: int = _LABEL) -> str:
    """The name itself, or where it is too long its beginning with a hash of all of it."""
    if len(name) <= longest:
        return name
    return f"{name[: longest - 11].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def revision(app_id: str, number: int) -> str:
    """The ControllerRevision of a version."""
    return bounded(f"{app_id}-v{number}")


def source(digest: str) -> str:
    """A source's digest as the value of a label, which has room for all but the last of its 64 digits."""
    return digest[:_LABEL]


def idempotency(owner: str, key: str) -> str:
    """An owner's Idempotency-Key as the value of a label."""
    return hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()[:40]


def api_key(secret_sha256: str) -> str:
    """The Secret of an API key. Not the hash itself: names are shown where contents are not."""
    return f"vibed-key-{hashlib.sha256(secret_sha256.encode()).hexdigest()[:40]}"


def domain(name: str) -> str:
    """The ConfigMap that says which app has a domain."""
    return f"vibed-domain-{hashlib.sha256(name.encode()).hexdigest()[:40]}"


def field_value(text: str) -> str:
    """A text as the value of a field selector (apimachinery, pkg/fields: EscapeValue)."""
    return text.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
