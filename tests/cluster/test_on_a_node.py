"""vibeD as a platform team installs it: its chart on a real node, its images, apps in pods under gVisor, policies that
are enforced. What is done here is what the CLI and a visitor do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.cluster import binaries, node
from tests.cluster.box import REPOSITORY
from tests.cluster.development import APPS, RELEASE, Development
from tests.cluster.servers import SERVER
from tests.contract.fake_registry import FakeRegistry, fake_registry, wheel
from tests.e2e.client import Client
from tests.e2e.waiting import eventually
from tests.prepare import home
from vibed.runtimes.tools import Tools

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

TEMPLATES = ("static-nginx", "workerd", "python-313", "node-24", "go-123", "base-debian")

FLASK = """
import os, socket
from flask import Flask, request

app = Flask(__name__)
print("flask is up", flush=True)


@app.get("/")
def hello():
    return os.uname().release


@app.post("/")
def take():
    return f"{len(request.get_data())} {os.environ.get('VERSION', '')}"


@app.get("/reach")
def reach():
    host, port = request.args["host"], int(request.args["port"])
    try:
        socket.create_connection((host, port), 3).close()
        return "reached"
    except OSError as error:
        return f"no: {error}"


@app.get("/environment")
def environment():
    return {"names": sorted(os.environ), "uid": os.getuid(), "token": os.path.exists("/var/run/secrets")}
"""
EXPRESS = {
    "package.json": json.dumps({"name": "e", "dependencies": {"express": "^5"}, "scripts": {"start": "node index.js"}}),
    "index.js": "const app = require('express')();\n"
    "app.get('/', (q, a) => a.send('express'));\napp.listen(process.env.PORT);\n",
}
WORKER = {
    "src/index.ts": """
import { Hono } from "hono";
const app = new Hono();
app.get("/", (c) => c.text("a worker"));
app.get("/reach", async (c) => {
  try { await fetch(`http://${c.req.query("host")}/`); return c.text("reached"); } catch { return c.text("no"); }
});
console.log("the worker is up");
export default app;
""",
    "public/page.html": "an asset",
    "wrangler.toml": "name = 'edge'\nmain = 'src/index.ts'\ncompatibility_date = '2026-01-01'\n"
    "assets = { directory = 'public' }\n",
}


@dataclass
class Platform:
    """An installed vibeD and the ways to it."""

    made: Development
    port: int
    key: str
    registry: FakeRegistry

    @property
    def client(self) -> Client:
        return Client(self.port, self.key)

    def kubectl(self, *arguments: str, deadline_s: float = 60.0) -> str:
        return self.made.cluster.kubectl(*arguments, deadline_s=deadline_s)

    def get(self, *arguments: str) -> Any:
        return self.made.cluster.get(*arguments)

    def cli(self, *arguments: str, cwd: Path) -> str:
        """What `vibed` prints."""
        told = {"VIBED_URL": f"http://localhost:{self.port}", "VIBED_TOKEN": self.key, "HOME": str(self.made.folder)}
        argv = [sys.executable, "-m", "vibed.cli.main", *arguments]
        env = {**os.environ, **told, "PYTHONPATH": str(REPOSITORY / "src")}
        done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pod_of(self, app_id: str) -> dict[str, Any]:
        (pod,) = [
            one
            for one in self.get("-n", APPS, "pods", "-l", f"sandbox.users.io/app={app_id}")["items"]
            if "deletionTimestamp" not in one["metadata"]
        ]
        return dict(pod)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The chart, installed by `helm install --wait`; some two minutes."""
    if os.geteuid() != 0:
        pytest.skip("a real node takes root")
    try:
        made = Development(tmp_path_factory.mktemp("platform"))
    except binaries.NotBuilt as missing:
        pytest.skip(str(missing))
    try:
        made.start()
        made.import_images(("vibed", "vibed-caddy", *TEMPLATES))
        with fake_registry(node.ADDRESS, made.box.network) as registry:
            made.install(_values(registry))
            made.forward()
            found = Platform(made, 18080, made.admin_key(), registry)
            eventually(lambda: _answers(found), "the API answers", within_s=60)
            for name in TEMPLATES:
                found.client.wait_for_template(name, within_s=180)
            yield found
    except subprocess.CalledProcessError as error:
        raise AssertionError(f"{error}\n{error.stdout}\n{error.stderr}") from error
    finally:
        made.end()


def _values(registry: FakeRegistry) -> dict[str, Any]:
    """With an index of packages: nothing in the box reaches another one."""
    there = {"to": [{"ipBlock": {"cidr": f"{node.ADDRESS}/32"}}], "ports": [registry.port]}
    return {
        "sandboxes": {"templates": list(TEMPLATES)},
        "config": {"registries": {"pypi": registry.index}},
        "network": {"registries": there},
    }


def _answers(platform: Platform) -> bool:
    try:
        return platform.client.api("GET", "/v1/templates").status_code == 200
    except httpx.HTTPError:
        return False


@dataclass
class Visits:
    """A client that goes on asking; what of it went wrong."""

    platform: Platform
    app_id: str
    wrong: list[str]
    asked: int = 0
    over: bool = False

    def __enter__(self) -> Visits:
        self._thread = threading.Thread(target=self._visit)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        self._thread.join()

    def _visit(self) -> None:
        client = self.platform.client
        while not self.over:
            try:
                answer = client.visit(self.app_id, method="POST", content=b"x" * 2000)
                if answer.status_code != 200 or not answer.text.startswith("2000 "):
                    self.wrong.append(f"{answer.status_code} {answer.text[:200]}")
            except httpx.HTTPError as error:
                self.wrong.append(repr(error))
            self.asked += 1
            time.sleep(0.01)


def test_a_site_a_flask_and_an_express_app_are_deployed_by_the_cli_and_answer_by_name(
    platform: Platform, tmp_path: Path
) -> None:
    for name, files in (
        ("pages", {"index.html": "<h1>pages</h1>"}),
        ("flask", {"app.py": FLASK, "requirements.txt": "flask\n"}),
        ("express", EXPRESS),
    ):
        folder = tmp_path / name
        folder.mkdir()
        for path, text in files.items():
            (folder / path).write_text(text)
        assert platform.cli("deploy", ".", "--name", name, cwd=folder).strip() == f"http://{name}.localhost:18080"
    client = platform.client
    assert client.visit("pages").text == "<h1>pages</h1>"
    assert "gvisor" in client.visit("flask").text
    assert client.visit("express").text == "express"
    assert {client.app(name)["isolation"] for name in ("pages", "flask", "express")} == {"kernel"}
    assert platform.pod_of("flask")["spec"]["runtimeClassName"] == "gvisor"
    eventually(lambda: "flask is up" in client.log_text("flask"), "its log is there", within_s=20)


def test_a_worker_is_bundled_and_served_in_a_pod_of_its_own(platform: Platform) -> None:
    client = platform.client
    client.deploy_ready("edge", WORKER)
    assert client.visit("edge").text == "a worker"
    assert client.visit("edge", "/page").text == "an asset"
    assert client.visit("edge", "/reach?host=169.254.169.254").text == "no"
    assert client.app("edge")["isolation"] == "kernel"
    eventually(lambda: "the worker is up" in client.log_text("edge"), "its log is there", within_s=20)


def test_a_go_app_is_built_and_answers_and_so_does_one_that_was_built_before(
    platform: Platform, tmp_path: Path
) -> None:
    source = REPOSITORY / "examples" / "go-hello"
    built = tmp_path / "guests"
    built.mkdir()
    go = Tools(home()).path("go")
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    subprocess.run(
        [str(go), "build", "-ldflags=-s -w", "-o", str(built / "guests"), "."], cwd=source, env=env, check=True
    )
    for name, folder, template in (("guests-built", built, "base-debian"), ("guests-source", source, "go-123")):
        said = platform.cli("deploy", ".", "--name", name, cwd=folder).strip()
        assert said == f"http://{name}.localhost:18080"
        assert "guest" in platform.client.visit(name).text.lower()
        app = platform.client.app(name)
        assert (app["runtime"]["template"], app["isolation"]) == (template, "kernel")


def test_sites_share_a_pod_and_come_back_when_it_goes(platform: Platform) -> None:
    client, names = platform.client, ("left", "right")
    for name in names:
        client.deploy_ready(name, {"index.html": name})
    before = platform.pod_of("vibed.sites")
    assert {name: client.visit(name).text for name in names} == {name: name for name in names}
    platform.kubectl("-n", APPS, "delete", "pod", before["metadata"]["name"], "--wait=false")
    for name in names:
        eventually(lambda name=name: client.visit(name).text == name, f"{name} answers from another pod", within_s=90)
    eventually(
        lambda: platform.pod_of("vibed.sites")["metadata"]["uid"] != before["metadata"]["uid"],
        "sites have another pod",
        within_s=60,
    )
    assert {name: client.visit(name).text for name in names} == {name: name for name in names}


def test_an_app_has_the_packages_that_its_template_has_not(platform: Platform) -> None:
    platform.registry.files["tiny-1.0-py3-none-any.whl"] = wheel("tiny", "1.0", {"tiny.py": "WORD = 'small'\n"})
    files = {"app.py": f"import tiny\nSAYS = tiny.WORD\n{SERVER}", "requirements.txt": "tiny\n"}
    platform.client.deploy_ready("needy", files, settle_s=180)
    assert platform.client.visit("needy").text == "small"
    assert platform.client.app("needy")["isolation"] == "kernel"
    asked = len(platform.registry.asked)
    platform.client.deploy_ready("alike", files, settle_s=180)
    assert platform.client.visit("alike").text == "small"
    assert len(platform.registry.asked) == asked, "what was installed once is in the bucket"


def test_what_is_in_a_pod_tells_an_app_nothing_of_the_cluster(platform: Platform) -> None:
    platform.client.deploy_ready("curious", {"app.py": FLASK, "requirements.txt": "flask\n"})
    seen = platform.client.visit("curious", "/environment").json()
    assert not [name for name in seen["names"] if name.startswith(("VIBED_", "KUBERNETES_"))]
    assert (seen["uid"], seen["token"]) == (1000, False)


def test_a_sandbox_reaches_neither_another_one_nor_anything_of_the_platform(platform: Platform) -> None:
    client = platform.client
    for name in ("hostile", "neighbour"):
        client.deploy_ready(name, {"app.py": FLASK, "requirements.txt": "flask\n"})
    neighbour = platform.pod_of("neighbour")["status"]["podIP"]
    router = platform.get("-n", RELEASE, "service", "vibed-router")["spec"]["clusterIP"]
    routers = platform.get("-n", RELEASE, "pods", "-l", "app.kubernetes.io/component=router")["items"]
    api_server = urlsplit(platform.made.cluster.server[0])
    places = [
        (platform.get("-n", "default", "service", "kubernetes")["spec"]["clusterIP"], 443),
        (api_server.hostname, api_server.port),
        (neighbour, 20080),
        (neighbour, 20081),
        (neighbour, 8080),
        (router, 80),
        ("169.254.169.254", 80),
        *((one["status"]["podIP"], port) for one in routers for port in (2019, 7443, 8080)),
    ]
    for host, port in places:
        told = client.visit("hostile", f"/reach?host={host}&port={port}").text
        assert told.startswith("no:"), f"{host}:{port}: {told}"


def test_a_redeploy_under_load_fails_no_request(platform: Platform) -> None:
    client = platform.client
    source = {"app.py": FLASK, "requirements.txt": "flask\n"}
    client.deploy_ready("busy", source, env=[{"name": "VERSION", "value": "1"}])
    with Visits(platform, "busy", []) as visits:
        for version in ("2", "3"):
            client.deploy_ready("busy", source, env=[{"name": "VERSION", "value": version}])
            assert client.visit("busy", method="POST", content=b"xx").text == f"2 {version}"
        time.sleep(1)
    assert visits.asked > 20
    assert not visits.wrong


def test_a_pod_that_is_deleted_comes_back_by_itself_with_its_source(platform: Platform) -> None:
    client = platform.client
    client.deploy_ready("healed", {"app.py": FLASK, "requirements.txt": "flask\n"})
    before = platform.pod_of("healed")
    platform.kubectl("-n", APPS, "delete", "pod", before["metadata"]["name"], "--wait=false")
    eventually(
        lambda: (
            client.visit("healed").status_code == 200
            and platform.pod_of("healed")["metadata"]["uid"] != before["metadata"]["uid"]
        ),
        "it answers from another pod",
        within_s=90,
    )


def test_each_of_vibeds_own_pods_may_go_while_visitors_come(platform: Platform) -> None:
    client = platform.client
    client.deploy_ready("steady", {"app.py": FLASK, "requirements.txt": "flask\n"})
    with Visits(platform, "steady", []) as visits:
        for deployment in ("vibed", "vibed-controller", "vibed-router"):
            platform.kubectl("-n", RELEASE, "rollout", "restart", f"deployment/{deployment}")
            platform.kubectl(
                "-n", RELEASE, "rollout", "status", f"deployment/{deployment}", "--timeout=120s", deadline_s=130
            )
    assert visits.asked > 50
    assert not visits.wrong
    client.deploy_ready("afterwards", {"index.html": "after"})
    assert client.visit("afterwards").text == "after"


def test_an_upgrade_and_a_rollback_leave_apps_serving(platform: Platform) -> None:
    client = platform.client
    client.deploy_ready("kept", {"app.py": FLASK, "requirements.txt": "flask\n"})
    chart = str(REPOSITORY / "deploy" / "helm" / "vibed")
    uid = platform.pod_of("kept")["metadata"]["uid"]
    with Visits(platform, "kept", []) as visits:
        platform.made.helm(
            *("upgrade", "vibed", chart, "-n", RELEASE, "--reuse-values", "--wait", "--timeout=200s"),
            *("--set", "api.replicas=1"),
        )
        platform.made.helm("rollback", "vibed", "1", "-n", RELEASE, "--wait", "--timeout=200s")
    assert not visits.wrong
    assert platform.pod_of("kept")["metadata"]["uid"] == uid


def test_uninstalling_leaves_nothing_but_the_definition_of_a_vibedapp(platform: Platform) -> None:
    """The last: nothing is there afterwards."""
    platform.made.helm("uninstall", "vibed", "-n", RELEASE, "--wait", "--timeout=180s")
    eventually(
        lambda: APPS not in platform.kubectl("get", "namespaces", "-o", "name"),
        "the apps' namespace goes",
        within_s=120,
    )
    left = platform.kubectl("-n", RELEASE, "get", "all,secrets,configmaps,leases", "-o", "name").split()
    ours = [one for one in left if "kube-root-ca" not in one and one != "secret/vibed-s3"]
    assert not ours
    assert "vibedapps.vibed.dev" in platform.kubectl("get", "crds", "-o", "name")
