"""Ending every sandbox of one vibeD at once, without a controller: for `vibed down` and `vibed clean`."""

from __future__ import annotations

from vibed.drivers.gvisor import GVisorDriver
from vibed.drivers.process import ProcessDriver
from vibed.drivers.workerd.driver import WorkerdDriver
from vibed.layout import Layout
from vibed.sandboxes.driver import BootFailed
from vibed.supervision.base import SupervisedDriver
from vibed.supervision.host import Host, Programs
from vibed.supervision.roots import Root


class _NoRoots:
    def root(self, template: str) -> Root:
        raise BootFailed("nothing is booted while vibeD is torn down")


async def end_all(layout: Layout, programs: Programs) -> int:
    """End and remove every sandbox below `layout.sandboxes`; returns how many there were."""
    host = Host(layout, programs, _NoRoots())
    drivers: list[SupervisedDriver] = [WorkerdDriver(host), GVisorDriver(host), ProcessDriver(host)]
    ended = 0
    for driver in drivers:
        for sandbox in await driver.adopt():
            await sandbox.destroy(grace_s=2.0)
            ended += 1
        await driver.close()
    host.cgroups.remove()
    return ended
