"""Which pod of sites is emptied into another: apps come and go, and what is left would be in many pods with little in
each. A pure function of what they have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_MOST = 0.75
"""How full a pod may become by it. It is filled to the end by what is deployed, so that a site more or less does not
make two pods of one and one of two all the time.
"""


@dataclass(frozen=True, slots=True)
class Fill:
    """What a pod has, or may have at most."""

    sites: int
    disk_bytes: int
    takes: bool = True
    """Whether it takes more: one of another release does not."""


def to_empty(pods: Sequence[Fill], most: Fill) -> int | None:
    """Which of them is to be emptied; None: none of them."""
    for one in sorted(range(len(pods)), key=lambda at: pods[at].sites):
        others = [pod for at, pod in enumerate(pods) if at != one and pod.takes and pod.sites]
        if pods[one].sites and any(_hold(pods[one], other, most) for other in others):
            return one
    return None


def _hold(one: Fill, other: Fill, most: Fill) -> bool:
    return (
        one.sites + other.sites <= most.sites * _MOST
        and one.disk_bytes + other.disk_bytes <= most.disk_bytes * _MOST
    )  # fmt: skip
