"""What an owner's apps may take on the disk, over HTTP."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from api_harness import Running, archive, refused, running


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "home", tmp_path / "run", owner_storage_mb=10) as made:
        yield made


def expands(mark: str, megabytes: int) -> bytes:
    """A small archive of a large site."""
    return archive({"index.html": mark, "data.csv": b"0,0,0,0\n" * (megabytes * 125_000)})


def random_site(kib: int) -> bytes:
    return archive({"index.html": "x", "photo.jpg": os.urandom(kib << 10)})


async def test_small_archives_that_expand_to_much_fill_no_disk(api: Running) -> None:
    for name in ("one", "two"):
        assert (await api.deploy(name, expands(name, 4))).status_code == 200
    body = refused(await api.deploy("three", expands("three", 4)), 507, "StorageLimitReached")
    assert "'three' would take 4 MB" in body["message"] and "one 4 MB" in body["message"]
    assert body["details"]["retryable"] is False
    told = {message["app_id"] for op, message in api.controller.calls if op == "prepare"}
    assert told == {"one", "two"}, "the controller was not asked to unpack it ahead"
    assert len(api.sources()) == 2, "its source was not kept either"
    assert (await api.client.delete("/v1/apps/one")).status_code < 300
    assert (await api.deploy("three", expands("three", 4))).status_code == 200


async def test_what_an_app_takes_is_told_with_it(api: Running) -> None:
    await api.deploy("one", expands("one", 4))
    await api.deploy("small", archive({"index.html": "x"}))
    one = (await api.client.get("/v1/apps/one")).json()
    listed = {app["app_id"]: app["storage_bytes"] for app in (await api.client.get("/v1/apps")).json()["items"]}
    assert 4_000_000 < one["storage_bytes"] < 4_100_000
    assert listed["one"] == one["storage_bytes"]
    assert 4_096 < listed["small"] < 5_000, "a file takes a block at least, and there is its source"


async def test_many_small_files_take_a_block_each(api: Running) -> None:
    answer = await api.deploy("many", archive({"index.html": "x", **{f"{n}.txt": "y" for n in range(3_000)}}))
    refused(answer, 507, "StorageLimitReached")


async def test_versions_that_are_not_needed_lose_their_sources_before_anybody_is_refused(api: Running) -> None:
    for _ in range(12):
        assert (await api.deploy("photos", random_site(1_000))).status_code == 200
    versions = (await api.client.get("/v1/apps/photos/versions")).json()["items"]
    kept = [version["version"] for version in versions if version["source_kept"]]
    assert kept == list(range(12, 12 - len(kept), -1)) and 5 < len(kept) < 12
    assert len(api.sources()) == len(kept), "they are gone from the disk at once"
    body = refused(await api.client.post("/v1/apps/photos/rollback", json={"version": 1}), 409, "SourceMissing")
    assert "version 1" in body["message"] and "not kept any more" in body["message"]
    back = await api.client.post("/v1/apps/photos/rollback", json={"version": kept[-2]})
    assert back.status_code == 200


async def test_changing_an_app_that_takes_more_than_half_is_possible(api: Running) -> None:
    for word in ("first", "second"):
        assert (await api.deploy("one", expands(word, 7))).status_code == 200
    change = await api.client.patch("/v1/apps/one", json={"env": [{"name": "A", "value": "b"}]})
    assert change.status_code in (200, 202)


async def test_each_owner_has_a_share_of_their_own(api: Running) -> None:
    assert (await api.deploy("one", expands("one", 8))).status_code == 200
    theirs = await api.deploy("two", expands("two", 8), headers=await api.key("bob"))
    assert theirs.status_code == 200
