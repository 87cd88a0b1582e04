"""Packages beyond the template, and builds, on a cluster: builders are pods without a network, and what they make is an
object in the bucket that the pods of apps unpack.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import pytest_asyncio

from tests.cluster.cluster import Cluster
from tests.cluster.installed import Installed, in_thread, installed
from tests.cluster.servers import SERVER
from tests.contract.fake_registry import FakeRegistry, fake_registry, npm_package, wheel
from tests.e2e.waiting import eventually
from vibed.drivers.agent_sandbox.claims import BUILDER_APP, POD_APP, SITES
from vibed.drivers.agent_sandbox.templates import TEMPLATE

pytestmark = [pytest.mark.root, pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module")]

VITE = """#!/usr/bin/env node
const fs = require('fs')
fs.mkdirSync('dist')
fs.writeFileSync('dist/index.html', '<h1>' + require('tiny') + '</h1>')
"""
"""What stands for it."""


@pytest.fixture(scope="module")
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as it:
        it.files["tiny-1.0-py3-none-any.whl"] = wheel("tiny", "1.0", {"tiny.py": "WORD = 'small'\n"}, ("other>=1",))
        it.files["other-1.1-py3-none-any.whl"] = wheel("other", "1.1", {"other/__init__.py": "WORD = 'more'\n"})
        it.files["late-1.0-py3-none-any.whl"] = wheel("late", "1.0", {"late.py": "WORD = 'after all'\n"})
        it.packages["tiny"] = {
            "1.0.0": npm_package(
                {"package.json": '{"name": "tiny", "version": "1.0.0"}', "index.js": "module.exports = 'seven'"}
            )
        }
        vite = {"name": "vite", "version": "5.0.0", "bin": {"vite": "cli.cjs"}, "dependencies": {"tiny": "^1.0.0"}}
        it.packages["vite"] = {"5.0.0": npm_package({"package.json": json.dumps(vite), "cli.cjs": VITE})}
        yield it


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vibed(vibed_cluster: Cluster, registry: FakeRegistry) -> AsyncIterator[Installed]:
    namespace = vibed_cluster.namespace(f"layers-{token_hex(3)}")
    async with installed(
        namespace,
        pools="static-nginx=1,python-313=1,node-24=1",
        rooted=True,
        told={
            "PIP_INDEX_URL": registry.index,
            "NPM_CONFIG_REGISTRY": registry.npm,
            "VIBED_PREFETCH_FROM_APPS": "2",
        },
    ) as made:
        yield made


def claims(vibed: Installed, app_id: str) -> list[Any]:
    """The claims of an app that are to stay."""
    found = vibed.namespace.get("sandboxclaims", "-l", f"vibed.dev/app={app_id}")["items"]
    return [one for one in found if "deletionTimestamp" not in one["metadata"]]


def builders(vibed: Installed) -> list[Any]:
    return claims(vibed, BUILDER_APP)


async def test_an_app_gets_the_packages_that_its_template_has_not(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        files = {"requirements.txt": "tiny\n", "app.py": f"import tiny, other\nSAYS = tiny.WORD + other.WORD\n{SERVER}"}
        client.deploy_ready("needy", files, settle_s=120)
        assert client.visit("needy").text == "smallmore"

    await in_thread(use)


async def test_what_was_installed_once_is_found_by_the_next_app_and_the_next_controller(
    vibed: Installed, registry: FakeRegistry
) -> None:
    def use() -> None:
        client = vibed.client
        files = {"requirements.txt": "tiny\n", "app.py": f"import tiny\nSAYS = 'again ' + tiny.WORD\n{SERVER}"}
        asked = len(registry.asked)
        client.deploy_ready("same", files, settle_s=120)
        assert client.visit("same").text == "again small"
        vibed.controllers[0].stop()
        vibed.controllers[0].start()
        eventually(lambda: client.deploy("later", files, settle_s=120).phase == "Ready", "it leads again", within_s=60)
        assert client.visit("later").text == "again small"
        assert len(registry.asked) == asked, "nothing was installed again"
        assert builders(vibed) == []

    await in_thread(use)


async def test_a_pod_that_waits_has_ahead_what_several_apps_have_and_an_app_of_another_list_sees_nothing_of_it(
    vibed: Installed,
) -> None:
    def ahead() -> list[Any]:
        """Of the pod that nobody has claimed."""
        waiting = vibed.namespace.get("pods", "-l", f"{TEMPLATE}=python-313,!{POD_APP}")["items"]
        folders = [vibed.agents.folder(pod["metadata"]["name"]) / "layers" / ".ahead" for pod in waiting]
        return [path for folder in folders for path in folder.rglob("tiny.py")]

    def use() -> None:
        client = vibed.client
        files = {"requirements.txt": "tiny\n", "app.py": f"import tiny\nSAYS = tiny.WORD\n{SERVER}"}
        client.deploy_ready("popular", files, settle_s=120)
        client.deploy_ready("popular-too", files, settle_s=120)
        (there,) = eventually(ahead, "the pod that waits has it", within_s=60)
        inode = there.stat().st_ino
        client.deploy_ready("third", files, settle_s=120)
        assert client.visit("third").text == "small"
        layers = Path(*there.parts[: there.parts.index(".ahead")])
        (installed,) = layers.rglob("tiny.py")
        assert installed.stat().st_ino == inode, "it was put where the app has it, and not got again"
        eventually(ahead, "so has the next", within_s=60)
        lists = f"import os\nSAYS = ' '.join(sorted(os.listdir('/layers')))\n{SERVER}"
        client.deploy_ready("without", {"app.py": lists}, settle_s=120)
        assert ".ahead" not in client.visit("without").text

    await in_thread(use)


async def test_a_server_of_node_gets_its_packages(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        code = "require('http').createServer((_, a) => a.end(require('tiny'))).listen(process.env.PORT)"
        files = {
            "package.json": json.dumps({"dependencies": {"tiny": "^1.0.0"}, "scripts": {"start": "node server.js"}}),
            "server.js": code,
        }
        client.deploy_ready("nodes", files, settle_s=240)
        assert client.visit("nodes").text == "seven"

    await in_thread(use)


async def test_a_front_end_is_built_and_its_site_comes_back_with_another_pod(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        files = {
            "package.json": json.dumps({"devDependencies": {"vite": "^5.0.0"}, "scripts": {"build": "vite build"}}),
            "index.html": '<script type="module" src="/src/main.js"></script>',
            "src/main.js": "document.title = 'not built'",
        }
        client.deploy_ready("front", files, settle_s=240)
        assert client.visit("front").text == "<h1>seven</h1>"
        (claim,) = claims(vibed, SITES)
        vibed.namespace.kubectl("delete", "pod", claim["status"]["sandbox"]["name"], "--wait=false")
        eventually(
            lambda: [one["metadata"]["uid"] for one in claims(vibed, SITES)] not in ([], [claim["metadata"]["uid"]]),
            "it has another pod",
            within_s=90,
        )
        eventually(lambda: client.visit("front").text == "<h1>seven</h1>", "it is there again", within_s=60)

    await in_thread(use)


async def test_what_cannot_be_installed_is_told_as_on_one_machine(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        files = {"requirements.txt": "nowhere-to-be-had\n", "app.py": f"import nowhere_to_be_had\n{SERVER}"}
        failed = client.deploy("hopeless", files, settle_s=120)
        assert (failed.phase, failed.reason) == ("Failed", "DependencyBuildFailed")
        assert "nowhere-to-be-had" in failed.message
        eventually(lambda: not builders(vibed), "no builder is left", within_s=30)

    await in_thread(use)


async def test_a_builder_that_is_deleted_is_made_up_for_and_two_apps_share_what_is_made(
    vibed: Installed, registry: FakeRegistry
) -> None:
    def use() -> None:
        client = vibed.client
        registry.delay_s = 30.0  # longer than it takes to delete who asks
        files = {"requirements.txt": "late\n", "app.py": f"import late\nSAYS = late.WORD\n{SERVER}"}
        for name in ("first", "second"):
            assert client.post_deploy(name, files).status_code == 202
        eventually(lambda: client.app("first")["reason"] == "BuildingDependencies", "it is built", within_s=90)
        (builder,) = eventually(lambda: builders(vibed), "a builder has a claim", within_s=60)
        eventually(lambda: "/simple/late/" in registry.paths(), "it asks for its package", within_s=60)
        vibed.namespace.kubectl(
            "delete", "sandboxclaim", builder["metadata"]["name"], "--wait=true", "--ignore-not-found"
        )
        registry.delay_s = 0.0
        for name in ("first", "second"):
            client.settled(name, 1, within_s=180)
            assert client.visit(name).text == "after all"
        assert registry.paths().count("/files/late-1.0-py3-none-any.whl") == 1, "it was installed once"
        eventually(lambda: not builders(vibed), "no builder is left", within_s=30)

    await in_thread(use)
