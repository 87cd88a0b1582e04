"""The same API on a cluster: what a client of one machine does is done here, with vibeD's own processes against a real
API server, agent-sandbox, and real agents at the pods' addresses.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.cluster.cluster import Cluster, Refused
from tests.cluster.installed import ADMIN_KEY, Installed, in_thread, installed
from tests.cluster.servers import SERVER, server
from tests.e2e.client import Client, packed
from tests.e2e.instance import Instance, running
from tests.e2e.mcp_client import call, over_http, refused
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vibed(vibed_cluster: Cluster) -> AsyncIterator[Installed]:
    """One for all of these tests, with two controllers; each test has apps of its own."""
    namespace = vibed_cluster.namespace(f"installed-{token_hex(3)}")
    async with installed(namespace, controllers=2, pools="static-nginx=1,workerd=1,python-313=2") as made:
        yield made


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def by_hand(name: str, digest: str, **spec: Any) -> dict[str, Any]:
    """A VibedApp as somebody writes it."""
    return {
        "apiVersion": "vibed.dev/v1alpha1",
        "kind": "VibedApp",
        "metadata": {"name": name},
        "spec": {
            "owner": "alice",
            "source": {"tarballRef": f"sha256:{digest}"},
            "runtime": {"lane": "general"},
            **spec,
        },
    }


async def test_a_site_and_a_server_are_deployed_visited_redeployed_and_deleted(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        client.deploy_ready("pages", {"index.html": "<h1>hello</h1>", "about.html": "about"})
        assert client.visit("pages").text == "<h1>hello</h1>"
        assert client.visit("pages", "/about").text == "about"
        client.delete("pages")
        client.deploy_ready("todo", server("one"))
        assert client.visit("todo").text == "one"
        assert "serving" in client.log_text("todo")
        client.deploy_ready("todo", server("two"))
        assert client.visit("todo", method="POST", content=b"x").text == "two"
        app = client.app("todo")
        assert (app["phase"], app["version"], app["isolation"]) == ("Ready", 2, "process")
        client.delete("todo")
        eventually(lambda: client.visit("todo").status_code == 404, "its name leads nowhere", within_s=30)
        eventually(lambda: not vibed.claims("todo"), "its claims are gone", within_s=30)

    await in_thread(use)


async def test_an_agents_whole_round_by_mcp(vibed: Installed) -> None:
    async with over_http(vibed.port, ADMIN_KEY) as agent:
        made = await call(agent, "deploy_artifact", name="agents", files=server("by an agent"), language="python")
        assert (made["artifact_id"], made["status"], made["target"]) == ("agents", "running", "python-313")
        assert (await in_thread(lambda: vibed.client.visit("agents"))).text == "by an agent"
        assert (await call(agent, "get_artifact_status", artifact_id="agents"))["status"] == "running"
        updated = await call(agent, "update_artifact", artifact_id="agents", files=server("again"))
        assert (updated["status"], updated["version"]) == ("running", 2)
        assert (await in_thread(lambda: vibed.client.visit("agents"))).text == "again"
        lines = (await call(agent, "get_artifact_logs", artifact_id="agents"))["lines"]
        assert any(line.endswith("serving") for line in lines)
        back = await call(agent, "rollback_artifact", artifact_id="agents", version=1)
        assert (back["status"], back["version"]) == ("running", 3)
        assert (await in_thread(lambda: vibed.client.visit("agents"))).text == "by an agent"
        assert "agents" in [one["artifact_id"] for one in (await call(agent, "list_artifacts"))["artifacts"]]
        targets = (await call(agent, "list_deployment_targets"))["targets"]
        assert "python-313" in [target["name"] for target in targets]
        assert (await call(agent, "delete_artifact", artifact_id="agents"))["deleted"]
        assert "agents" in await refused(agent, "get_artifact_status", artifact_id="agents")
    await in_thread(lambda: eventually(lambda: not vibed.claims("agents"), "its claims are gone", within_s=30))


async def test_the_cli_deploys_a_folder_shows_how_it_stands_and_takes_it_away(vibed: Installed, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(server("from a folder")["app.py"])

    def use() -> None:
        assert vibed.cli("deploy", ".", "--name", "folder", cwd=tmp_path).strip() == vibed.client.url("folder", "")
        assert vibed.client.visit("folder").text == "from a folder"
        stands = json.loads(vibed.cli("status", "folder", "--json"))
        assert (stands["phase"], stands["version"], stands["isolation"]) == ("Ready", 1, "process")
        assert "serving" in vibed.cli("logs", "folder")
        assert "folder" in vibed.cli("apps")
        vibed.cli("delete", "folder", "--yes")
        eventually(lambda: vibed.client.visit("folder").status_code == 404, "its name leads nowhere", within_s=30)

    await in_thread(use)


@pytest.fixture(scope="module")
def machine() -> Iterator[Instance]:
    """A vibeD of one machine, with its sources in files."""
    with running(Instance(templates="static-nginx,python-313", pools="python-313=1", layers="false")) as it:
        yield it


async def test_apps_move_from_a_machine_onto_the_cluster_serve_there_and_come_back(
    vibed: Installed, machine: Instance
) -> None:
    def outcomes(report: str) -> dict[str, str]:
        return {app["app_id"]: app["outcome"] for app in json.loads(report)["apps"]}

    def greeting(number: int) -> dict[str, str]:
        return {"app.py": f"import os\nSAYS = os.environ['WORD'] + ' {number}'\n{SERVER}"}

    def use() -> None:
        here, there = machine.client, vibed.client
        here.wait_for_template("python-313")
        here.delete("welcome")  # a second site: these agents share a network
        eventually(lambda: here.api("GET", "/v1/apps/welcome").status_code == 404, "it is gone", within_s=30)
        for number in (1, 2):
            here.deploy_ready("greeting", greeting(number), env=[{"name": "WORD", "value": "carried"}])
        here.deploy_ready("page", {"index.html": "a page"})
        carol = here.ask("POST", "/v1/keys", json={"owner": "carol"})["secret"]
        machine.client_with(carol).deploy_ready("hers", server("carol's"))
        file = machine.root / "moved.tar"
        assert json.loads(machine.run("export", str(file), "--json").stdout)["left_out"] == []

        moved = {"greeting": "imported", "page": "imported", "hers": "imported"}
        assert outcomes(vibed.cli("import", str(file), "--json")) == moved
        for name, number in (("greeting", 2), ("page", 1), ("hers", 1)):
            assert there.settled(name, number)["phase"] == "Ready"
        assert there.visit("greeting").text == "carried 2"
        assert there.visit("page").text == "a page"
        hers = Client(vibed.port, carol)
        assert hers.app("hers")["owner"] == "carol"
        hers.deploy_ready("hers", server("carol's still"))
        assert there.visit("hers").text == "carol's still"
        back = there.ask("POST", "/v1/apps/greeting/rollback", json={"version": 1})
        assert (back["version"], back["phase"]) == (3, "Ready")
        assert there.visit("greeting").text == "carried 1"
        # what is there already is left alone
        assert set(outcomes(vibed.cli("import", str(file), "--json")).values()) == {"skipped"}
        assert there.visit("greeting").text == "carried 1"

        vibed.cli("export", str(vibed.folder / "back.tar"))
        report = machine.run("import", str(vibed.folder / "back.tar"), "--replace", "--json", timeout_s=120).stdout
        assert outcomes(report) == dict.fromkeys(moved, "replaced")
        for name, number in (("greeting", 3), ("page", 1), ("hers", 2)):
            assert here.settled(name, number)["phase"] == "Ready"
        assert here.visit("greeting").text == "carried 1"
        assert here.visit("page").text == "a page"
        assert here.visit("hers").text == "carol's still"
        versions = here.ask("GET", "/v1/apps/greeting/versions")["items"]
        assert [one["version"] for one in versions] == [3, 2, 1]
        for name in moved:
            there.delete(name)

    await in_thread(use)


async def test_sites_share_a_pod_and_all_of_them_come_back_when_it_goes(vibed: Installed) -> None:
    def pods() -> list[str]:
        return [one["status"]["sandbox"]["name"] for one in vibed.claims("vibed.sites")]

    def use() -> None:
        client, names = vibed.client, ("first", "second", "third")
        for name in names:
            client.deploy_ready(name, {"index.html": name})
        (pod,) = pods()
        client.deploy_ready("second", {"index.html": "second, changed"})
        says = {"first": "first", "second": "second, changed", "third": "third"}
        assert {name: client.visit(name).text for name in names} == says
        assert (pods(), [claim for name in names for claim in vibed.claims(name)]) == ([pod], [])
        vibed.namespace.kubectl("delete", "pod", pod, "--wait=false")
        eventually(lambda: pods() and pod not in pods(), "they have another pod", within_s=60)
        for name in names:
            eventually(lambda name=name: client.visit(name).text == says[name], f"{name} is back", within_s=60)
        assert len(pods()) == 1
        client.delete("first")
        eventually(lambda: client.visit("first").status_code == 404, "its name leads nowhere", within_s=30)
        assert client.visit("third").text == "third"

    await in_thread(use)


WORKER = """
console.log("a worker is up");
export default {
  fetch(request, env) {
    if (new URL(request.url).pathname === "/spin") for (;;);
    return new Response(`SAYS ${env.GREETING}`);
  },
};
"""
WRANGLER = """
name = "edge"
main = "src/index.ts"
compatibility_date = "2026-01-01"
assets = { directory = "public" }
"""


async def test_a_worker_is_deployed_redeployed_and_there_again_after_it_was_ended(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        env = [{"name": "GREETING", "value": "world"}]
        for says in ("one", "two"):
            source = {"src/index.ts": WORKER.replace("SAYS", says), "public/page.html": "an asset"}
            client.deploy_ready("edge", {**source, "wrangler.toml": WRANGLER}, env=env)
            assert client.visit("edge").text == f"{says} world"
            if says == "one":
                # its only thread does not come back, so it is ended, as on one machine
                assert client.visit("edge", "/spin").status_code >= 500
                eventually(lambda: client.visit("edge").text == "one world", "another pod runs it", within_s=60)
        assert client.visit("edge", "/page").text == "an asset"
        app = client.app("edge")
        assert (app["runtime"]["template"], app["phase"], app["version"]) == ("workerd", "Ready", 2)
        assert "a worker is up" in client.log_text("edge")
        client.delete("edge")
        eventually(lambda: not vibed.claims("edge"), "its claims are gone", within_s=30)

    await in_thread(use)


async def test_a_version_that_fails_leaves_the_last_good_one_serving_and_says_why(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        client.deploy_ready("sturdy", server("good"))
        crash = "import sqlite3\nsqlite3.connect(':memory:').execute('select * from notes')\n"
        failed = client.deploy("sturdy", {"app.py": crash + server("never")["app.py"]})
        assert (failed.phase, failed.reason) == ("Failed", "StartFailed")
        assert "no such table" in failed.message
        assert client.visit("sturdy").text == "good"
        assert client.app("sturdy")["serving_version"] == 1

    await in_thread(use)


async def test_under_load_a_redeploy_fails_no_request_and_leaves_none_to_the_old_version(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        client.deploy_ready("busy", server("1"))
        told, wrong, over = 1, [], threading.Event()

        def visit() -> None:
            mine = vibed.client
            while not over.is_set():
                least = told
                answer = mine.visit("busy", method="POST", content=b"x" * 1000)
                if answer.status_code != 200 or int(answer.text) < least:
                    wrong.append((least, answer.status_code, answer.text[:200]))
            mine.close()

        visitors = [threading.Thread(target=visit) for _ in range(3)]
        for visitor in visitors:
            visitor.start()
        try:
            for version in range(2, 5):
                client.deploy_ready("busy", server(str(version)))
                told = version
        finally:
            time.sleep(1)
            over.set()
            for visitor in visitors:
                visitor.join()
        assert not wrong

    await in_thread(use)


async def test_a_pod_that_is_deleted_comes_back_with_its_source_without_being_asked_for(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        client.deploy_ready("healed", server("still here"))
        (claim,) = vibed.claims("healed")
        pod = claim["status"]["sandbox"]["name"]
        vibed.namespace.kubectl("delete", "pod", pod, "--wait=false")
        eventually(
            lambda: (
                (found := vibed.claims("healed"))
                and all(c["metadata"]["uid"] != claim["metadata"]["uid"] for c in found)
            ),
            "it has another sandbox",
            within_s=60,
        )
        eventually(lambda: client.visit("healed").text == "still here", "it answers", within_s=60)
        eventually(lambda: len(vibed.claims("healed")) == 1, "nothing is left of the first", within_s=30)

    await in_thread(use)


async def test_a_controller_that_is_killed_is_followed_by_another_and_apps_notice_nothing(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        client.deploy_ready("lasting", server("on"))
        client.deploy_ready("page", {"index.html": "a page"})
        sites = [one["metadata"]["uid"] for one in vibed.claims("vibed.sites")]
        uid = vibed.claims("lasting")[0]["metadata"]["uid"]
        leader = vibed.leader
        assert leader is not None
        leader.kill()
        assert client.visit("lasting").text == "on"
        # taken in while nobody leads, and begun by who leads next
        client.deploy_ready("meanwhile", server("new"), settle_s=120)
        assert client.visit("meanwhile").text == "new"
        assert client.visit("lasting").text == "on"
        assert [one["metadata"]["uid"] for one in vibed.claims("lasting")] == [uid], (
            "it was neither lost nor claimed anew"
        )
        assert client.visit("page").text == "a page"
        client.deploy_ready("page", {"index.html": "another page"})
        assert client.visit("page").text == "another page"
        assert [one["metadata"]["uid"] for one in vibed.claims("vibed.sites")] == sites, (
            "it is in the pod that was there"
        )
        client.deploy_ready("lasting", server("on and on"))
        assert client.visit("lasting").text == "on and on"
        leader.start()

    await in_thread(use)


async def test_a_controller_that_follows_another_writes_nothing_about_apps_that_run_as_they_did(
    vibed: Installed,
) -> None:
    def use() -> None:
        client = vibed.client
        client.deploy_ready("steady", server("on"))
        told = vibed.namespace.get("vapp/steady")
        name = vibed.namespace.get("lease/vibed-controller")["spec"]["holderIdentity"]
        leader = next(one for one in vibed.controllers if one.name == name)
        leader.stop()
        leader.start()
        client.deploy_ready("after", server("new"), settle_s=120)  # by when the next has measured its sandboxes
        client.delete("after")
        eventually(lambda: client.visit("after").status_code == 404, "it is gone", within_s=30)
        now = vibed.namespace.get("vapp/steady")
        assert now["metadata"]["resourceVersion"] == told["metadata"]["resourceVersion"], (
            told["status"],
            now["status"],
        )

    await in_thread(use)


async def test_a_router_that_starts_anew_leads_where_the_last_one_did(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        client.deploy_ready("found", server("1"))
        (router,) = vibed.routers
        router.kill()
        assert client.visit("found").text == "1", "Caddy needs nobody for what it knows"
        router.start()
        # until then its pod is not ready, and no visitor is sent to it
        ready = f"http://{router.env['VIBED_POD_IP']}:{router.env['VIBED_HEALTH_PORT']}/readyz"
        eventually(lambda: _is_ready(ready), "the router follows", within_s=30)
        client.deploy_ready("found", server("2"))
        assert client.visit("found").text == "2"

    await in_thread(use)


async def test_what_is_applied_by_hand_is_a_deploy_like_any_other(vibed: Installed) -> None:
    def use() -> None:
        client, source = vibed.client, packed(server("by hand"))
        digest = hashlib.sha256(source).hexdigest()
        client.deploy_ready("sender", source)  # which has it in the source store
        vibed.namespace.apply(by_hand("manual", digest))
        vibed.namespace.wait("vapp/manual", "condition=Ready", deadline_s=60)
        assert client.visit("manual").text == "by hand"
        assert (client.app("manual")["owner"], client.app("manual")["version"]) == ("alice", 1)
        changed = by_hand("manual", digest, runtime={"lane": "general", "env": [{"name": "COLOUR", "value": "red"}]})
        vibed.namespace.apply(changed)
        eventually(lambda: client.app("manual")["version"] == 2, "it is a version of its own", within_s=60)
        vibed.namespace.wait("vapp/manual", "condition=Ready", deadline_s=60)
        vibed.namespace.kubectl("delete", "vapp", "manual", "--timeout=60s", deadline_s=70)
        assert not vibed.claims("manual")
        assert client.visit("manual").status_code == 404

    await in_thread(use)


async def test_what_cannot_be_done_of_a_spec_is_said_in_its_status(vibed: Installed) -> None:
    def use() -> None:
        for name, spec, reason in (
            ("absent", {}, "SourceMissing"),
            ("elsewhere", {"source": {"tarballRef": "http://169.254.169.254/latest"}}, "SourceUnknown"),
            ("remote", {"source": {"gitRef": "main", "tarballRef": f"sha256:{'0' * 64}"}}, "NotSupported"),
        ):
            vibed.namespace.apply(by_hand(name, "0" * 64, **spec))
            found = eventually(
                lambda name=name: next(
                    (
                        one
                        for one in (vibed.namespace.get(f"vapp/{name}").get("status") or {}).get("conditions") or ()
                        if one["type"] == "Ready"
                    ),
                    None,
                ),
                f"{name} has a condition",
                within_s=60,
            )
            assert found is not None
            assert (found["status"], found["reason"]) == ("False", reason), found
            vibed.namespace.kubectl("delete", "vapp", name, "--timeout=60s", deadline_s=70)

    await in_thread(use)


async def test_what_a_pod_has_not_is_not_promised_to_an_app(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        asked = {"memory": "256Mi", "cpu": "500m"}
        made = client.deploy_ready("modest", server("fits"), resources=asked)
        more = client.deploy("modest", server("too large"), resources={**asked, "memory": "4Gi"})
        assert (more.phase, more.reason) == ("Failed", "ResourcesTooLarge")
        assert "512 MB" in more.message and "4096 MB" in more.message
        assert client.visit("modest").text == "fits"
        digest = client.ask("GET", f"/v1/apps/modest/versions/{made.number}")["source_digest"]
        vibed.namespace.apply(by_hand("greedy", digest.removeprefix("sha256:"), resources={"cpu": "16"}))
        vibed.namespace.wait("vapp/greedy", "jsonpath={.status.reason}=ResourcesTooLarge", deadline_s=60)
        conditions = vibed.namespace.get("vapp/greedy")["status"]["conditions"]
        (ready,) = [one for one in conditions if one["type"] == "Ready"]
        assert (ready["status"], ready["reason"]) == ("False", "ResourcesTooLarge")
        assert "1 CPUs" in ready["message"]

    await in_thread(use)


async def test_a_spec_that_cannot_be_is_refused_by_the_api_server(vibed: Installed) -> None:
    def use() -> None:
        with pytest.raises(Refused):
            vibed.namespace.apply(by_hand("Capital", "0" * 64))

    await in_thread(use)
