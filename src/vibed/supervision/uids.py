"""The uids of sandboxes: each that is alive has two of its own, taken from the range of this vibeD.

One is root inside the sandbox (the agent, gVisor's kernel), the next one the app. Nothing is stored: which are taken
follows from the `spec.json` of the sandboxes that are there.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from vibed.sandboxes.driver import BootFailed

_WIDTH = 2


class UidPool:
    """Hands out uids. One that was given back comes last again, so that a file that one sandbox left somewhere does
    not soon belong to another.
    """

    def __init__(self, uids: range, sandboxes: Path) -> None:
        self._firsts = uids[::_WIDTH] if len(uids) > 1 else uids
        self._shared = len(uids) == 1
        self._taken: set[int] = set()
        for spec in sandboxes.glob("*/spec.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                self._taken.add(int(json.loads(spec.read_text())["uid"]))
        # after a change of `uid_base` there are live ones outside the range, or across the pairs
        ours = [uid for uid in self._taken if uid in self._firsts]
        self._next = self._firsts.index(max(ours)) + 1 if ours else 0

    def take(self) -> int:
        """A uid that no live sandbox has. Raises `BootFailed`."""
        if self._shared:
            return self._firsts[0]
        for offset in range(len(self._firsts)):
            place = (self._next + offset) % len(self._firsts)
            uid = self._firsts[place]
            if self._taken.isdisjoint(range(uid - _WIDTH + 1, uid + _WIDTH)):
                self._taken.add(uid)
                self._next = place + 1
                return uid
        raise BootFailed(f"all {len(self._firsts)} uids for sandboxes are taken")

    def app(self, uid: int) -> int:
        """The uid of the app in the sandbox that has `uid`."""
        return uid if self._shared else uid + 1

    def give_back(self, uid: int) -> None:
        """The sandbox is gone. Giving back twice is harmless."""
        self._taken.discard(uid)
