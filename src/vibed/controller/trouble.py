"""How versions fail: how often, whether it is their fault, and when one is given up for an older one. Pure, too."""

from __future__ import annotations

from dataclasses import dataclass

PROVING_S = 10.0
"""A version that ends by itself before it has served this long was no good; so long the one before is kept at hand."""
SOUND_AFTER_S = 60.0
"""A version of which a run has served this long is sound, and what it does later is bad luck: the count of crashes is
cleared, and it is never given up for an older one."""
MAX_BACKOFF_S = 60.0
LOST_ATTEMPTS = 5
"""How often a version that was never Ready is tried again when its sandbox (not the app) failed."""
AGAIN = (
    f"It is tried again by itself, every {MAX_BACKOFF_S:g} s at the slowest; deploy a corrected version to end this "
    "sooner."
)
RUNS_AGAIN = (
    f"It runs again, and counts as Ready when it has for {SOUND_AFTER_S:g} s; deploy a corrected version to end this "
    "sooner."
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """How the latest attempts of one version failed."""

    reason: str
    message: str
    count: int = 1
    retry_at: float = 0.0
    app_fault: bool = True
    """Whether the app (not its sandbox) failed: a version that never served is then not tried again."""
    served_s: float | None = None
    """How long the last run of it had served when it ended; None: it never did."""


def backoff(crashes: int) -> float:
    """Seconds until the next attempt after so many failures in a row: 0, 1, 2, 4 … 60."""
    return 0.0 if crashes <= 1 else min(MAX_BACKOFF_S, 2.0 ** (crashes - 2))


def loops(trouble: Trouble) -> bool:
    """Whether it failed so often in a row that this is no bad luck any more."""
    return trouble.count > 2


def gives_way(trouble: Trouble, *, sound: bool, lived: bool, older: int | None) -> bool:
    """Whether a version that failed is given up. One that never served is when it is its own fault, or nothing helps.
    One that did serve only makes room for an older one that was good, and only while it has not proven to be sound:
    when it ended at once, or again.
    """
    if not lived:
        return trouble.app_fault or trouble.count >= LOST_ATTEMPTS
    if sound or older is None or not trouble.app_fault:
        return False
    return trouble.count > 1 or (trouble.served_s is not None and trouble.served_s < PROVING_S)


def failed_so_far(version: int, trouble: Trouble, then: str) -> str:
    """What happened to a version, and what comes `then`."""
    times = "once" if trouble.count == 1 else f"{trouble.count} times in a row"
    return f"version {version} failed {times}: {trouble.message} {then}"
