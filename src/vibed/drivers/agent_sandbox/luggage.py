"""What a pod is given, packed: it lies on a volume of the pod until it is unpacked. A pod whose volume has outgrown its
size is evicted, which says nothing to the app's owner, and would happen to the next pod too. So it is refused before.
"""

from __future__ import annotations

from vibed.sandboxes.driver import RunFailed


class Luggage:
    """Of one run."""

    def __init__(self, most: int) -> None:
        """`most`: bytes of all of it."""
        self._most = most
        self._size = 0

    def add(self, size: int) -> None:
        """Raises `RunFailed` where it is too much."""
        self._size += size
        if self._size > self._most:
            raise RunFailed(
                f"what it consists of takes {-(-self._size >> 20)} MB packed, and its sandbox has {self._most >> 20}",
                code="DiskFull",
                hint="leave out what it does not need; or ask the operator: disk_mb of its template decides",
            )
