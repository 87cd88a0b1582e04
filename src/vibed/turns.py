"""How often the threads of a Python process take turns.

The event loop and a worker thread share one interpreter lock. Whoever waits for it asks for it after the switch
interval, which is 5 ms by default: a whole deploy of a site takes 10. A thread that waits for the disk (a sync) would
wait that long again, at each of its system calls, for one that computes.
"""

from __future__ import annotations

import sys

_INTERVAL_S = 0.0002


def take_quick_turns() -> None:
    """For processes whose threads wait for each other: call once, at the start."""
    sys.setswitchinterval(_INTERVAL_S)
