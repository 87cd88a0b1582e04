"""Reading and deleting apps, keys, templates, health and metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from api_harness import LAYER, PYTHON, SITE, Running, archive, refused, running

from vibed.api import keyuse, schema
from vibed.api.identity import digest
from vibed.apps.app import Phase
from vibed.apps.errors import StoreUnavailable
from vibed.config import InvalidConfiguration


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "home", tmp_path / "run") as made:
        yield made


async def names(api: Running, query: str = "", headers: dict[str, str] | None = None) -> list[str]:
    page = (await api.client.get(f"/v1/apps{query}", headers=headers)).json()
    return [app["app_id"] for app in page["items"]]


async def test_answers_fit_their_schemas(api: Running) -> None:
    deployed = await api.deploy("a", PYTHON, env=[{"name": "A", "value": "1"}])
    api.controller.layers = [LAYER]
    schema.Deployed.model_validate(deployed.json())
    for path, shape in (
        ("/v1/apps", schema.Apps),
        ("/v1/apps/a", schema.App),
        ("/v1/apps/a/versions", schema.Versions),
        ("/v1/apps/a/versions/1", schema.VersionWithEnv),
        ("/v1/apps/a/logs?format=json", schema.LogPage),
        ("/v1/apps/a/events?format=json", schema.EventPage),
        ("/v1/templates", schema.Templates),
        ("/v1/layers", schema.Layers),
        ("/v1/keys", schema.Keys),
        ("/v1/whoami", schema.WhoAmI),
    ):
        shape.model_validate((await api.client.get(path)).json())
    made = await api.client.post("/v1/keys", json={"owner": "alice"})
    schema.CreatedKey.model_validate(made.json())


async def test_an_app_tells_how_it_stands(api: Running) -> None:
    await api.deploy("a", PYTHON)
    app = (await api.client.get("/v1/apps/a")).json()
    assert (app["app_id"], app["owner"], app["phase"], app["isolation"]) == ("a", "admin", "Ready", "kernel")
    assert (app["version"], app["serving_version"], app["settled"]) == (1, 1, True)
    assert app["runtime"]["template"] == "python-313"
    assert app["created_at"].endswith("Z")


async def test_lists_come_newest_first_in_pages_with_a_total(api: Running) -> None:
    for name in ("a", "b", "c"):
        await api.deploy(name)
    await api.deploy("a", archive({"index.html": "again"}))
    assert await names(api) == ["a", "c", "b"]
    page = (await api.client.get("/v1/apps?limit=1&offset=1")).json()
    assert ([app["app_id"] for app in page["items"]], page["total"]) == (["c"], 3)
    assert await names(api, "?offset=9") == []


async def test_lists_are_filtered_by_phase_and_text(api: Running) -> None:
    await api.deploy("todo-list")
    api.controller.phase = Phase.FAILED
    await api.deploy("broken")
    assert await names(api, "?phase=Failed") == ["broken"]
    assert await names(api, "?q=list") == ["todo-list"]
    assert await names(api, "?q=%25") == []


async def test_callers_see_their_own_and_an_admin_sees_all(api: Running) -> None:
    alice, bob = await api.key("alice"), await api.key("bob")
    await api.deploy("a", headers=alice)
    await api.deploy("b", headers=bob)
    assert await names(api, headers=alice) == ["a"]
    assert await names(api, "?owner=bob", headers=alice) == []
    assert sorted(await names(api)) == ["a", "b"]
    assert await names(api, "?owner=bob") == ["b"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("DELETE", "", None),
        ("PATCH", "", {"env": []}),
        ("POST", "/redeploy", {}),
        ("POST", "/rollback", {"version": 1}),
        ("GET", "/logs", None),
        ("GET", "/logs?format=json", None),
        ("GET", "/events", None),
        ("GET", "/versions", None),
        ("GET", "/versions/1", None),
        ("GET", "/source", None),
    ],
)
async def test_anothers_app_does_not_exist(api: Running, method: str, path: str, body: Any) -> None:
    await api.deploy("a", headers=await api.key("alice"))
    bob = await api.key("bob")
    theirs = await api.client.request(method, f"/v1/apps/a{path}", json=body, headers=bob)
    nobodys = await api.client.request(method, f"/v1/apps/z{path}", json=body, headers=bob)
    refused(theirs, 404, "NotFound")
    assert theirs.text.replace("'a'", "'z'") == nobodys.text
    assert (await api.store.get("a")).version == 1


@pytest.mark.parametrize("number", [2**63, 99999999999999999999])
async def test_a_version_that_no_database_can_hold_is_not_there(api: Running, number: int) -> None:
    await api.deploy("a")
    refused(await api.client.get(f"/v1/apps/a/versions/{number}"), 404, "NotFound")
    refused(await api.client.get(f"/v1/apps/a/source?version={number}"), 404, "NotFound")
    refused(await api.client.post("/v1/apps/a/rollback", json={"version": number}), 404, "NotFound")


async def test_an_admin_can_look_after_every_app(api: Running) -> None:
    await api.deploy("a", headers=await api.key("alice"))
    other = await api.key("ops", admin=True)
    assert (await api.client.get("/v1/apps/a", headers=other)).status_code == 200
    answer = await api.client.post("/v1/apps/a/redeploy", headers=other)
    assert answer.json()["version"] == 2
    app, version = await api.store.get("a"), await api.store.version("a", 2)
    assert (app.owner, version.created_by) == ("alice", "ops")


async def test_a_deleted_app_is_gone_at_once_and_the_second_delete_finds_nothing(api: Running) -> None:
    api.controller.purge = False
    await api.deploy("a")
    answer = await api.client.delete("/v1/apps/a")
    assert (answer.status_code, answer.content) == (204, b"")
    assert ("wake", "a") in [(op, message.get("app_id")) for op, message in api.controller.calls]
    for path in ("", "/versions", "/logs", "/events", "/source"):
        refused(await api.client.get(f"/v1/apps/a{path}"), 404, "NotFound")
    refused(await api.client.delete("/v1/apps/a"), 404, "NotFound")
    assert await names(api) == []


async def test_a_delete_is_kept_while_the_controller_is_away(api: Running) -> None:
    await api.deploy("a")
    await api.stop_controller()
    answer = await api.client.delete("/v1/apps/a")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await api.store.get("a")).deleted


async def test_a_name_that_was_deleted_starts_afresh(api: Running) -> None:
    await api.deploy("a", env=[{"name": "OLD", "value": "1"}], headers=await api.key("alice"))
    await api.client.delete("/v1/apps/a")
    body = (await api.deploy("a", headers=await api.key("bob"))).json()
    assert (body["version"], body["created"]) == (1, True)
    assert dict((await api.store.version("a", 1)).env) == {}


async def test_versions_tell_names_of_variables_and_one_version_their_values(api: Running) -> None:
    await api.deploy("a", env=[{"name": "TOKEN", "value": "s3cret"}])
    listed = await api.client.get("/v1/apps/a/versions")
    assert listed.json()["items"][0]["env_names"] == ["TOKEN"]
    assert "s3cret" not in listed.text
    assert (await api.client.get("/v1/apps/a/versions/1")).json()["env"] == [{"name": "TOKEN", "value": "s3cret"}]
    refused(await api.client.get("/v1/apps/a/versions/9"), 404, "NotFound")


async def test_the_source_comes_back_as_it_was_sent(api: Running) -> None:
    await api.deploy("a", PYTHON)
    await api.deploy("a", SITE)
    answer = await api.client.get("/v1/apps/a/source")
    assert answer.content == SITE
    assert answer.headers["content-type"] == "application/gzip"
    etag = answer.headers["etag"]
    assert etag == f'"{(await api.store.version("a", 2)).source_digest}"'
    assert (await api.client.get("/v1/apps/a/source", headers={"If-None-Match": etag})).status_code == 304
    assert (await api.client.get("/v1/apps/a/source?version=1")).content == PYTHON


async def test_a_key_is_shown_once_and_only_its_hash_is_kept(api: Running) -> None:
    made = (await api.client.post("/v1/keys", json={"owner": "alice", "label": "laptop"})).json()
    secret = made["secret"]
    assert (made["owner"], made["admin"], made["label"]) == ("alice", False, "laptop")
    assert secret not in (await api.client.get("/v1/keys")).text
    found = await api.store.find_key(digest(secret))
    assert found is not None and found.key_id == made["key_id"]
    for path in api.config.home.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()


async def test_a_revoked_key_stops_at_once(api: Running) -> None:
    made = (await api.client.post("/v1/keys", json={"owner": "alice"})).json()
    alice = {"Authorization": f"Bearer {made['secret']}"}
    assert (await api.client.get("/v1/whoami", headers=alice)).json()["owner"] == "alice"
    assert (await api.client.delete(f"/v1/keys/{made['key_id']}")).status_code == 204
    refused(await api.client.get("/v1/whoami", headers=alice), 401, "Unauthorized")
    refused(await api.client.delete(f"/v1/keys/{made['key_id']}"), 404, "NotFound")


async def last_used(api: Running) -> dict[str, str | None]:
    page = (await api.client.get("/v1/keys")).json()
    return {key["owner"]: key["last_used_at"] for key in page["items"]}


async def test_a_key_tells_when_it_was_last_used(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyuse, "AFTER_S", 0.01)
    alice, _ = await api.key("alice"), await api.key("bob")
    assert await last_used(api) == {"alice": None, "bob": None}
    before = time.time()
    assert (await api.client.get("/v1/whoami", headers=alice)).status_code == 200
    async with asyncio.timeout(10):
        while (used := (await last_used(api))["alice"]) is None:
            await asyncio.sleep(0.01)
    assert before - 1 <= datetime.fromisoformat(used).timestamp() <= time.time()
    assert (await last_used(api))["bob"] is None, "nobody used it"


async def test_many_uses_of_many_keys_are_one_write(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyuse, "AFTER_S", 0.2)
    keys = [await api.key(owner) for owner in ("alice", "bob")]
    writes: list[Mapping[str, float]] = []

    async def write(used: Mapping[str, float]) -> None:
        writes.append(dict(used))

    monkeypatch.setattr(api.store, "keys_used", write)
    for headers in keys * 10:
        assert (await api.client.get("/v1/whoami", headers=headers)).status_code == 200
    async with asyncio.timeout(10):
        while not writes:
            await asyncio.sleep(0.01)
    for headers in keys * 10:
        assert (await api.client.get("/v1/whoami", headers=headers)).status_code == 200
    await asyncio.sleep(0.5)
    assert [len(used) for used in writes] == [2], "the next write is a minute later"


async def test_uses_that_were_not_written_yet_are_written_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyuse, "AFTER_S", 3600.0)
    async with running(tmp_path / "home", tmp_path / "run") as api:
        await api.client.get("/v1/whoami", headers=await api.key("alice"))
        assert await last_used(api) == {"alice": None}
    async with running(tmp_path / "home", tmp_path / "run") as api:
        assert (await last_used(api))["alice"] is not None


async def test_a_use_that_cannot_be_written_is_logged_and_tried_again(
    api: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keyuse, "AFTER_S", 0.01)
    monkeypatch.setattr(keyuse, "EVERY_S", 0.01)
    write, failed = api.store.keys_used, 0

    async def fail(used: Mapping[str, float]) -> None:
        nonlocal failed
        failed += 1
        if failed < 3:
            raise StoreUnavailable("the disk is full")
        await write(used)

    monkeypatch.setattr(api.store, "keys_used", fail)
    alice = await api.key("alice")
    assert (await api.client.get("/v1/whoami", headers=alice)).status_code == 200
    async with asyncio.timeout(10):
        while (await last_used(api))["alice"] is None:
            await asyncio.sleep(0.01)
    assert failed == 3
    assert [record.levelname for record in caplog.records if record.name == "vibed.api"] == ["WARNING"] * 2


async def test_a_request_does_not_wait_for_its_key_to_be_written(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyuse, "AFTER_S", 0.0)
    writing, done = asyncio.Event(), asyncio.Event()

    async def write(used: Mapping[str, float]) -> None:
        writing.set()
        await done.wait()

    monkeypatch.setattr(api.store, "keys_used", write)
    alice = await api.key("alice")
    async with asyncio.timeout(10):
        assert (await api.client.get("/v1/whoami", headers=alice)).status_code == 200
        await writing.wait()
        assert (await api.client.get("/v1/whoami", headers=alice)).status_code == 200
    done.set()


async def test_keys_are_an_admins_business(api: Running) -> None:
    alice = await api.key("alice")
    refused(await api.client.get("/v1/keys", headers=alice), 403, "Forbidden")
    refused(await api.client.post("/v1/keys", json={"owner": "bob"}, headers=alice), 403, "Forbidden")
    refused(await api.client.delete("/v1/keys/x", headers=alice), 403, "Forbidden")
    ops = await api.key("ops", admin=True)
    assert (await api.client.get("/v1/keys", headers=ops)).status_code == 200


async def test_whoami_names_the_holder_of_the_key(api: Running) -> None:
    assert (await api.client.get("/v1/whoami")).json()["admin"] is True
    alice = (await api.client.get("/v1/whoami", headers=await api.key("alice"))).json()
    assert (alice["owner"], alice["admin"], alice["label"]) == ("alice", False, "test")


async def test_templates_without_the_controller_are_listed_as_not_available(api: Running) -> None:
    await api.stop_controller()
    page = (await api.client.get("/v1/templates")).json()
    assert {"static-nginx", "python-313"} <= {item["name"] for item in page["items"]}
    assert not any(item["available"] for item in page["items"])
    assert all(item["reason"] for item in page["items"])


async def test_layers_are_told_to_admins_alone(api: Running) -> None:
    api.controller.layers = [LAYER]
    page = (await api.client.get("/v1/layers")).json()
    assert (page["total"], page["items"][0]["packages"], page["items"][0]["apps"]) == (1, {"humanize": "4.13.0"}, ["a"])
    assert page["items"][0]["used_at"].endswith("Z")
    refused(await api.client.get("/v1/layers", headers=await api.key("alice")), 403, "Forbidden")
    await api.stop_controller()
    assert (await api.client.get("/v1/layers")).status_code == 503


async def test_ready_means_store_sources_and_controller_were_asked(api: Running) -> None:
    assert (await api.client.get("/readyz")).status_code == 200
    api.controller.healthy = False
    api.app.state.context.readiness._last = None
    body = refused(await api.client.get("/readyz"), 503, "NotReady")
    assert body["details"]["checks"]["controller.caddy"]["ok"] is False
    assert body["details"]["checks"]["store"]["ok"] is True
    await api.stop_controller()
    api.app.state.context.readiness._last = None
    body = refused(await api.client.get("/readyz"), 503, "NotReady")
    assert body["details"]["checks"]["controller"]["detail"] == "Disconnected"
    assert str(api.config.home) not in str(body)
    assert (await api.client.get("/healthz")).json()["ok"] is True


async def test_metrics_tell_deploys_by_step_lane_and_template_and_the_controllers_own(api: Running) -> None:
    await api.deploy("a")
    await api.deploy("b", archive({"README.md": "x"}))
    page = (await api.client.get("/metrics")).text
    assert 'vibed_deploys_total{lane="fast",phase="Ready",template="static-nginx"} 1.0' in page
    assert 'vibed_deploy_step_seconds_count{lane="fast",step="claim",template="static-nginx"} 1.0' in page
    assert 'vibed_deploy_step_seconds_count{lane="fast",step="total",template="static-nginx"} 1.0' in page
    assert 'vibed_deploys_refused_total{code="NoEntrypoint"} 1.0' in page
    assert 'vibed_http_requests_total{method="POST",status="200"} 1.0' in page
    assert "vibed_sandboxes 3" in page
    await api.stop_controller()
    assert (await api.client.get("/metrics")).status_code == 200


async def test_an_empty_admin_key_is_not_a_key(tmp_path: Path) -> None:
    from vibed.api.serve import _admin_digest
    from vibed.config import Config
    from vibed.layout import Layout, Uids

    layout = Layout(tmp_path, tmp_path, Uids(1, rootless=True))
    with pytest.raises(InvalidConfiguration):
        _admin_digest(Config(tmp_path), layout)
    layout.admin_key.write_text("\n")
    with pytest.raises(InvalidConfiguration):
        _admin_digest(Config(tmp_path), layout)
    layout.admin_key.write_text("the key\n")
    assert _admin_digest(Config(tmp_path), layout) == digest("the key")
