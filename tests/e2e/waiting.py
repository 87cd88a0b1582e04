"""Waiting for something to become true, with a deadline that only a defect reaches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NeverTrue(AssertionError):
    """What was waited for did not come."""


def eventually(check: Callable[[], T], what: str, *, within_s: float = 60.0, every_s: float = 0.05) -> T:
    """The first value of `check` that is true. Errors that `check` raises count as not yet; the last one is told."""
    deadline = time.monotonic() + within_s
    last: object = None
    while True:
        try:
            value = check()
            if value:
                return value
            last = value
        except (AssertionError, OSError, ValueError, LookupError, RuntimeError) as error:
            last = error
        except Exception as error:  # what an HTTP client raises while nothing listens
            if type(error).__module__.partition(".")[0] not in ("httpx", "httpcore", "websockets"):
                raise
            last = error
        if time.monotonic() > deadline:
            raise NeverTrue(f"not within {within_s:g} s: {what}; at last: {last!r}")
        time.sleep(every_s)
