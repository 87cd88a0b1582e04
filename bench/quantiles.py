"""What is left of a series of measurements: how many, the middle, the tails."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of `n` samples in one unit. A quantile is a sample that was seen (nearest rank), never an interpolation."""

    n: int
    p50: float
    p90: float
    p99: float
    least: float
    most: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> Quantiles:
        """Raises ValueError for no samples: there is nothing to say about them."""
        ordered = sorted(samples)
        if not ordered:
            raise ValueError("no samples")
        return cls(
            n=len(ordered),
            p50=at_rank(ordered, 0.50),
            p90=at_rank(ordered, 0.90),
            p99=at_rank(ordered, 0.99),
            least=ordered[0],
            most=ordered[-1],
        )


def at_rank(ordered: Sequence[float], fraction: float) -> float:
    """The smallest of the sorted samples that at least `fraction` of them do not exceed."""
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]
