"""The client's `Idempotency-Key`, with a fingerprint of the request that it came with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from vibed.api.errors import MalformedRequest
from vibed.api.metadata import Metadata
from vibed.apps.store import Idempotency


def idempotency(key: str | None, what: str, app_id: str, metadata: Metadata, digest: str) -> Idempotency | None:
    """None without a key. Raises `MalformedRequest`."""
    if key is None:
        return None
    if not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
        raise MalformedRequest("Idempotency-Key must be 1 to 255 printable ASCII characters", hint="use a UUID")
    request = json.dumps([what, app_id, asdict(metadata), digest], sort_keys=True, default=dict)
    return Idempotency(key, hashlib.sha256(request.encode()).hexdigest())
