"""Never do two lead together, and somebody always does in the end: against an API that loses answers and breaks off."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from cluster_api import Api
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import run

from vibed.cluster.election import Election, Leader
from vibed.cluster.errors import KubeUnavailable
from vibed.cluster.kinds import LEASE, Kind, Object

NAME = "vibed-controller"


class Way(Api):
    """One candidate's way to the API of all, which may be cut, be slow, or lose answers to what was carried out."""

    def __init__(self, api: Api, chance: random.Random) -> None:
        self._api, self._chance = api, chance
        self.cut = False
        self.loses = 0.0
        """How probably an answer is lost."""
        self.slow_s = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self._api, name)

    async def _slowly(self, call: Callable[[], Awaitable[Object]]) -> Object:
        if self.cut:
            await asyncio.sleep(3.0)
            raise KubeUnavailable("no way")
        await asyncio.sleep(self._chance.uniform(0.0, self.slow_s))
        answer = await call()
        await asyncio.sleep(self._chance.uniform(0.0, self.slow_s))
        if self.cut or self._chance.random() < self.loses:
            raise KubeUnavailable("the answer was lost", uncertain=True)
        return answer

    async def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> Object:
        return await self._slowly(lambda: self._api.get(kind, name))

    async def create(self, kind: Kind, body: Object, *, namespace: str | None = None) -> Object:
        return await self._slowly(lambda: self._api.create(kind, body))

    async def replace(self, kind: Kind, body: Object, *, namespace: str | None = None, subresource: str = "") -> Object:
        return await self._slowly(lambda: self._api.replace(kind, body))


@dataclass
class Land:
    """Candidates, and who of them leads."""

    api: Api = field(default_factory=Api)
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    ways: list[Way] = field(default_factory=list)
    candidates: list[Election] = field(default_factory=list)
    runs: list[asyncio.Task[None]] = field(default_factory=list)
    leads: list[int] = field(default_factory=list)
    """Who does what a leader does, at this moment."""
    terms: list[int] = field(default_factory=list)
    overrun: list[int] = field(default_factory=list)

    def candidate(self, *, stubborn_s: float = 0.0) -> int:
        """Another one stands for election; it takes `stubborn_s` to stop leading."""
        number = len(self.candidates)
        way = Way(self.api, self.chance)
        election = Election(
            way,
            NAME,
            identity=f"c{number}",
            annotations={"address": f"10.0.0.{number}"},
            clock=asyncio.get_running_loop().time,
            overrun=lambda: self.overrun.append(number),
        )

        async def lead() -> None:
            self.leads.append(number)
            self.terms.append(number)
            assert len(self.leads) == 1, "two do what a leader does"
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(stubborn_s)
                self.leads.remove(number)

        self.ways.append(way)
        self.candidates.append(election)
        self.runs.append(asyncio.create_task(election.run(lead)))
        return number

    @property
    def leading(self) -> list[int]:
        return [number for number, one in enumerate(self.candidates) if one.leading]

    async def stop(self) -> None:
        for one in self.runs:
            one.cancel()
        await asyncio.wait(self.runs)
        for one in self.runs:
            assert one.cancelled()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(
        st.tuples(st.sampled_from(["cut", "join", "slow", "lose", "well", "delete", "wait"]), st.integers(0, 2)),
        max_size=25,
    ),
)
def test_two_never_lead_together_and_in_the_end_one_leads(seed: int, steps: list[tuple[str, int]]) -> None:
    async def main() -> None:
        chance = random.Random(seed)
        land = Land(chance=chance)
        for _ in range(3):
            land.candidate(stubborn_s=chance.uniform(0.0, 3.0))

        async def observe() -> None:
            while True:
                await asyncio.sleep(0.05)
                assert len(land.leading) <= 1
                assert len(land.leads) <= 1

        observing = asyncio.create_task(observe())
        for what, which in steps:
            way = land.ways[which]
            if what in ("cut", "join"):
                way.cut = what == "cut"
            elif what == "slow":
                way.slow_s = 6.0
            elif what == "lose":
                way.loses = 0.5
            elif what == "well":
                way.cut, way.slow_s, way.loses = False, 0.0, 0.0
            elif what == "delete" and len(land.leads) == 0:
                land.api.remove(NAME)
            await asyncio.sleep(chance.uniform(0.0, 20.0))
            assert not observing.done(), observing.exception()
        for way in land.ways:
            way.cut, way.slow_s, way.loses = False, 0.0, 0.0
        await asyncio.sleep(120.0)
        assert not observing.done(), observing.exception()
        assert len(land.leading) == 1 and land.leads == land.leading
        assert land.overrun == []
        observing.cancel()
        await land.stop()
        assert land.leads == []

    run(main())


def test_a_leader_that_stops_gives_the_lease_back_and_another_takes_it_at_once() -> None:
    async def main() -> None:
        land = Land()
        first = land.candidate()
        await asyncio.sleep(1.0)
        second = land.candidate()
        await asyncio.sleep(60.0)
        assert land.leads == [first]
        loop = asyncio.get_running_loop()
        land.runs[first].cancel()
        stopped = loop.time()
        while land.leads != [second]:
            await asyncio.sleep(0.01)
            assert loop.time() - stopped < 1.0, "it did not wait for the end of the lease"
        await land.stop()

    run(main())


def test_a_leader_that_dies_is_followed_by_another_when_its_lease_has_ended() -> None:
    async def main() -> None:
        land = Land()
        first = land.candidate()
        await asyncio.sleep(1.0)
        second = land.candidate()
        await asyncio.sleep(10.0)
        land.ways[first].cut = True
        await asyncio.sleep(60.0)
        assert land.leads == [second]
        assert land.candidates[first].leading is False
        await land.stop()

    run(main())


def test_everybody_knows_who_leads_and_where() -> None:
    async def main() -> None:
        land = Land()
        first = land.candidate()
        await asyncio.sleep(1.0)
        second = land.candidate()
        await asyncio.sleep(1.0)
        expected = Leader(f"c{first}", {"address": f"10.0.0.{first}"}, term=0)
        assert land.candidates[first].leader == land.candidates[second].leader == expected
        await land.stop()
        assert Leader.of(land.api.objects_now[NAME]) is None
        assert land.api.objects_now[NAME]["metadata"]["annotations"] == {}

    run(main())


def test_nobody_is_said_to_lead_whose_lease_has_ended() -> None:
    async def main() -> None:
        land = Land()
        land.api.write(NAME, {"spec": {"holderIdentity": "dead", "leaseDurationSeconds": 15, "leaseTransitions": 4}})
        one = land.candidate()
        land.ways[one].cut = True
        await asyncio.sleep(10.0)
        found = land.candidates[one].leader
        assert found is not None and found.identity == "dead"
        await asyncio.sleep(10.0)
        assert land.candidates[one].leader is None
        land.ways[one].cut = False
        await asyncio.sleep(10.0)
        assert land.candidates[one].leader == Leader("c0", {"address": "10.0.0.0"}, term=5)
        await land.stop()

    run(main())


def test_a_leader_that_cannot_renew_stops_before_another_may_begin() -> None:
    async def main() -> None:
        land = Land()
        one = land.candidate(stubborn_s=4.0)
        await asyncio.sleep(30.0)
        loop = asyncio.get_running_loop()
        land.ways[one].cut = True
        cut = loop.time()
        while land.candidates[one].leading:
            await asyncio.sleep(0.1)
        while land.leads:
            await asyncio.sleep(0.1)
        assert loop.time() - cut < 15.0
        assert land.overrun == []
        await land.stop()

    run(main())


def test_one_that_does_not_stop_in_time_is_ended() -> None:
    async def main() -> None:
        land = Land()
        one = land.candidate(stubborn_s=60.0)
        await asyncio.sleep(1.0)
        land.ways[one].cut = True
        await asyncio.sleep(16.0)
        assert land.overrun == [one]
        await asyncio.sleep(60.0)
        await land.stop()

    run(main())


def test_while_a_leader_closes_down_it_still_renews() -> None:
    async def main() -> None:
        land = Land()
        one = land.candidate(stubborn_s=300.0)
        await asyncio.sleep(1.0)
        two = land.candidate()
        await asyncio.sleep(1.0)
        land.runs[one].cancel()
        await asyncio.sleep(290.0)
        assert land.leads == [one] and land.candidates[one].leading
        await asyncio.sleep(20.0)
        assert land.leads == [two]
        await land.stop()

    run(main())


def test_somebody_elses_word_on_the_lease_does_not_end_the_lead() -> None:
    async def main() -> None:
        land = Land()
        one = land.candidate()
        await asyncio.sleep(5.0)
        lease = land.api.objects_now[NAME]
        noted = {**lease["metadata"], "annotations": {**lease["metadata"]["annotations"], "note": "kept"}}
        land.api.write(NAME, {"spec": lease["spec"]}, noted)
        await asyncio.sleep(60.0)
        assert land.leads == [one] and land.terms == [one]
        assert land.api.objects_now[NAME]["metadata"]["annotations"]["note"] == "kept"
        await land.stop()

    run(main())


def test_a_lease_that_is_deleted_ends_the_lead() -> None:
    async def main() -> None:
        land = Land()
        one = land.candidate()
        await asyncio.sleep(5.0)
        land.api.remove(NAME)
        await asyncio.sleep(30.0)
        assert land.terms == [one, one], "it led, and then took the Lease anew"
        await land.stop()

    run(main())


def test_what_the_leader_does_ends_the_election_when_it_ends_or_fails() -> None:
    async def main() -> None:
        api = Api()

        async def done() -> None:
            await asyncio.sleep(1.0)

        async def fails() -> None:
            raise ZeroDivisionError

        await Election(api, NAME, clock=asyncio.get_running_loop().time).run(done)
        assert Leader.of(await api.get(LEASE, NAME)) is None
        with pytest.raises(ZeroDivisionError):
            await Election(api, NAME, clock=asyncio.get_running_loop().time).run(fails)
        assert Leader.of(await api.get(LEASE, NAME)) is None

    run(main())


def test_times_that_would_let_two_lead_are_refused() -> None:
    with pytest.raises(ValueError, match="before another may begin"):
        Election(Api(), NAME, lease_s=10.0, renew_s=10.0)
