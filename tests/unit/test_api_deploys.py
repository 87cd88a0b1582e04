"""POST /v1/deploy and what else makes versions."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_harness import ORIGIN, PYTHON, SITE, Running, archive, parts, refused, running

from vibed.api import body as body_module
from vibed.api.identity import ADMIN, Caller
from vibed.apps.app import Phase
from vibed.apps.errors import NotFound
from vibed.apps.store import Deployed, NewVersion
from vibed.mcp.inprocess import InProcess
from vibed.sources.errors import StorageFull


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "home", tmp_path / "run", max_source_mb=1, deploy_wait_s=2.0) as made:
        yield made


async def test_a_deploy_that_is_ready_answers_200_with_the_url_and_why_it_runs_so(api: Running) -> None:
    answer = await api.deploy("todo")
    assert answer.status_code == 200
    body = answer.json()
    assert body["app_id"] == "todo"
    assert body["url"] == "http://todo.localhost:18080"
    assert body["status_url"] == "http://localhost:18080/v1/apps/todo"
    assert (body["version"], body["created"], body["phase"]) == (1, True, "Ready")
    assert body["runtime"]["lane"] == "fast"
    assert body["runtime"]["why"]
    assert {"receive", "classify", "store", "settle", "claim", "inject", "start", "total"} <= set(body["timings"])


async def test_parts_may_come_in_either_order(api: Running) -> None:
    answer = await api.client.post("/v1/deploy", files=parts({"name": "todo"}, SITE, source_first=True))
    assert answer.status_code == 200, answer.text


async def test_the_same_name_again_is_the_next_version_and_not_created(api: Running) -> None:
    await api.deploy("todo")
    body = (await api.deploy("todo", archive({"index.html": "two"}))).json()
    assert (body["version"], body["created"], body["serving_version"]) == (2, False, 2)


async def test_if_exists_fail_refuses_the_callers_own_app(api: Running) -> None:
    await api.deploy("todo")
    refused(await api.deploy("todo", if_exists="fail"), 409, "AlreadyExists")


async def test_what_is_not_ready_in_time_is_202_and_stored(api: Running) -> None:
    api.controller.delay_s = 60
    answer = await api.deploy("slow")
    assert answer.status_code == 202
    assert answer.json()["phase"] == "Pending"
    assert (await api.store.get("slow")).version == 1


async def test_a_failed_start_is_202_with_the_reason(api: Running) -> None:
    api.controller.phase, api.controller.reason = Phase.FAILED, "StartFailed"
    api.controller.message = "exit status 1: ModuleNotFoundError"
    body = (await api.deploy("broken", PYTHON)).json()
    assert (body["phase"], body["reason"]) == ("Failed", "StartFailed")
    assert "ModuleNotFoundError" in body["message"]


async def test_while_the_controller_is_away_a_deploy_is_accepted_and_says_so(api: Running) -> None:
    await api.stop_controller()
    answer = await api.deploy("todo")
    assert answer.status_code == 202
    assert answer.json()["reason"] == "ControllerRestarting"
    assert (await api.store.get("todo")).version == 1


async def test_a_deploy_under_another_owners_name_is_refused_and_tells_nothing(api: Running) -> None:
    alice, bob = await api.key("alice"), await api.key("bob")
    assert (await api.deploy("todo", headers=alice)).status_code == 200
    before = await api.store.get("todo")
    body = refused(await api.deploy("todo", archive({"index.html": "evil"}), headers=bob), 409, "NameTaken")
    assert "alice" not in json.dumps(body)
    assert await api.store.get("todo") == before
    refused(await api.deploy("todo", if_exists="fail", headers=bob), 409, "NameTaken")
    assert len(api.sources()) == 1


async def test_an_admin_cannot_take_over_a_name_either(api: Running) -> None:
    await api.deploy("todo", headers=await api.key("alice"))
    refused(await api.deploy("todo"), 409, "NameTaken")


@pytest.mark.parametrize(
    ("metadata", "status", "code", "field"),
    [
        ({"name": "Todo List"}, 422, "InvalidName", None),
        ({"name": "api"}, 422, "InvalidName", None),
        ({}, 422, "InvalidRequest", "name"),
        ({"name": "a", "secrets": {"a": "b"}}, 422, "NotSupported", "secrets"),
        ({"name": "a", "egress": {"allowed_hosts": []}}, 422, "NotSupported", "egress"),
        ({"name": "a", "ttl": "1h"}, 422, "NotSupported", "ttl"),
        ({"name": "a", "visibility": "public"}, 422, "NotSupported", "visibility"),
        ({"name": "a", "data": True}, 422, "NotSupported", "data"),
        ({"name": "a", "runtime": {"image": "x"}}, 422, "NotSupported", "runtime.image"),
        ({"name": "a", "memory": "1Gi"}, 422, "InvalidRequest", "memory"),
        ({"name": "a", "runtime": {"templates": "x"}}, 422, "InvalidRequest", "runtime.templates"),
        ({"name": "a", "runtime": {"lane": "slow"}}, 422, "InvalidRequest", "runtime.lane"),
        ({"name": "a", "runtime": {"port": 0}}, 422, "InvalidRequest", "runtime.port"),
        ({"name": "a", "runtime": {"port": True}}, 422, "InvalidRequest", "runtime.port"),
        ({"name": "a", "runtime": {"warm": "no"}}, 422, "InvalidRequest", "runtime.warm"),
        ({"name": "a", "runtime": {"entrypoint": "\ud800"}}, 422, "InvalidRequest", "runtime.entrypoint"),
        ({"name": "a", "runtime": {"\ud800": 1}}, 422, "InvalidRequest", r"runtime.\ud800"),
        ({"name": "a", "\ud800": 1}, 422, "InvalidRequest", r"\ud800"),
        ({"name": "\ud800"}, 422, "InvalidRequest", "name"),
        ({"name": "a", "env": {"A": "b"}}, 422, "InvalidRequest", "env"),
        ({"name": "a", "env": [{"name": "A-B", "value": "b"}]}, 422, "InvalidRequest", "env[0].name"),
        ({"name": "a", "env": [{"name": "A", "value": 1}]}, 422, "InvalidRequest", "env[0].value"),
        ({"name": "a", "env": [{"name": "A", "value": "x\0"}]}, 422, "InvalidRequest", "env[0].value"),
        ({"name": "a", "env": [{"name": "A", "value": "\ud800"}]}, 422, "InvalidRequest", "env"),
        (
            {"name": "a", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
            422, "InvalidRequest", "env[1].name",
        ),
        ({"name": "a", "env": [{"name": "A", "value": "x" * 100_000}]}, 422, "InvalidRequest", "env"),
        ({"name": "a", "resources": {"memory": "1"}}, 422, "InvalidRequest", "resources.memory"),
        ({"name": "a", "resources": {"cpu": 0}}, 422, "InvalidRequest", "resources.cpu"),
        ({"name": "a", "resources": {"cpu": 10**400}}, 422, "InvalidRequest", "resources.cpu"),
        ({"name": "a", "if_exists": "maybe"}, 422, "InvalidRequest", "if_exists"),
        ({"name": 7}, 422, "InvalidRequest", "name"),
        ([], 400, "MalformedRequest", None),
        ("{", 400, "MalformedRequest", None),
        ('{"name": "a", "name": "b"}', 400, "MalformedRequest", None),
        (None, 400, "MetadataMissing", None),
    ],
)  # fmt: skip
async def test_metadata_that_vibed_does_not_understand_is_refused_by_field_and_leaves_nothing(
    api: Running, metadata: object, status: int, code: str, field: str | None
) -> None:
    answer = await api.client.post("/v1/deploy", files=parts(metadata, SITE))
    body = refused(answer, status, code)
    if field is not None:
        assert body["details"]["field"] == field
    assert api.sources() == []
    assert (await api.store.list())[1] == 0


async def test_an_invalid_name_comes_with_the_nearest_valid_one(api: Running) -> None:
    body = refused(await api.deploy("My Todo App!"), 422, "InvalidName")
    assert body["details"]["nearest"] == "my-todo-app"


async def test_a_null_says_nothing(api: Running) -> None:
    answer = await api.client.post(
        "/v1/deploy", files=parts({"name": "a", "ttl": None, "env": None, "runtime": None, "resources": None}, SITE)
    )
    assert answer.status_code == 200, answer.text


async def test_a_deploy_without_source_says_what_is_missing(api: Running) -> None:
    refused(await api.client.post("/v1/deploy", files=parts({"name": "a"}, None)), 400, "SourceRequired")


async def test_the_controller_hears_of_a_version_while_it_is_stored_and_not_of_what_is_refused(api: Running) -> None:
    source = archive({"index.html": "hi"})
    await api.deploy("todo", source)
    refused(await api.deploy("other", archive({"README.md": "hello"})), 422, "NoEntrypoint")
    told = [(op, message) for op, message in api.controller.calls if op in ("prepare", "settle")]
    assert [op for op, _ in told] == ["prepare", "settle"]
    prospect = told[0][1]
    assert (prospect["app_id"], prospect["digest"]) == ("todo", hashlib.sha256(source).hexdigest())
    assert prospect["template"] == "static-nginx"


async def test_a_source_that_cannot_run_leaves_nothing(api: Running) -> None:
    refused(await api.deploy("a", archive({"README.md": "hello"})), 422, "NoEntrypoint")
    assert api.sources() == []


async def test_why_a_source_is_refused_is_told_even_if_it_could_not_be_kept_either(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object, **__: object) -> None:
        raise StorageFull("the disk is full")

    monkeypatch.setattr(api.app.state.context.deployments.intake, "keep", full)
    refused(await api.deploy("a", archive({"README.md": "hello"})), 422, "NoEntrypoint")
    refused(await api.deploy("a", archive({"index.html": "hello"})), 507, "StorageFull")
    assert api.sources() == []


async def test_a_hostile_archive_leaves_nothing(api: Running) -> None:
    refused(await api.deploy("a", archive({"../evil": "x"})), 400, "PathTraversal")
    refused(await api.deploy("a", b"not gzip at all"), 400, "NotGzip")
    refused(await api.deploy("a", b""), 400, "NotGzip")
    assert api.sources() == []


async def test_a_body_that_says_it_is_too_large_is_refused_before_a_byte_is_read(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_module, "LINGERING", 0)  # what comes after the answer is read for the client's sake

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    request = api.client.build_request(
        "POST",
        "/v1/deploy",
        content=never(),
        headers={"content-type": "multipart/form-data; boundary=x", "content-length": "9000000"},
    )
    refused(await api.client.send(request), 413, "BodyTooLarge")


async def test_a_body_without_a_length_is_stopped_at_the_limit(api: Running) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="source"; filename="s"\r\n\r\n'
        while True:
            sent += 65_536
            assert sent < 3_000_000, "nobody stopped it"
            yield b"\1" * 65_536

    answer = await api.client.post(
        "/v1/deploy", content=endless(), headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert answer.status_code == 413
    assert api.sources() == []


async def test_metadata_is_bounded(api: Running) -> None:
    answer = await api.client.post("/v1/deploy", files=parts({"name": "a", "x": "y" * 300_000}, SITE))
    refused(answer, 413, "BodyTooLarge")
    assert api.sources() == []


def part(name: str, content: str) -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{content}\r\n'.encode()


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=x", b"no boundary here"),
        ("multipart/form-data; boundary=x", part("source", "cut")),
        ("multipart/form-data; boundary=x", part("other", "a") + b"--x--\r\n"),
        ("multipart/form-data; boundary=x", part("metadata", "{}") * 2 + b"--x--\r\n"),
        ("multipart/form-data; boundary=x", part("source", "a") * 2 + b"--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: b\r\n" * 50 + b"\r\n\r\n--x--\r\n"),
    ],
)
async def test_a_body_that_is_not_the_multipart_of_a_deploy_is_malformed(
    api: Running, content_type: str, body: bytes
) -> None:
    answer = await api.client.post("/v1/deploy", content=body, headers={"content-type": content_type})
    refused(answer, 400, "MalformedRequest")
    assert api.sources() == []


async def test_env_and_resources_stay_when_a_redeploy_does_not_name_them(api: Running) -> None:
    await api.deploy("a", env=[{"name": "A", "value": "1"}], resources={"memory": "256Mi", "cpu": "500m"})
    await api.deploy("a")
    version = await api.store.version("a", 2)
    assert dict(version.env) == {"A": "1"}
    assert (version.resources.memory_mb, version.resources.cpu) == (256, 0.5)
    await api.deploy("a", env=[])
    assert dict((await api.store.version("a", 3)).env) == {}


async def test_patch_changes_settings_on_the_same_source(api: Running) -> None:
    await api.deploy("a")
    answer = await api.client.patch("/v1/apps/a", json={"env": [{"name": "B", "value": "2"}]})
    assert answer.status_code == 200
    one, two = await api.store.version("a", 1), await api.store.version("a", 2)
    assert two.source_digest == one.source_digest
    assert dict(two.env) == {"B": "2"}
    refused(await api.client.patch("/v1/apps/a", json={}), 422, "InvalidRequest")
    refused(await api.client.patch("/v1/apps/a", json={"name": "b"}), 422, "InvalidRequest")
    refused(await api.client.patch("/v1/apps/a", json={"visibility": "public"}), 422, "NotSupported")


async def test_redeploy_with_nothing_is_the_same_again(api: Running) -> None:
    await api.deploy("a", PYTHON, env=[{"name": "A", "value": "1"}])
    body = (await api.client.post("/v1/apps/a/redeploy")).json()
    assert body["version"] == 2
    one, two = await api.store.version("a", 1), await api.store.version("a", 2)
    assert (two.source_digest, two.runtime, dict(two.env)) == (one.source_digest, one.runtime, {"A": "1"})


async def test_redeploy_takes_source_or_metadata_or_both(api: Running) -> None:
    await api.deploy("a", PYTHON)
    answer = await api.client.post("/v1/apps/a/redeploy", files=parts(None, SITE))
    assert answer.json()["runtime"]["lane"] == "fast"
    answer = await api.client.post("/v1/apps/a/redeploy", files=parts({"env": [{"name": "X", "value": "y"}]}, PYTHON))
    assert answer.json()["runtime"]["kind"] == "python"
    answer = await api.client.post(
        "/v1/apps/a/redeploy", files=parts({"runtime": {"entrypoint": "python3 app.py"}}, None)
    )
    assert answer.json()["runtime"]["entrypoint"] == "python3 app.py"
    answer = await api.client.post("/v1/apps/a/redeploy", json={"env": []})
    assert answer.json()["version"] == 5
    assert dict((await api.store.version("a", 5)).env) == {}
    refused(await api.client.post("/v1/apps/a/redeploy", json={"name": "b"}), 422, "InvalidRequest")


async def test_a_redeploy_takes_a_source_that_is_larger_than_json_may_be(api: Running) -> None:
    await api.deploy("a")
    large = archive({"index.html": random.Random(1).randbytes(400_000)})
    answer = await api.client.post("/v1/apps/a/redeploy", files=parts(None, large))
    assert answer.json()["version"] == 2


async def _with_source(api: Running) -> httpx.Response:
    return await api.client.post("/v1/apps/a/redeploy", files=parts(None, PYTHON))


async def _with_nothing(api: Running) -> httpx.Response:
    return await api.client.post("/v1/apps/a/redeploy")


async def _with_settings(api: Running) -> httpx.Response:
    return await api.client.patch("/v1/apps/a", json={"env": []})


async def _back(api: Running) -> httpx.Response:
    return await api.client.post("/v1/apps/a/rollback", json={"version": 1})


AGAIN = [_with_source, _with_nothing, _with_settings, _back]


@pytest.mark.parametrize("again", AGAIN)
async def test_what_an_admin_deploys_again_stays_its_owners_and_says_who_did_it(
    api: Running, again: Callable[[Running], Awaitable[httpx.Response]]
) -> None:
    await api.deploy("a", headers=await api.key("alice"))
    assert (await again(api)).json()["version"] == 2
    assert (await api.store.get("a")).owner == "alice"
    assert [(await api.store.version("a", number)).created_by for number in (1, 2)] == ["alice", "admin"]


def _before_it_is_stored(
    api: Running, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Awaitable[object]]
) -> None:
    """Once, when the next version has been made from what was read and is about to be written."""
    store = api.store.deploy

    async def beside(new: NewVersion, **more: Any) -> Deployed:
        monkeypatch.setattr(api.store, "deploy", store)
        await happens()
        return await store(new, **more)

    monkeypatch.setattr(api.store, "deploy", beside)


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("purged", [True, False])
async def test_a_new_version_beside_a_delete_does_not_bring_the_app_back(
    api: Running, monkeypatch: pytest.MonkeyPatch, again: Callable[[Running], Awaitable[httpx.Response]], purged: bool
) -> None:
    api.controller.purge = purged
    await api.deploy("a")
    _before_it_is_stored(api, monkeypatch, lambda: api.client.delete("/v1/apps/a"))
    if purged:
        refused(await again(api), 404, "NotFound")
        with pytest.raises(NotFound):
            await api.store.get("a")
    else:
        refused(await again(api), 409, "BeingDeleted")
        assert (await api.store.versions("a"))[1] == 1
    assert f"{hashlib.sha256(PYTHON).hexdigest()}.tar.gz" not in api.sources()


@pytest.mark.parametrize("again", AGAIN)
async def test_a_new_version_beside_another_deploy_is_the_one_after_it(
    api: Running, monkeypatch: pytest.MonkeyPatch, again: Callable[[Running], Awaitable[httpx.Response]]
) -> None:
    await api.deploy("a")
    _before_it_is_stored(api, monkeypatch, lambda: api.deploy("a"))
    assert (await again(api)).json()["version"] == 3


async def test_a_deploy_by_name_beside_a_delete_makes_a_new_app_with_nothing_of_the_old_one(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.deploy("a", env=[{"name": "A", "value": "1"}])
    _before_it_is_stored(api, monkeypatch, lambda: api.client.delete("/v1/apps/a"))
    body = (await api.deploy("a")).json()
    assert (body["version"], body["created"]) == (1, True)
    assert dict((await api.store.version("a", 1)).env) == {}


async def test_rollback_is_a_new_version_with_everything_of_the_old_one(api: Running) -> None:
    await api.deploy("a", PYTHON, env=[{"name": "A", "value": "1"}])
    await api.deploy("a", SITE, env=[])
    answer = await api.client.post("/v1/apps/a/rollback", json={"version": 1})
    assert answer.status_code == 200
    assert answer.json()["version"] == 3
    listed = (await api.client.get("/v1/apps/a/versions")).json()
    assert [item["rolled_back_from"] for item in listed["items"]] == [1, None, None]
    one, three = await api.store.version("a", 1), await api.store.version("a", 3)
    assert (three.source_digest, three.runtime, three.env) == (one.source_digest, one.runtime, one.env)


async def test_rollback_says_what_is_wrong(api: Running) -> None:
    await api.deploy("a")
    refused(await api.client.post("/v1/apps/a/rollback", json={"version": 9}), 404, "NotFound")
    refused(await api.client.post("/v1/apps/a/rollback", json={"version": 0}), 422, "InvalidRequest")
    refused(await api.client.post("/v1/apps/a/rollback", json={}), 422, "InvalidRequest")
    refused(await api.client.post("/v1/apps/b/rollback", json={"version": 1}), 404, "NotFound")
    first = (await api.store.version("a", 1)).source_digest
    await api.deploy("a", PYTHON)
    (api.layout.sources / f"{first}.tar.gz").unlink()
    refused(await api.client.post("/v1/apps/a/rollback", json={"version": 1}), 409, "SourceMissing")
    assert (await api.store.get("a")).version == 2


async def test_an_idempotency_key_makes_a_retry_one_deploy(api: Running) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = (await api.deploy("a", headers=key)).json()
    again = (await api.deploy("a", headers=key)).json()
    assert (again["version"], again["created"], again["url"]) == (first["version"], first["created"], first["url"])
    assert (await api.store.versions("a"))[1] == 1
    refused(await api.deploy("a", PYTHON, headers=key), 422, "IdempotencyMismatch")
    refused(await api.deploy("a", env=[{"name": "A", "value": "1"}], headers=key), 422, "IdempotencyMismatch")
    refused(await api.client.post("/v1/apps/a/redeploy", headers=key), 422, "IdempotencyMismatch")
    refused(await api.deploy("a", headers={"Idempotency-Key": "x" * 300}), 400, "MalformedRequest")
    assert (await api.store.versions("a"))[1] == 1


async def test_the_controller_begins_while_the_version_is_synced_and_the_answer_waits_for_both(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, go_on = api.store.sync, asyncio.Event()

    async def slow() -> None:
        await go_on.wait()
        await real()

    monkeypatch.setattr(api.store, "sync", slow)
    key = {"Idempotency-Key": "k"}
    deploying = asyncio.create_task(api.deploy("a", headers=key))
    while not any(op == "settle" for op, _ in api.controller.calls):
        await asyncio.sleep(0.001)
    while not (await api.store.get("a")).settled:
        await asyncio.sleep(0.001)
    again = asyncio.create_task(api.deploy("a", headers=key))
    await asyncio.sleep(0.05)
    assert not deploying.done()
    assert not again.done(), "a retry may not be told either"
    go_on.set()
    assert [(await one).status_code for one in (deploying, again)] == [200, 200]


async def test_a_version_that_the_disk_does_not_confirm_is_not_acknowledged(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("vibed.apps.sqlite.connections.os.fdatasync", broken)
        body = refused(await api.deploy("a"), 503, "StoreUnavailable")
    assert "did not confirm" in body["message"]
    assert body["details"]["retryable"]
    answer = await api.deploy("a")
    assert (answer.status_code, answer.json()["version"]) == (200, 2)


async def test_another_callers_idempotency_key_is_another_key(api: Running) -> None:
    alice, bob = await api.key("alice"), await api.key("bob")
    assert (await api.deploy("a", headers={**alice, "Idempotency-Key": "k"})).json()["app_id"] == "a"
    assert (await api.deploy("b", headers={**bob, "Idempotency-Key": "k"})).json()["app_id"] == "b"


async def test_two_requests_with_one_key_at_once_are_one_deploy(api: Running) -> None:
    api.controller.delay_s = 0.2
    answers = await asyncio.gather(*(api.deploy("a", headers={"Idempotency-Key": "k"}) for _ in range(6)))
    assert {answer.json()["version"] for answer in answers} == {1}
    assert (await api.store.versions("a"))[1] == 1


async def test_deploys_of_one_app_at_once_all_become_versions(api: Running) -> None:
    await api.deploy("a", env=[{"name": "KEPT", "value": "1"}])
    answers = await asyncio.gather(*(api.deploy("a", archive({"index.html": str(n)})) for n in range(6)))
    assert sorted(answer.json()["version"] for answer in answers) == [2, 3, 4, 5, 6, 7]
    for number in range(2, 8):
        assert dict((await api.store.version("a", number)).env) == {"KEPT": "1"}


async def test_first_deploys_of_one_name_at_once_make_one_app(api: Running) -> None:
    answers = await asyncio.gather(*(api.deploy("a", archive({"index.html": str(n)})) for n in range(4)))
    assert sorted(answer.json()["version"] for answer in answers) == [1, 2, 3, 4]
    assert [answer.json()["created"] for answer in answers].count(True) == 1


async def test_two_owners_at_once_make_one_app_of_one_of_them(api: Running) -> None:
    alice, bob = await api.key("alice"), await api.key("bob")
    answers = await asyncio.gather(
        api.deploy("a", SITE, headers=alice), api.deploy("a", PYTHON, headers=bob),
    )  # fmt: skip
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    digest = (await api.store.version("a", 1)).source_digest
    assert api.sources() == [f"{digest}.tar.gz"]


async def test_a_source_that_two_deploys_share_survives_the_refusal_of_one(api: Running) -> None:
    alice, bob = await api.key("alice"), await api.key("bob")
    answers = await asyncio.gather(*(api.deploy("a", headers=who) for who in (alice, bob, alice, bob)))
    assert 200 in {answer.status_code for answer in answers}
    digest = (await api.store.version("a", 1)).source_digest
    assert api.sources() == [f"{digest}.tar.gz"]


async def test_collecting_removes_what_no_version_names_and_nothing_else(api: Running) -> None:
    await api.deploy("a")
    kept = api.sources()
    (api.layout.sources / f"{'0' * 64}.tar.gz").write_bytes(b"left by a crash")
    assert await api.app.state.context.deployments.intake.collect(api.store) == 1
    assert api.sources() == kept


async def test_a_deploy_of_an_app_that_is_still_being_deleted_says_to_wait(api: Running) -> None:
    api.controller.purge = False
    await api.deploy("a")
    await api.client.delete("/v1/apps/a")
    body = refused(await api.deploy("a"), 409, "BeingDeleted")
    assert body["details"]["retryable"] is True


async def test_the_answer_comes_in_time_however_slow_the_controller(tmp_path: Path) -> None:
    async with running(tmp_path / "home", tmp_path / "run", deploy_wait_s=0.2) as api:
        api.controller.delay_s = 30
        async with asyncio.timeout(5):
            assert (await api.deploy("a")).status_code == 202


async def test_the_answer_comes_in_time_while_the_controller_stands_still(tmp_path: Path) -> None:
    async with running(tmp_path / "home", tmp_path / "run", deploy_wait_s=0.3) as api:

        async def still(app_id: str, version: int, timeout_s: float) -> dict[str, Any]:
            await asyncio.sleep(60)
            raise AssertionError

        api.controller.settle = still  # type: ignore[method-assign]
        async with asyncio.timeout(4.5):  # of the link's own five seconds and more
            body = (await api.deploy("a")).json()
        assert (body["phase"], body["reason"], body["settled"]) == ("Pending", "ControllerRestarting", False)


async def test_a_curl_from_a_page_of_an_app_is_refused(api: Running) -> None:
    answer = await api.deploy("a", headers={"Origin": "http://evil.localhost:18080"})
    refused(answer, 403, "CrossOrigin")
    assert (await api.deploy("a", headers={"Origin": ORIGIN})).status_code == 200


async def test_a_deploy_whose_caller_leaves_while_it_is_stored_keeps_its_source(api: Running) -> None:
    """An agent that has waited enough closes its call of a tool, which cancels it; the store finishes what it began."""
    context = api.app.state.context
    tools = InProcess(context, Caller(ADMIN, True, "admin", "admin key", ""))
    busy = sqlite3.connect(api.layout.database, isolation_level=None)
    busy.execute("BEGIN IMMEDIATE")
    calling = asyncio.create_task(tools.deploy({"name": "todo"}, SITE))
    await asyncio.sleep(0.5)
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    await context.deployments.intake.collect(api.store)
    busy.close()
    async with asyncio.timeout(20):
        while (await api.store.list())[1] == 0:
            await asyncio.sleep(0.02)
    version = await api.store.version("todo", 1)
    assert (await context.deployments.intake.path(version.source_digest)).is_file()
