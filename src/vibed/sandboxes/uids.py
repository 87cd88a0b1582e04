"""The uids of sandboxes: each that is alive has its own, taken from the range of this vibeD.

Nothing is stored: which are taken follows from the `spec.json` of the sandboxes that are there.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from vibed.sandboxes.driver import BootFailed


class UidPool:
    """Hands out uids. Those that were given back longest ago come last, so that a file that one sandbox left
    somewhere does not soon belong to another.
    """

    def __init__(self, uids: range, sandboxes: Path) -> None:
        self._uids = uids
        self._taken: set[int] = set()
        self._next = 0
        for spec in sandboxes.glob("*/spec.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                self._taken.add(int(json.loads(spec.read_text())["uid"]))
        if self._taken & set(uids[-1:]) or not self._taken:
            return
        self._next = max((uids.index(uid) for uid in self._taken if uid in uids), default=-1) + 1

    def take(self) -> int:
        """A uid that no live sandbox has; without root all share the one of the user. Raises `BootFailed`."""
        if len(self._uids) == 1:
            return self._uids[0]
        for offset in range(len(self._uids)):
            place = (self._next + offset) % len(self._uids)
            uid = self._uids[place]
            if uid not in self._taken:
                self._taken.add(uid)
                self._next = place + 1
                return uid
        raise BootFailed(f"all {len(self._uids)} uids for sandboxes are taken")

    def give_back(self, uid: int) -> None:
        """The sandbox is gone. Giving back twice is harmless."""
        self._taken.discard(uid)
