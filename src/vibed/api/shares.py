"""How much of what all clients share one key may hold at the same time: requests, uploads, streams.

Each is a connection through Caddy and a descriptor or two on both sides, and an upload holds memory too. A client that
needs more does one thing after the other; who is refused is told how many there may be, and when to come back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from vibed.api.errors import TooManyAtOnce

AT_ONCE = {"requests": 600, "uploads": 200, "streams": 250}
"""By kind; every request is one of the first."""
RETRY_AFTER_S = 5


class Shares:
    """What each key holds just now."""

    def __init__(self) -> None:
        self._held: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def hold(self, key_id: str, kind: str) -> Iterator[None]:
        """For as long as it lasts. Raises `TooManyAtOnce`."""
        share = (key_id, kind)
        if self._held[share] >= AT_ONCE[kind]:
            raise TooManyAtOnce(
                f"this key has {AT_ONCE[kind]} {kind} open, which is as many as it may have at once",
                hint="end some of them, or wait until they have ended",
                details={"kind": kind, "limit": AT_ONCE[kind], "retry_after_s": RETRY_AFTER_S},
            )
        self._held[share] += 1
        try:
            yield
        finally:
            self._held[share] -= 1
            if not self._held[share]:
                del self._held[share]
