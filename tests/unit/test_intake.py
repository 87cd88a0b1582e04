"""Sources that no version names go; those of deploys that are on their way, or were just answered, stay."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from api_harness import archive

from vibed.api import intake
from vibed.api.intake import Intake
from vibed.api.metadata import Override
from vibed.apps.app import Runtime
from vibed.apps.store import AppStore
from vibed.sources.errors import CorruptArchive, StorageFull, TooLarge
from vibed.sources.limits import DEFAULT_LIMITS
from vibed.sources.reader import read_table
from vibed.sources.receiving import StagedSource
from vibed.sources.store import ServedStore
from vibed.sources.table import ArchiveTable

Meanwhile = Callable[[], Awaitable[None]]


class Names:
    """The digests that versions name; `meanwhile` happens between the look and the answer, as it may with a store."""

    def __init__(self) -> None:
        self.named: set[str] = set()
        self.meanwhile: Meanwhile | None = None

    async def digests_in_use(self) -> frozenset[str]:
        seen = frozenset(self.named)
        await self._pass()
        return seen

    async def names_source(self, digest: str) -> bool:
        seen = digest in self.named
        await self._pass()
        return seen

    async def _pass(self) -> None:
        if self.meanwhile is not None:
            happening, self.meanwhile = self.meanwhile, None
            await happening()


class World:
    def __init__(self, root: Path) -> None:
        self.sources = ServedStore(root, key=b"k" * 32)
        self.sources.prepare()
        self.names = Names()
        self.store = cast(AppStore, self.names)
        self.intake = Intake(self.sources, _never, DEFAULT_LIMITS)

    async def staged(self, content: bytes) -> StagedSource:
        async def chunks() -> AsyncIterator[bytes]:
            yield content

        return await self.intake.receive(chunks(), "alice")

    async def deployed(self, content: bytes) -> None:
        """A deploy from its first byte to its answer."""
        staged = await self.staged(content)
        with self.intake.holding(staged.digest):
            await self.intake.keep(staged, known=False)
            self.names.named.add(staged.digest)
        await self.intake.discard(staged)

    def kept(self, content: bytes) -> bool:
        return self.sources.path(hashlib.sha256(content).hexdigest()).exists()


def _never(*_: Any) -> Runtime:
    raise AssertionError("nothing is classified here")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "sources")


async def test_what_no_version_names_is_collected(world: World) -> None:
    await world.deployed(b"named")
    staged = await world.staged(b"refused")
    await world.intake.keep(staged, known=False)
    assert await world.intake.collect(world.store) == 1
    assert (world.kept(b"named"), world.kept(b"refused")) == (True, False)


async def test_a_deploy_that_is_answered_while_sources_are_collected_keeps_its_own(world: World) -> None:
    world.names.meanwhile = lambda: world.deployed(b"new")
    assert await world.intake.collect(world.store) == 0
    assert world.kept(b"new")


async def test_a_deploy_that_had_kept_its_source_before_and_is_answered_meanwhile_keeps_it(world: World) -> None:
    staged = await world.staged(b"kept before")
    go_on = asyncio.Event()

    async def deploy() -> None:
        with world.intake.holding(staged.digest):
            await world.intake.keep(staged, known=False)
            await go_on.wait()
            world.names.named.add(staged.digest)

    deploying = asyncio.create_task(deploy())
    while not world.kept(b"kept before"):
        await asyncio.sleep(0.001)

    async def answered() -> None:
        go_on.set()
        await deploying

    world.names.meanwhile = answered
    assert await world.intake.collect(world.store) == 0
    assert world.kept(b"kept before")


async def test_a_refused_source_is_dropped_unless_a_version_names_it(world: World) -> None:
    await world.deployed(b"named")
    for content in (b"named", b"refused"):
        staged = await world.staged(content)
        await world.intake.keep(staged, known=False)
        await world.intake.drop(staged.digest, world.store)
    assert (world.kept(b"named"), world.kept(b"refused")) == (True, False)


async def test_what_one_deploy_is_refused_with_stays_for_another_that_holds_it_or_was_just_answered(
    world: World,
) -> None:
    staged = await world.staged(b"same")
    await world.intake.keep(staged, known=False)
    with world.intake.holding(staged.digest):
        await world.intake.drop(staged.digest, world.store)
        assert world.kept(b"same")
    world.names.meanwhile = lambda: world.deployed(b"same")
    await world.intake.drop(staged.digest, world.store)
    assert world.kept(b"same")


@pytest.mark.parametrize(
    ("files", "at_once"),
    [({"index.html": "<h1>hello</h1>"}, True), ({"index.html": "a" * intake.AT_ONCE}, False)],
    ids=["small", "large"],
)
async def test_a_small_archive_is_read_without_asking_a_thread(
    tmp_path: Path, files: dict[str, str], at_once: bool
) -> None:
    threads: list[threading.Thread] = []

    def decide(table: ArchiveTable, override: Override) -> Runtime:
        threads.append(threading.current_thread())
        return Runtime("fast", "static-nginx", "static", "", "a page")

    path = tmp_path / "source"
    path.write_bytes(archive(files))
    await Intake(ServedStore(tmp_path, key=b"k" * 32), decide, DEFAULT_LIMITS).decide(path, Override())
    assert [thread is threading.main_thread() for thread in threads] == [at_once]


async def test_an_archive_that_claims_to_be_small_and_is_not_is_refused_for_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "source"
    content = bytearray(archive({"index.html": "a" * 2_000_000}))
    content[-4:] = (1).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(CorruptArchive):
        await Intake(ServedStore(tmp_path, key=b"k" * 32), _never, DEFAULT_LIMITS).decide(path, Override())


async def test_a_changed_source_is_put_together_where_sources_arrive_and_ends_at_what_they_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "too small"))  # as one's temporary folder may be
    world = World(tmp_path / "sources")
    await world.deployed(base := archive({"index.html": os.urandom(150_000), "b.txt": "b"}))
    digest = hashlib.sha256(base).hexdigest()
    staged = await world.intake.overlay(digest, "", None, ["b.txt"])
    assert [entry.path for entry in read_table(staged.path, DEFAULT_LIMITS).entries] == ["index.html"]
    await world.intake.discard(staged)
    world.intake.limits = replace(DEFAULT_LIMITS, compressed=200_000)
    patch = await world.staged(archive({"c.png": os.urandom(100_000)}))
    with pytest.raises(TooLarge, match="larger than"):
        await world.intake.overlay(digest, "", patch, [])
    await world.intake.discard(patch)
    assert not list(world.sources.incoming.iterdir())


async def test_a_disk_that_is_full_when_a_changed_source_is_put_together_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "sources")
    await world.deployed(base := archive({"index.html": "a", "b.txt": "b"}))

    class Full(io.BytesIO):
        """Nothing fits: what is written is refused, and what lies in a buffer when it is closed."""

        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "no space left on device")

        def close(self) -> None:
            raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda **_: Full())
    with pytest.raises(StorageFull):
        await world.intake.overlay(hashlib.sha256(base).hexdigest(), "", None, ["b.txt"])
