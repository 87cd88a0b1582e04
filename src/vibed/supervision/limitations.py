"""What does not hold for sandboxes on this machine, and what to do about it.

A driver's level says what stands between an app and the machine; this says what else it would have as root.
"""

from __future__ import annotations

from vibed.supervision.cgroups import Cgroups


def limitations(cgroups: Cgroups, *, privileged: bool) -> tuple[str, ...]:
    """One sentence each, with its cure; nothing where everything holds."""
    found = []
    if not privileged:
        found.append(
            "without root all sandboxes have one uid, that of vibeD's user, and nothing is mounted into a warm one; "
            "run vibeD with sudo for uids of their own"
        )
    if cgroups.missing:
        found.append("; ".join(part for part in (cgroups.detail, cgroups.cure) if part))
    return tuple(found)
