"""Twenty deploys at once on a small machine: all become Ready, none is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest

from tests.e2e import samples
from tests.e2e.client import packed
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance

MIX: list[tuple[Callable[[object], samples.Files], int]] = [
    (samples.static, 8),
    (samples.worker, 6),
    (samples.python_hello, 3),
    (samples.node_hello, 3),
]


@pytest.mark.slow
async def test_twenty_deploys_at_once_are_all_ready(vibed: Instance, apps: Apps) -> None:
    for template in ("workerd", "python-313", "node-24"):
        vibed.client.wait_for_template(template)
    wanted = [(apps.name(str(number)), sample) for number, (sample, count) in enumerate(MIX) for _ in range(count)]
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{vibed.port}",
        headers={"Host": f"localhost:{vibed.port}", "Authorization": f"Bearer {vibed.admin_key}"},
        trust_env=False,
        timeout=60,
    ) as http:
        answers = await asyncio.gather(
            *(
                http.post(
                    "/v1/deploy",
                    files={"source": ("s.tar.gz", packed(sample(1)))},
                    data={"metadata": json.dumps({"name": name})},
                )
                for name, sample in wanted
            )
        )
    assert [answer.status_code for answer in answers if answer.status_code not in (200, 202)] == []
    for name, _ in wanted:
        version = await asyncio.to_thread(vibed.client.settled, name, 1)
        assert version["phase"] == "Ready", (name, version)
        page = vibed.client.visit(name)
        assert (page.status_code, "version 1" in page.text) == (200, True), (name, page.text)


@pytest.mark.slow
async def test_many_deploys_of_one_app_end_with_the_newest(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("workerd")
    name = apps.name()
    await asyncio.to_thread(vibed.client.deploy_ready, name, samples.worker(1))

    def deploy(number: int) -> tuple[int, int, int]:
        client = vibed.client_with(vibed.admin_key)
        answer = client.post_deploy(name, samples.worker(number))
        client.close()
        return answer.status_code, answer.json().get("version", 0), number

    answers = await asyncio.gather(*(asyncio.to_thread(deploy, number) for number in range(100, 110)))
    accepted = {version: number for status, version, number in answers if status in (200, 202)}
    assert {status for status, _, _ in answers} <= {200, 202, 409}, answers
    newest = max(accepted)
    assert (await asyncio.to_thread(vibed.client.settled, name, newest))["phase"] == "Ready"
    assert vibed.client.app(name)["serving_version"] == newest
    assert vibed.client.visit(name).text == f"version {accepted[newest]}\n"
