"""How apps and keys come from another vibeD (`vibed.apps.restoring`) into every store that takes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from tests.contract.app_stores import ClusterPlace, Place, SqlitePlace
from tests.contract.test_app_store import RUNTIME, new, source
from vibed.apps.app import Key, Phase, Resources, Version
from vibed.apps.errors import AlreadyExists, Conflict, NameTaken
from vibed.apps.restoring import KeptKey, Restored, Restoring
from vibed.apps.store import AppStore


class Store(AppStore, Restoring, Protocol):
    """Both."""


@pytest.fixture(params=["sqlite", "cluster"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return SqlitePlace(tmp_path / "vibed.db")
    namespace = request.getfixturevalue("apps_namespace")
    return ClusterPlace(namespace.cluster.config, namespace.name, cached=True)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    async with place.opened() as made:
        assert isinstance(made, Restoring)
        yield made  # type: ignore[misc]


def version(number: int, **more: object) -> Version:
    """As another vibeD had it."""
    made = Version(
        "todo", number, source(f"s{number}"), 1000 + number, RUNTIME, {"WORD": f"v{number}", "EMPTY": ""},
        Resources(0.5, 256), 1_700_000_000.5 + number, "bob", None, Phase.READY, "Running", "it runs",
        {"claim": 1.5, "start": 20.25}, True,
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


OLD = Restored(
    "todo",
    "alice",
    1_699_999_999.25,
    [
        version(2, phase=Phase.FAILED, reason="Crashed", message="no", source_kept=False),
        version(3),
        version(7, rolled_back_from=3, source_digest=source("s3"), env={}, resources=Resources()),
    ],
)


async def test_an_app_comes_with_all_that_it_was(store: Store) -> None:
    app = await store.restore(OLD)
    assert (app.app_id, app.owner, app.version, app.created_at) == ("todo", "alice", 7, OLD.created_at)
    assert app.last_deployed_at == OLD.versions[-1].created_at
    found, total = await store.versions("todo")
    assert total == 3
    assert list(found) == list(OLD.versions)[::-1]
    assert (await store.wanted("todo")) == (app, OLD.versions[-1])


async def test_the_controller_finds_it_as_one_that_was_just_deployed(store: Store) -> None:
    await store.restore(OLD)
    (app,) = await store.unsettled()
    assert (app.app_id, app.status.serving_version, app.settled) == ("todo", None, False)
    assert (await store.events("todo"))[-1].reason == "Restored"
    assert await store.next_run("todo") == 1


async def test_the_next_deploy_has_the_next_number(store: Store) -> None:
    await store.restore(OLD)
    assert (await store.deploy(new())).version.number == 8


async def test_its_sources_are_kept_and_count_for_its_owner(store: Store) -> None:
    await store.restore(OLD)
    assert await store.digests_in_use() == {source("s3")}
    assert sum(kept.source for kept in await store.storage("alice")) == 1003 + 1007


async def test_a_name_that_is_taken_stays_as_it_is(store: Store) -> None:
    await store.deploy(new())
    for app, refusal in ((OLD, AlreadyExists), (replace(OLD, owner="bob"), NameTaken)):
        with pytest.raises(refusal) as caught:
            await store.restore(app)
        assert refusal is AlreadyExists or "alice" not in str(caught.value.body())
    assert (await store.versions("todo"))[1] == 1
    await store.request_delete("todo")
    with pytest.raises(Conflict) as deleting:
        await store.restore(OLD)
    assert deleting.value.error_code == "BeingDeleted"
    await store.purge("todo")
    assert (await store.restore(OLD)).version == 7


async def test_what_was_restored_is_there_for_every_process_and_stays(place: Place) -> None:
    async with place.opened() as first:
        await first.restore(OLD)  # type: ignore[attr-defined]
    async with place.opened() as second:
        assert (await second.get("todo")).version == 7


async def test_keys_come_with_what_is_known_of_their_secrets_once(store: Store) -> None:
    there = await store.create_key("alice", admin=False, label="laptop", secret_sha256="a" * 64)
    moved = KeptKey(Key("key-0123456789ab", "bob", True, "ci", 1_700_000_000.5, 1_700_000_100.0), "b" * 64)
    assert await store.restore_key(moved)
    assert not await store.restore_key(moved)
    assert not await store.restore_key(replace(moved, key=replace(moved.key, key_id="key-ba9876543210"))), "its secret"
    assert not await store.restore_key(KeptKey(replace(moved.key, key_id=there.key_id), "c" * 64)), "its id"
    assert await store.find_key("b" * 64) == moved.key
    assert await store.find_key("a" * 64) == there
    assert sorted(await store.kept_keys(), key=lambda kept: kept.secret_sha256) == [KeptKey(there, "a" * 64), moved]
