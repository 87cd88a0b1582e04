"""One controller leads, whatever becomes of it: ended, killed, frozen; and never two at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.cluster.candidate import NAME, RENEW
from tests.cluster.cluster import Cluster, Namespace
from tests.cluster.control_plane import ControlPlane
from tests.e2e.waiting import eventually
from vibed.cluster.client import Client
from vibed.cluster.election import Election, Leader
from vibed.cluster.kinds import LEASE

REPOSITORY = Path(__file__).parents[2]
FOR_EVER_S = 3600.0
"""A lease that does not end while a test waits."""
SHORT_S = 3.0


class Candidate:
    """One process of tests.cluster.candidate, and when it led."""

    def __init__(self, cluster: Cluster, namespace: Namespace, lease_s: float) -> None:
        self._log = cluster.folder / f"{namespace}-{os.urandom(3).hex()}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.candidate", cluster.config, namespace.name, str(lease_s)],
                cwd=REPOSITORY,
                stdout=log,
            )

    @property
    def led(self) -> list[float]:
        """Moments at which it surely led."""
        return [float(line) for line in self._log.read_text().splitlines() if line]

    def leads(self) -> None:
        """Wait until it leads, from now on."""
        before = len(self.led)
        eventually(lambda: len(self.led) > before, "it leads")


class Candidates:
    def __init__(self, cluster: Cluster, namespace: Namespace) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.all: list[Candidate] = []

    def stand(self, lease_s: float) -> Candidate:
        self.all.append(Candidate(self.cluster, self.namespace, lease_s))
        return self.all[-1]

    def reigns(self, lease_s: float, *, given_back: bool = False) -> list[int]:
        """Who led after whom. Fails where two did not leave between them the time that is to lie there."""
        moments = sorted((moment, number) for number, one in enumerate(self.all) for moment in one.led)
        order = [moments[0][1]]
        for (before, old), (after, new) in pairwise(moments):
            if old != new:
                assert given_back or after - before >= lease_s * (1 - RENEW), "they led at the same time"
                order.append(new)
        return order


@pytest.fixture
def candidates(cluster: Cluster, namespace: Namespace) -> Iterator[Candidates]:
    made = Candidates(cluster, namespace)
    yield made
    for one in made.all:
        one.process.kill()
        one.process.wait()


def test_a_leader_that_is_ended_gives_the_lease_back_and_the_next_need_not_wait(candidates: Candidates) -> None:
    first = candidates.stand(FOR_EVER_S)
    first.leads()
    second = candidates.stand(FOR_EVER_S)
    first.process.terminate()
    assert first.process.wait(30) == 0
    second.leads()
    assert candidates.reigns(FOR_EVER_S, given_back=True) == [0, 1]


def test_a_leader_that_is_killed_is_followed_when_its_lease_has_ended(candidates: Candidates) -> None:
    first = candidates.stand(SHORT_S)
    first.leads()
    second = candidates.stand(SHORT_S)
    first.process.kill()
    second.leads()
    assert candidates.reigns(SHORT_S) == [0, 1]


def test_a_leader_that_was_frozen_does_not_lead_on_beside_its_successor(candidates: Candidates) -> None:
    first = candidates.stand(SHORT_S)
    first.leads()
    second = candidates.stand(SHORT_S)
    first.process.send_signal(signal.SIGSTOP)
    second.leads()
    first.process.send_signal(signal.SIGCONT)
    for _ in range(20):
        second.leads()
    assert candidates.reigns(SHORT_S) == [0, 1]
    # and is a candidate again
    second.process.kill()
    first.leads()
    assert candidates.reigns(SHORT_S) == [0, 1, 0]


def test_while_the_api_server_is_away_nobody_begins_to_lead_beside_the_leader(
    candidates: Candidates, own_cluster: ControlPlane
) -> None:
    first = candidates.stand(SHORT_S)
    first.leads()
    second = candidates.stand(SHORT_S)
    own_cluster.restart_api_server(crash=True)
    before = len(first.led) + len(second.led)
    eventually(lambda: len(first.led) + len(second.led) > before, "one of them leads")
    assert candidates.reigns(SHORT_S) in ([0], [0, 1])


@contextlib.asynccontextmanager
async def leading(client: Client) -> AsyncIterator[Election]:
    """An election that is won; for as long as the block lasts."""
    election = Election(client, NAME, annotations={"vibed.dev/address": "10.0.0.1:8443"})
    began = asyncio.Event()

    async def lead() -> None:
        began.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(election.run(lead))
    try:
        async with asyncio.timeout(60):
            await began.wait()
        yield election
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_an_account_with_the_rights_of_the_chart_can_stand_and_the_lease_says_who_leads_and_where(
    cluster: Cluster, namespace: Namespace
) -> None:
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    config = namespace.service_account(
        "controller",
        rules=[
            {**leases, "verbs": ["create"]},
            {**leases, "verbs": ["get", "list", "watch", "update"], "resourceNames": [NAME]},
        ],
    )
    client = Client.connect(kubeconfig=config, namespace=namespace.name)
    async with leading(client) as election:
        leader = Leader.of(await client.get(LEASE, NAME))
        assert leader == Leader(election.identity, {"vibed.dev/address": "10.0.0.1:8443"}, term=0)
        assert election.leading
    assert Leader.of(await client.get(LEASE, NAME)) is None
    async with leading(client):
        leader = Leader.of(await client.get(LEASE, NAME))
        assert leader is not None and leader.term == 1
    await client.close()


async def test_a_lease_that_somebody_deletes_is_taken_anew(cluster: Cluster, namespace: Namespace) -> None:
    client = Client.connect(kubeconfig=cluster.config, namespace=namespace.name)
    async with leading(client) as election:
        uid = (await client.get(LEASE, NAME))["metadata"]["uid"]
        await client.delete(LEASE, NAME)

        async def anew() -> bool:
            found = await client.objects(LEASE)
            return bool(found.items) and found.items[0]["metadata"]["uid"] != uid and election.leading

        async with asyncio.timeout(60):
            while not await anew():
                await asyncio.sleep(0.1)
    await client.close()
