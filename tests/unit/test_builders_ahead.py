"""Builders that are booted before somebody needs one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from vibed.runtimes.layers.ahead import Ahead
from vibed.sandboxes.driver import BootFailed, Builder, State

LIMITS = Builder()


@dataclass(eq=False)
class Box:
    template_digest: str
    urgent: bool
    state: State = State.WARM

    async def destroy(self, grace_s: float) -> None:
        self.state = State.EXITED


@dataclass
class Driver:
    digest: str = "1"
    fails: bool = False
    made: list[Box] = field(default_factory=list)

    async def boot(self, template: str, *, urgent: bool = False, builder: Builder | None = None) -> Any:
        if self.fails:
            raise BootFailed("no")
        self.made.append(Box(self.digest, urgent))
        return self.made[-1]

    def ahead(self, *, kept_s: float = 60.0) -> Ahead:
        return Ahead(self, LIMITS, lambda template: self.digest, pause_s=0.0, kept_s=kept_s)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)


async def test_after_one_was_used_the_next_stands_ready() -> None:
    driver = Driver()
    ahead = driver.ahead()
    first = await ahead.boot("python-313", urgent=True, builder=LIMITS)
    await settled()
    second: Any = await ahead.boot("python-313", urgent=True, builder=LIMITS)
    assert [first, second] == driver.made[:2]
    assert [box.urgent for box in driver.made[:2]] == [True, False]
    await ahead.close()


@pytest.mark.parametrize("change", ["another image", "it ended"])
async def test_one_that_is_of_no_use_any_more_is_not_given_out(change: str) -> None:
    driver = Driver()
    ahead = driver.ahead()
    await ahead.boot("python-313", urgent=True, builder=LIMITS)
    await settled()
    if change == "another image":
        driver.digest = "2"
    else:
        driver.made[1].state = State.EXITED
    given: Any = await ahead.boot("python-313", urgent=True, builder=LIMITS)
    assert (given.urgent, given.template_digest, given.state) == (True, driver.digest, State.WARM)
    assert driver.made[1].state is State.EXITED
    await ahead.close()


async def test_one_for_another_size_is_booted_as_ever() -> None:
    driver = Driver()
    ahead = driver.ahead()
    await ahead.boot("python-313", urgent=True, builder=Builder(memory_mb=1))
    await settled()
    assert len(driver.made) == 1


async def test_one_that_nobody_takes_goes_and_all_do_at_the_end() -> None:
    driver = Driver()
    ahead = driver.ahead(kept_s=0.0)
    await ahead.boot("python-313", urgent=True, builder=LIMITS)
    await settled()
    assert [box.state for box in driver.made] == [State.WARM, State.EXITED]
    ahead = driver.ahead()
    await ahead.boot("python-313", urgent=True, builder=LIMITS)
    await settled()
    await ahead.close()
    assert driver.made[-1].state is State.EXITED


async def test_only_the_templates_that_were_used_last_have_one() -> None:
    driver = Driver()
    ahead = driver.ahead()
    for template in ("python-313", "node-24", "go-123"):
        await ahead.boot(template, urgent=True, builder=LIMITS)
        await settled()
    assert len(ahead._ready) == 2
    assert "python-313" not in ahead._ready
    await ahead.close()


async def test_a_boot_ahead_that_fails_is_told_to_nobody() -> None:
    driver = Driver()
    ahead = driver.ahead()
    await ahead.boot("python-313", urgent=True, builder=LIMITS)
    driver.fails = True
    await settled()
    driver.fails = False
    assert await ahead.boot("python-313", urgent=True, builder=LIMITS)
    await ahead.close()
