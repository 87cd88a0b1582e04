"""The policy of warm pools, without I/O, and the thin loop around it, with a driver that boots at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from vibed.apps.app import Runtime
from vibed.sandboxes.driver import (
    BootFailed,
    Builder,
    Claimed,
    Endpoint,
    Exit,
    Isolation,
    Limits,
    Probe,
    Run,
    Sandbox,
    SandboxLost,
    Started,
    State,
)
from vibed.sandboxes.pool import Actions, Claim, Key, Shelf, WarmPools, decide
from vibed.supervision.base import SupervisedDriver
from vibed.supervision.cgroups import Group
from vibed.supervision.death import Death
from vibed.supervision.place import Place
from vibed.supervision.roots import Root
from vibed.supervision.supervised import Supervised

PY: Key = ("gvisor", "python-313")
JS: Key = ("workerd", "workerd")


class Box:
    """A sandbox that is only remembered."""

    def __init__(self, name: str = "", *, key: Key = PY, digest: str = "d1") -> None:
        self.id = name
        self.driver, self.template = key
        self.template_digest = digest
        self.state = State.WARM
        self.claimed: Claimed | None = None
        self.endpoint: Endpoint | None = None
        self.exit: Exit | None = None
        self.destroyed = False
        self._gone = asyncio.Event()

    async def run(self, run: Run, *, socket: Path, log_dir: Path, on_stage: Callable[[str], None]) -> Started:
        raise NotImplementedError

    async def drain(self, deadline_s: float) -> None:
        await self.destroy()

    async def destroy(self, grace_s: float = 2.0) -> None:
        self.destroyed = True
        self.die()

    def die(self) -> None:
        self.state = State.EXITED
        self._gone.set()

    async def wait(self) -> Exit:
        await self._gone.wait()
        return Exit(0, None, False, 0.0)


def shelf(size: int, *boxes: Box, waiting: int = 0, booting: int = 0, urgent: int = 0, retry_at: float = 0.0) -> Shelf:
    claims = deque(Claim() for _ in range(waiting))
    return Shelf(size, deque[Sandbox](boxes), claims, booting, urgent, retry_at=retry_at)


def decided(shelves: dict[Key, Shelf], *, now: float = 100.0, boots: int = 1, busy: int = 0) -> Actions:
    return decide(shelves, now=now, boots_at_once=boots, busy=busy)


class TestPolicy:
    def test_a_full_shelf_wants_nothing(self) -> None:
        assert decided({PY: shelf(1, Box())}) == Actions()

    def test_an_empty_shelf_is_filled_one_boot_at_a_time(self) -> None:
        shelves = {PY: shelf(3)}
        assert decided(shelves).boot == (PY,)
        assert decided(shelves).boot == ()

    def test_as_many_boots_run_at_once_as_are_allowed_in_all(self) -> None:
        assert len(decided({PY: shelf(3), JS: shelf(3)}, boots=2).boot) == 2

    def test_the_emptiest_shelf_is_filled_first(self) -> None:
        assert decided({PY: shelf(2, Box()), JS: shelf(4)}).boot == (JS,)

    def test_who_waits_gets_the_oldest_warm_sandbox(self) -> None:
        old, new = Box("old"), Box("new")
        shelves = {PY: shelf(2, old, new, waiting=1)}
        given = decided(shelves, busy=1).give
        assert [box.id for _, box in given] == ["old"]
        assert list(shelves[PY].warm) == [new]
        assert shelves[PY].claimed == 1

    def test_a_sandbox_that_died_on_the_shelf_is_given_to_nobody(self) -> None:
        dead = Box("dead")
        dead.die()
        actions = decided({PY: shelf(1, dead, waiting=1)}, busy=1)
        assert actions.give == ()
        assert (actions.boot, actions.urgent) == ((), (PY,))
        assert actions.destroy == ()

    def test_who_waits_in_vain_gets_an_urgent_boot_whatever_the_limit(self) -> None:
        shelves = {PY: shelf(0, waiting=3, booting=1, urgent=1), JS: shelf(0, booting=1)}
        actions = decided(shelves, boots=1, busy=3)
        assert (actions.boot, actions.urgent) == ((), (PY, PY))

    def test_a_boot_for_the_shelf_takes_too_long_for_who_waits(self) -> None:
        shelves = {PY: shelf(1, waiting=1, booting=1)}
        assert decided(shelves, busy=1).urgent == (PY,)
        assert decided(shelves, busy=1).urgent == ()

    def test_a_boot_for_who_waits_does_not_wait_for_a_back_off(self) -> None:
        assert decided({PY: shelf(1, waiting=1, retry_at=999)}, busy=1).urgent == (PY,)

    def test_while_deploys_are_under_way_a_shelf_with_something_on_it_is_not_refilled(self) -> None:
        assert decided({PY: shelf(3, Box())}, busy=1).boot == ()
        assert decided({PY: shelf(3, Box())}, busy=0).boot == (PY,)

    def test_while_deploys_are_under_way_an_empty_shelf_is_refilled_once(self) -> None:
        shelves = {PY: shelf(3)}
        assert decided(shelves, boots=4, busy=1).boot == (PY,)

    def test_a_boot_that_is_meant_for_who_waits_does_not_count_as_refill(self) -> None:
        shelves = {PY: shelf(1, waiting=1, booting=1, urgent=1)}
        assert decided(shelves, boots=2).boot == (PY,)

    def test_failing_boots_wait_for_their_back_off_and_say_until_when(self) -> None:
        actions = decided({PY: shelf(1, retry_at=105.0), JS: shelf(1, retry_at=103.0)}, now=100.0)
        assert actions.boot == ()
        assert actions.wake_at == 103.0

    def test_after_the_back_off_they_are_tried_again(self) -> None:
        assert decided({PY: shelf(1, retry_at=105.0)}, now=105.0).boot == (PY,)

    def test_what_is_too_much_is_destroyed_newest_first(self) -> None:
        old, new = Box("old"), Box("new")
        shelves = {PY: shelf(1, old, new)}
        assert decided(shelves).destroy == (new,)
        assert list(shelves[PY].warm) == [old]

    def test_a_stale_template_is_destroyed_and_booted_anew(self) -> None:
        old, new = Box("old", digest="d0"), Box("new")
        actions = decide({PY: shelf(2, old, new)}, now=0, boots_at_once=1, busy=0, stale={"d0"})
        assert actions.destroy == (old,)
        assert actions.boot == (PY,)

    def test_who_gave_up_is_given_nothing(self) -> None:
        loop = asyncio.new_event_loop()
        answer: asyncio.Future[Sandbox] = loop.create_future()
        answer.cancel()
        shelves = {PY: Shelf(1, deque([Box()]), deque([Claim(answer)]))}
        loop.close()
        assert decided(shelves, busy=1) == Actions()


class Booting:
    """A driver whose boots take as long as the test wants."""

    name = "gvisor"
    isolation = Isolation.KERNEL

    def __init__(self) -> None:
        self.booted: list[Box] = []
        self.begun = 0
        self.urgent = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.digest = "d1"

    async def probe(self) -> Probe:
        return Probe(True, self.isolation, "")

    async def boot(self, template: str, *, urgent: bool = False, builder: Builder | None = None) -> Sandbox:
        self.begun += 1
        self.urgent += urgent
        digest = self.digest
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        box = Box(f"s{len(self.booted)}", key=(self.name, template), digest=digest)
        self.booted.append(box)
        return box

    async def adopt(self) -> Sequence[Sandbox]:
        return ()

    async def close(self) -> None:
        return None


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


class TestLoop:
    async def test_pools_fill_and_refill_after_a_claim(self) -> None:
        driver = Booting()
        async with WarmPools({"gvisor": driver}, {PY: 2}) as pools:
            await settle()
            assert pools.figures()[PY].ready == 2
            sandbox = await pools.claim(*PY)
            assert sandbox is driver.booted[0]
            await settle()
            assert pools.figures()[PY].ready == 2
            assert pools.figures()[PY].claimed == 1
            assert sandbox not in [driver.booted[1], driver.booted[2]]

    async def test_no_two_claims_get_the_same_sandbox(self) -> None:
        driver = Booting()
        async with WarmPools({"gvisor": driver}, {PY: 3}) as pools:
            await settle()
            got = await asyncio.gather(*(pools.claim(*PY) for _ in range(10)))
            assert len({id(sandbox) for sandbox in got}) == 10

    async def test_a_claim_on_an_empty_pool_boots_one(self) -> None:
        driver = Booting()
        async with WarmPools({"gvisor": driver}, {}) as pools:
            assert (await pools.claim(*PY)).template == "python-313"
            await settle()
            assert driver.begun == 1

    async def test_refill_waits_until_the_deploy_is_over(self) -> None:
        driver = Booting()
        async with WarmPools({"gvisor": driver}, {PY: 2}) as pools:
            await settle()
            with pools.deploying():
                await pools.claim(*PY)
                await settle()
                assert driver.begun == 2
            await settle()
            assert driver.begun == 3

    async def test_a_claim_whose_boot_fails_hears_why(self) -> None:
        driver = Booting()
        driver.error = BootFailed("no room")
        async with WarmPools({"gvisor": driver}, {}) as pools:
            with pytest.raises(BootFailed, match="no room"):
                await pools.claim(*PY)

    async def test_failing_boots_back_off_with_a_visible_reason_and_recover(self) -> None:
        driver, clock = Booting(), [0.0]
        driver.error = BootFailed("no room")
        async with WarmPools({"gvisor": driver}, {PY: 1}, clock=lambda: clock[0]) as pools:
            await settle()
            assert driver.begun == 1
            figures = pools.figures()[PY]
            assert (figures.ready, figures.failures, figures.last_error) == (0, 1, "no room")
            driver.error = None
            clock[0] = 2.0
            pools.resize(*PY, 1)
            await settle()
            figures = pools.figures()[PY]
            assert (figures.ready, figures.failures, figures.last_error) == (1, 0, "")

    async def test_a_sandbox_that_dies_on_the_shelf_is_replaced(self) -> None:
        driver = Booting()
        async with WarmPools({"gvisor": driver}, {PY: 1}) as pools:
            await settle()
            driver.booted[0].die()
            await settle()
            assert len(driver.booted) == 2
            assert await pools.claim(*PY) is driver.booted[1]

    async def test_a_boot_is_urgent_for_who_waits_and_not_for_the_shelf(self) -> None:
        driver = Booting()
        async with WarmPools({"gvisor": driver}, {PY: 1}) as pools:
            await settle()
            assert (driver.begun, driver.urgent) == (1, 0)
            await asyncio.gather(pools.claim(*PY), pools.claim(*PY))
            assert driver.urgent == 1

    async def test_what_was_booted_for_a_claimant_that_went_away_is_not_for_the_shelf(self) -> None:
        driver = Booting()
        driver.gate.clear()
        async with WarmPools({"gvisor": driver}, {}) as pools:
            claim = asyncio.create_task(pools.claim(*PY))
            await settle()
            claim.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await claim
            driver.gate.set()
            await settle()
            assert driver.booted[0].destroyed
            assert pools.figures()[PY].ready == 0
            assert pools.figures()[PY].booting == 0

    async def test_it_goes_to_another_that_waits(self) -> None:
        driver = Booting()
        driver.gate.clear()
        async with WarmPools({"gvisor": driver}, {}) as pools:
            claims = [asyncio.create_task(pools.claim(*PY)) for _ in range(2)]
            await settle()
            claims[0].cancel()
            driver.gate.set()
            assert await claims[1] is driver.booted[0]
            await settle()
            assert driver.booted[1].destroyed

    async def test_a_boot_for_the_shelf_that_fails_costs_who_waits_nothing(self) -> None:
        driver = Booting()
        driver.gate.clear()
        driver.error = BootFailed("no room")
        async with WarmPools({"gvisor": driver}, {PY: 1}) as pools:
            await settle()
            release, driver.gate = driver.gate, asyncio.Event()
            claim = asyncio.create_task(pools.claim(*PY))
            await settle()
            release.set()
            await settle()
            assert not claim.done()
            driver.error = None
            driver.gate.set()
            assert await claim is driver.booted[0]

    async def test_a_claimant_that_goes_away_with_its_sandbox_in_hand_loses_none(self) -> None:
        driver = Booting()
        driver.gate.clear()
        async with WarmPools({"gvisor": driver}, {PY: 1}) as pools:
            claim = asyncio.create_task(pools.claim(*PY))
            await settle()
            driver.gate.set()
            while not pools.figures()[PY].claimed:
                await asyncio.sleep(0)
            assert claim.cancel()
            with pytest.raises(asyncio.CancelledError):
                await claim
            await settle()
            assert not driver.booted[0].destroyed
            assert pools.figures()[PY].ready == 1
            assert pools.figures()[PY].claimed == 0

    async def test_adoption_keeps_warm_ones_of_the_right_digest_and_destroys_the_others(self) -> None:
        driver = Booting()
        good, old, other = Box("good"), Box("old", digest="d0"), Box("other", key=("gvisor", "gone"))
        claimed = Box("claimed")
        claimed.claimed, claimed.state = Claimed("a", 1, 1), State.RUNNING
        pools = WarmPools({"gvisor": driver}, {PY: 1}, digest=lambda template: "d1")
        await pools.adopt([good, old, other, claimed])
        async with pools:
            await settle()
            assert driver.begun == 0
            assert await pools.claim(*PY) is good
        assert [box.destroyed for box in (good, old, other, claimed)] == [False, True, True, False]

    async def test_a_new_template_drains_the_old_one_even_from_boots_under_way(self) -> None:
        driver = Booting()
        driver.gate.clear()
        driver.digest = "d0"
        async with WarmPools({"gvisor": driver}, {PY: 1}) as pools:
            await settle()
            driver.digest = "d2"
            pools.drain_template("d0")
            driver.gate.set()
            await settle()
            assert driver.booted[0].destroyed
            assert (await pools.claim(*PY)).template_digest == "d2"

    async def test_closing_leaves_warm_sandboxes_alive_and_nobody_waiting(self) -> None:
        driver = Booting()
        pools = WarmPools({"gvisor": driver}, {PY: 1})
        pools.start()
        await settle()
        driver.gate.clear()
        await pools.claim(*PY)
        waiting = asyncio.create_task(pools.claim(*PY))
        await settle()
        await pools.close()
        with pytest.raises(BootFailed):
            await waiting
        assert [box.destroyed for box in driver.booted] == [False]


class TestOneThatEndsOnTheShelf:
    async def test_it_is_replaced_at_once_but_one_after_the_other_not_without_a_pause(self) -> None:
        driver, clock = Booting(), [1000.0]
        async with WarmPools({"gvisor": driver}, {PY: 2}, clock=lambda: clock[0]) as pools:
            await settle()
            for box in list(driver.booted):
                box.die()
            await settle()
            assert driver.begun == 4
            for _ in range(10):
                driver.booted[-1].die()
                await settle()
            begun = driver.begun
            assert begun <= 6
            assert "end by themselves" in pools.figures()[PY].last_error
            clock[0] += 60
            pools.resize(*PY, 2)
            await settle()
            assert driver.begun > begun
            assert (await pools.claim(*PY)).state is State.WARM, "a deploy never waits for it"

    @pytest.fixture
    async def sandbox(self, tmp_path: Path) -> AsyncIterator[Supervised]:
        process = await asyncio.create_subprocess_exec("sleep", "60")
        owner = cast(SupervisedDriver, SimpleNamespace(name="gvisor"))
        place = Place(tmp_path / "s1", 1, 2)
        group = Group("s1", {}, unified=False)
        death = Death.of_child(process.pid)
        supervised = Supervised(owner, place, Root("python-313", "d1"), group, death)
        supervised.hear_state({"state": "warm"})
        yield supervised
        death.kill()
        await death.wait()

    async def test_it_is_not_handed_out_while_it_is_cleared_away(self, sandbox: Supervised) -> None:
        sandbox._death.kill()
        await sandbox._death.wait()
        assert decided({PY: Shelf(0, deque([sandbox]), deque([Claim()]))}).give == ()

    async def test_whoever_just_got_it_may_try_again(self, sandbox: Supervised) -> None:
        sandbox.hear_state({"state": "exited"})
        with pytest.raises(SandboxLost) as lost:
            run = Run("a", 1, 1, Path("/unused"), Runtime("general", "python-313", "python", "", ""), {}, Limits())
            await sandbox.run(run, socket=Path("/unused"), log_dir=Path("/unused"), on_stage=lambda stage: None)
        assert lost.value.may_retry
