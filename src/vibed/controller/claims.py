"""Sandboxes on Kubernetes: its pools are kept warm by agent-sandbox, and a claim is one object in the API.

Stands where `vibed.sandboxes.pool.WarmPools` stands on one machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from vibed.sandboxes.driver import Driver, Sandbox
from vibed.sandboxes.pool import Figures, Key


class ClusterPools:
    """`told` tells the pools' figures, as their objects have them."""

    def __init__(self, driver: Driver, told: Callable[[], Mapping[Key, Figures]]) -> None:
        self._driver = driver
        self._told = told

    async def claim(self, driver: str, template: str) -> Sandbox:
        """A place for one run; the claim itself is made when it runs. Raises `BootFailed`."""
        return await self._driver.boot(template, urgent=True)

    @contextlib.contextmanager
    def deploying(self) -> Iterator[None]:
        """Nothing: who refills the pools is not on this processor."""
        yield

    def figures(self) -> Mapping[Key, Figures]:
        return self._told()
