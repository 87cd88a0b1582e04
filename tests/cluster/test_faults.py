"""What breaks under vibeD on a cluster, and what becomes of the apps: pods and nodes that go, controllers that are
killed in the middle of deploys. All processes are vibeD's own (`tests.cluster.installed`).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator
from random import Random
from secrets import token_hex

import pytest
import pytest_asyncio

from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.installed import Installed, in_thread, installed
from tests.cluster.servers import server
from tests.e2e.client import Client
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vibed(vibed_cluster: Cluster) -> AsyncIterator[Installed]:
    """One for all of these tests, with two controllers."""
    namespace = vibed_cluster.namespace(f"faults-{token_hex(3)}")
    async with installed(namespace, controllers=2, pools="static-nginx=1,python-313=3") as made:
        yield made


def pod_of(vibed: Installed, app_id: str) -> tuple[str, str]:
    """The pod of an app, and the UID of its claim."""
    (claim,) = vibed.claims(app_id)
    return claim["status"]["sandbox"]["name"], claim["metadata"]["uid"]


def says(client: Client, app_id: str, text: str) -> None:
    """Its name leads to a pod that serves this."""
    eventually(lambda: client.visit(app_id).text == text, f"{app_id} says {text}")


async def test_an_app_comes_back_by_itself_whatever_becomes_of_its_pod(vibed: Installed) -> None:
    def lose_power(app_id: str, pod: str) -> None:
        vibed.agents.freeze(pod)
        vibed.namespace.unready(pod)

    def be_evicted(app_id: str, pod: str) -> None:
        vibed.namespace.evict(pod)

    def be_killed_for_memory(app_id: str, pod: str) -> None:
        vibed.agents.process(pod).kill()
        vibed.namespace.killed_for_memory(pod)

    def be_deleted(app_id: str, pod: str) -> None:
        vibed.namespace.kubectl("delete", "pod", pod, "--wait=false")

    def lose_its_claim(app_id: str, pod: str) -> None:
        vibed.namespace.kubectl("delete", "sandboxclaim", vibed.claims(app_id)[0]["metadata"]["name"], "--wait=false")

    fates = (lose_power, be_evicted, be_killed_for_memory, be_deleted, lose_its_claim)

    def has_another(name: str, uid: str) -> None:
        eventually(lambda: pod_of(vibed, name)[1] != uid, f"{name} has another claim, and one", within_s=90)

    def use() -> None:
        client = vibed.client
        before: dict[str, str] = {}
        for fate in fates:
            name = fate.__name__.replace("_", "-")
            client.deploy_ready(name, server(name))
            pod, before[name] = pod_of(vibed, name)
            fate(name, pod)
        for name, uid in before.items():
            has_another(name, uid)
            says(client, name, name)
            route = vibed.namespace.get(f"vapp/{name}")["status"]["route"]
            assert f"{name}-{route['run']}" == vibed.claims(name)[0]["metadata"]["name"]
        for name in before:
            client.delete(name)
        eventually(lambda: not vibed.claims(), "nothing is left of any of them", within_s=30)

    await in_thread(use)


async def test_while_the_api_server_is_away_apps_serve_and_everybody_else_is_told_when_to_come_back(
    vibed: Installed, own_cluster: ControlPlane
) -> None:
    def use() -> None:
        client = vibed.client
        client.deploy_ready("serving", server("on"))
        with own_cluster.api_server_away():
            assert client.visit("serving").text == "on"
            answer = client.visit("nowhere")
            assert (answer.status_code, answer.json()["code"]) == (503, "VibedUnavailable")
            assert int(answer.headers["Retry-After"]) > 0
            assert client.visit("serving").text == "on"
        vibed.start_what_has_ended()
        # who led may have had to end, as it could not renew its Lease
        eventually(lambda: client.visit("nowhere").status_code == 404, "it is known again what there is")
        client.deploy_ready("serving", server("and on"), settle_s=120)
        assert client.visit("serving").text == "and on"
        client.delete("serving")

    await in_thread(use)


class Chaos:
    """Deploys, while controllers are killed with -9. What is random is so by the seed."""

    def __init__(self, vibed: Installed, seed: int) -> None:
        self.vibed = vibed
        self.random = Random(seed)
        self.apps = [f"app-{seed}-{number}" for number in range(4)]
        self.last: dict[str, int] = {}
        """The version of each app that was accepted last."""

    def round(self) -> None:
        """Deploy some apps at once, kill who leads while they are on their way, and see all of them arrive."""
        chosen = self.random.sample(self.apps, 3)
        deploying = [threading.Thread(target=self._deploy, args=(app_id,)) for app_id in chosen]
        for one in deploying:
            one.start()
        # a deploy takes about half a second here: claims, starts, switches and drains are all met
        for _ in range(self.random.choice((1, 1, 2))):
            time.sleep(self.random.uniform(0, 1.2))
            self._kill()
        for one in deploying:
            one.join()
        self.check()

    def check(self) -> None:
        """No app is lost, none is claimed twice, and no claim is left behind."""
        for app_id, version in self.last.items():
            settled = self.vibed.client.settled(app_id, version)
            assert settled["phase"] == "Ready", settled
            says(self.vibed.client, app_id, f"{app_id} {version}")
        eventually(self._one_claim_each, "each app has one claim, and nothing else has any", within_s=60)

    def _one_claim_each(self) -> bool:
        claims = [(one["metadata"]["labels"]["vibed.dev/app"], one) for one in self.vibed.claims()]
        assert sorted(app_id for app_id, _ in claims) == sorted(self.last), json.dumps([c for _, c in claims])[:2000]
        for app_id, claim in claims:
            assert int(claim["metadata"]["labels"]["vibed.dev/version"]) == self.last[app_id]
        return True

    def _deploy(self, app_id: str) -> None:
        client = self.vibed.client
        version = self.last.get(app_id, 0) + 1
        # refused while nobody leads, as the API says it may be
        eventually(
            lambda: (
                client.post_deploy(
                    app_id, server(f"{app_id} {version}"), headers={"Idempotency-Key": f"{app_id}-{version}"}
                ).status_code
                in (200, 202)
            ),
            f"version {version} of {app_id} is taken in",
        )
        self.last[app_id] = version
        client.close()

    def _kill(self) -> None:
        leader = eventually(lambda: self.vibed.leader, "somebody leads", within_s=30)
        assert leader is not None
        leader.kill()
        if self.random.random() < 0.5:
            # as if the others had waited for its Lease to run out
            free = json.dumps({"spec": {"holderIdentity": ""}})
            self.vibed.namespace.kubectl("patch", "lease/vibed-controller", "--type=merge", "-p", free)
        leader.start()


async def test_controllers_that_are_killed_at_any_moment_lose_no_app_and_leave_no_claim(vibed: Installed) -> None:
    def use() -> None:
        chaos = Chaos(vibed, 1)
        for _ in range(3):
            chaos.round()
        for app_id in chaos.apps:
            vibed.client.delete(app_id)
        eventually(lambda: not vibed.claims(), "nothing is left", within_s=60)

    await in_thread(use)


@pytest.mark.everything
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2, 8))
async def test_many_more_kills(vibed: Installed, seed: int) -> None:
    def use() -> None:
        chaos, until = Chaos(vibed, seed), time.monotonic() + 180
        while time.monotonic() < until:
            chaos.round()
        for app_id in chaos.apps:
            vibed.client.delete(app_id)
        eventually(lambda: not vibed.claims(), "nothing is left", within_s=60)

    await in_thread(use)
