"""Sites of a cluster move together when many of them have gone: what is left does not stay in as many pods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from secrets import token_hex

import pytest
import pytest_asyncio

from tests.cluster.cluster import Cluster
from tests.cluster.installed import Installed, in_thread, installed
from tests.e2e.waiting import eventually
from vibed.drivers.agent_sandbox.claims import SITES

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vibed(vibed_cluster: Cluster) -> AsyncIterator[Installed]:
    namespace = vibed_cluster.namespace(f"move-{token_hex(3)}")
    async with installed(namespace, pools="static-nginx=1", told={"VIBED_SITES_PER_POD": "8"}) as made:
        yield made


async def test_what_is_left_in_two_pods_moves_into_one_and_no_visitor_notices(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        names = [f"site-{number}" for number in range(10)]
        for name in names:
            client.deploy_ready(name, {"index.html": name}, settle_s=60)
        assert len(vibed.claims(SITES)) == 2
        gone, left = names[:5], names[5:]
        for name in gone:
            client.delete(name)

        def together() -> bool:
            for name in left:
                answer = client.visit(name)
                assert (answer.status_code, answer.text) == (200, name)
            return len(vibed.claims(SITES)) == 1

        eventually(together, "one pod serves them all", within_s=120)
        assert together()
        assert {client.app(name)["phase"] for name in left} == {"Ready"}
        assert {client.app(name)["version"] for name in left} == {1}

    await in_thread(use)
