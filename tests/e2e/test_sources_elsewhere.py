"""A vibeD on one machine that keeps its sources in a bucket: deploys, restarts, goes back, and does without the bucket
for as long as nothing new is asked of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from tests import prepare
from tests.contract.s3_server import REGION, SECRET_KEY, S3Server
from tests.e2e import samples
from tests.e2e.instance import Instance, running


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server(prepare.home()) as server:
        yield server


@pytest.fixture(scope="module")
def vibed(server: S3Server) -> Iterator[Instance]:
    instance = Instance(
        templates="static-nginx,workerd",
        pools="workerd=1",
        layers="false",
        source_store="s3",
        s3_endpoint=server.endpoint,
        s3_bucket=server.bucket,
        s3_region=REGION,
        s3_prefix="vibed/",
    )
    instance.env |= server.environment
    with running(instance) as it:
        yield it


def forget_what_was_fetched(vibed: Instance) -> None:
    for path in vibed.layout.fetched_sources.glob("*.tar.gz"):
        path.unlink()


def test_an_app_is_deployed_restarted_and_taken_back_from_the_bucket(vibed: Instance, server: S3Server) -> None:
    for version in (1, 2):
        assert vibed.client.deploy_ready("page", samples.static(version)).number == version
    versions = vibed.client.ask("GET", "/v1/apps/page/versions")["items"]
    names = server.objects()
    for version in versions:
        assert any(name.startswith(f"vibed/sources/{version['source_digest']}-") for name in names)
    assert not list(vibed.layout.sources.glob("*.tar.gz")), "none is kept beside it"

    assert vibed.down().returncode == 0
    forget_what_was_fetched(vibed)
    vibed.up()
    assert "version 2" in vibed.client.visit("page").text
    answer = vibed.client.ask("POST", "/v1/apps/page/rollback", json={"version": 1})
    assert (answer["version"], answer["phase"]) == (3, "Ready")
    assert "version 1" in vibed.client.visit("page").text
    forget_what_was_fetched(vibed)
    source = vibed.client.api("GET", "/v1/apps/page/source")
    assert source.headers["etag"].strip('"') == versions[1]["source_digest"]


def test_a_worker_is_started_from_it(vibed: Instance) -> None:
    vibed.client.wait_for_template("workerd")
    vibed.client.deploy_ready("work", samples.worker(1))
    assert vibed.client.visit("work").text == "version 1\n"


def test_without_the_bucket_apps_serve_and_a_deploy_is_refused_with_what_is_wrong(
    vibed: Instance, server: S3Server
) -> None:
    vibed.client.deploy_ready("stays", samples.static(1))
    server.kill()
    try:
        assert vibed.client.visit("stays").status_code == 200
        answer = vibed.client.post_deploy("stays", samples.static(2))
        assert answer.status_code == 503
        told = answer.json()
        assert told["code"] == "SourceStoreUnreachable"
        assert told["details"]["retryable"] is True
        assert vibed.client.app("stays")["version"] == 1
        found = json.loads(vibed.run("doctor", "--json").stdout)["findings"]
        (store,) = (item for item in found if item["name"] == "source store")
        assert not store["ok"]
        assert "refused" in store["detail"]
    finally:
        server.start()
    vibed.client.deploy_ready("stays", samples.static(2))
    assert "version 2" in vibed.client.visit("stays").text


def test_doctor_tries_the_bucket_out(vibed: Instance) -> None:
    found = json.loads(vibed.run("doctor", "--json").stdout)["findings"]
    (store,) = (item for item in found if item["name"] == "source store")
    assert store["ok"], store
    assert "writes, reads, lists and deletes" in store["detail"]


def test_the_secret_is_in_no_log_and_in_no_file_that_others_read(vibed: Instance) -> None:
    for folder in (vibed.layout.own_logs, vibed.layout.logs):
        for path in folder.rglob("*"):
            assert not path.is_file() or SECRET_KEY.encode() not in path.read_bytes(), path
    with_it = [
        path
        for path in vibed.layout.runtime.rglob("*")
        if path.is_file() and not path.is_symlink() and SECRET_KEY.encode() in path.read_bytes()
    ]
    assert all(path.stat().st_mode & 0o077 == 0 for path in with_it), with_it


def test_the_cache_is_only_a_cache(vibed: Instance) -> None:
    vibed.client.deploy_ready("again", samples.static(1))
    shutil.rmtree(vibed.layout.fetched_sources / "arriving")
    forget_what_was_fetched(vibed)
    vibed.kill("controller")
    vibed.wait_until_ready()
    assert vibed.client.ask("POST", "/v1/apps/again/redeploy")["phase"] == "Ready"
