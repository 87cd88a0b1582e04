"""From one vibeD to another and back with `vibed export` and `vibed import`, as their operators do it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests import prepare
from tests.contract.s3_server import REGION, S3Server
from tests.e2e import samples
from tests.e2e.instance import Instance, running


@pytest.fixture(scope="module")
def here() -> Iterator[Instance]:
    """With its sources in files."""
    with running(Instance(templates="static-nginx,workerd", pools="workerd=1", layers="false")) as it:
        yield it


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Instance]:
    """Another machine's vibeD, which keeps its sources in a bucket."""
    with S3Server(prepare.home()) as server:
        instance = Instance(
            templates="static-nginx,workerd",
            pools="workerd=1",
            layers="false",
            source_store="s3",
            s3_endpoint=server.endpoint,
            s3_bucket=server.bucket,
            s3_region=REGION,
        )
        instance.env |= server.environment
        with running(instance) as it:
            yield it


def told(done: object) -> dict[str, str]:
    """What became of each app."""
    report = json.loads(done.stdout)  # type: ignore[attr-defined]
    return {app["app_id"]: app["outcome"] for app in report["apps"]}


def test_apps_move_to_another_vibed_serve_there_and_come_back(here: Instance, elsewhere: Instance) -> None:
    here.client.wait_for_template("workerd")
    page, work = "page", "work"
    for version in (1, 2):
        here.client.deploy_ready(page, samples.static(version))
    here.client.deploy_ready(work, samples.worker(1), env=[{"name": "WORD", "value": "carried"}])
    secret = here.client.ask("POST", "/v1/keys", json={"owner": "carol"})["secret"]
    file = here.root / "moved.tar"
    made = json.loads(here.run("export", str(file), "--json").stdout)
    assert made["left_out"] == []
    assert file.stat().st_mode & 0o777 == 0o600

    # welcome, which every vibeD has, is skipped
    outcome = told(elsewhere.run("import", str(file), "--json"))
    assert (outcome[page], outcome[work], outcome["welcome"]) == ("imported", "imported", "skipped")
    elsewhere.client.wait_for_template("workerd")
    for name, number in ((page, 2), (work, 1)):
        elsewhere.client.settled(name, number)
    assert "version 2" in elsewhere.client.visit(page).text
    assert elsewhere.client.visit(work, "/env").json() == {"WORD": "carried"}
    rolled = elsewhere.client.ask("POST", f"/v1/apps/{page}/rollback", json={"version": 1})
    assert (rolled["version"], rolled["phase"]) == (3, "Ready")
    assert elsewhere.client_with(secret).ask("GET", "/v1/whoami")["owner"] == "carol"

    back = elsewhere.root / "back.tar"
    assert elsewhere.run("export", str(back)).returncode == 0
    again = told(here.run("import", str(back), "--json"))
    assert again[page] == "skipped"
    replaced = told(here.run("import", str(back), "--replace", "--json", timeout_s=120))
    assert replaced[page] == "replaced"
    here.client.settled(page, 3)
    assert "version 1" in here.client.visit(page).text
    assert [v["version"] for v in here.client.ask("GET", f"/v1/apps/{page}/versions")["items"]] == [3, 2, 1]


def test_a_file_that_is_cut_off_is_told_and_what_was_whole_stays(here: Instance, elsewhere: Instance) -> None:
    name = here.client.deploy_ready("whole", samples.static(1)).app_id
    folder = here.root / "exports"
    folder.mkdir()
    assert here.run("export", str(folder)).returncode == 0
    (file,) = folder.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: content.index(b"end.json")])
    done = elsewhere.run("import", str(folder))
    assert done.returncode == 1
    assert "cut off" in done.stderr
    assert name in done.stdout
    file.write_bytes(b"nothing of that kind" * 100)
    done = elsewhere.run("import", str(file))
    assert done.returncode == 1
    assert "no export of vibeD" in done.stderr
