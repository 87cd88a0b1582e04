"""The served store: nothing half kept, nothing trusted for its name alone, URLs that cannot be guessed."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from vibed.apps.errors import VibedError
from vibed.sources.errors import NotGzip, SignatureRefused, SourceMissing, StorageFailed, StorageFull, TooLarge
from vibed.sources.limits import ArchiveLimits
from vibed.sources.store import ServedStore, SourceStore

KEY = bytes(range(32))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "sources"


@pytest.fixture
def store(root: Path) -> ServedStore:
    made = ServedStore(root, key=KEY, base_url="http://localhost:18080/")
    made.prepare()
    return made


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def kept(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


async def test_a_source_is_hashed_on_its_way_and_found_by_its_digest(store: ServedStore, root: Path) -> None:
    port: SourceStore = store
    staged = await port.receive(chunks(b"hello ", b"world"))
    assert staged.digest == hashlib.sha256(b"hello world").hexdigest()
    assert staged.size == 11
    assert await port.commit(staged) == staged.digest
    assert staged.path.read_bytes() == b"hello world", "it can be read until it is discarded"
    await port.discard(staged)
    assert (await port.open_path(staged.digest)).read_bytes() == b"hello world"
    assert kept(root) == [f"{staged.digest}.tar.gz"]
    assert await store.digests() == {staged.digest}


async def test_a_large_source_arrives_whole(store: ServedStore) -> None:
    parts = [os.urandom(70_000) for _ in range(60)]
    staged = await store.receive(chunks(*parts))
    await store.commit(staged)
    assert store.path(staged.digest).read_bytes() == b"".join(parts)
    assert staged.digest == hashlib.sha256(b"".join(parts)).hexdigest()


async def test_too_much_is_refused_while_it_arrives(store: ServedStore, root: Path) -> None:
    seen = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal seen
        while True:
            seen += 1
            yield bytes(100)

    with pytest.raises(TooLarge):
        await store.receive(endless(), ArchiveLimits(compressed=1000))
    assert seen == 11
    assert kept(root) == []


async def test_an_empty_upload_is_refused(store: ServedStore, root: Path) -> None:
    with pytest.raises(NotGzip):
        await store.receive(chunks())
    assert kept(root) == []


async def test_an_aborted_upload_leaves_nothing(store: ServedStore, root: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(3_000_000)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.receive(broken())
    assert kept(root) == []


async def test_a_cancelled_upload_leaves_nothing(store: ServedStore, root: Path) -> None:
    started = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield bytes(3_000_000)
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.receive(slow()))
    await started.wait()
    assert kept(root) != []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kept(root) == []


async def test_a_source_that_is_not_committed_can_be_discarded(store: ServedStore, root: Path) -> None:
    staged = await store.receive(chunks(b"x"))
    await store.discard(staged)
    await store.discard(staged)
    assert kept(root) == []


async def test_what_was_half_received_is_swept_at_the_start(store: ServedStore, root: Path) -> None:
    staged = await store.receive(chunks(b"kept"))
    await store.commit(staged)
    await store.receive(chunks(b"left"))
    assert ServedStore(root, key=KEY).prepare() == 2
    assert kept(root) == [f"{staged.digest}.tar.gz"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_says_so_and_keeps_nothing(
    store: ServedStore, root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("vibed.sources.store.os.write", full)
    with pytest.raises(StorageFull) as caught:
        await store.receive(chunks(b"x"))
    assert caught.value.http_status == 507
    assert caught.value.may_retry
    assert kept(root) == []


async def test_a_disk_that_cannot_sync_acknowledges_nothing(
    store: ServedStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = await store.receive(chunks(b"x"))

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch, pytest.raises(StorageFailed):
        patch.setattr("vibed.sources.store.os.fsync", broken)
        await store.commit(staged)
    await store.discard(staged)
    assert kept(root) == []


async def test_a_failed_sync_of_the_same_source_again_does_not_remove_the_first(
    store: ServedStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await store.receive(chunks(b"x"))
    await store.commit(first)
    again = await store.receive(chunks(b"x"))

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch, pytest.raises(StorageFailed):
        patch.setattr("vibed.sources.store.os.fsync", broken)
        await store.commit(again)
    assert store.path(first.digest).read_bytes() == b"x"


async def test_file_and_directory_are_synced_after_the_name_is_there(
    store: ServedStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = await store.receive(chunks(b"x"))
    synced = []
    real = os.fsync

    def noting(fd: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{fd}").readlink()), store.path(staged.digest).exists()))
        real(fd)

    monkeypatch.setattr("vibed.sources.store.os.fsync", noting)
    await store.commit(staged)
    assert synced == [(str(store.path(staged.digest)), True), (str(root), True)]


async def test_the_same_source_twice_is_one(store: ServedStore, root: Path) -> None:
    for known in (False, False, True):
        staged = await store.receive(chunks(b"same"))
        await store.commit(staged, known=known)
        await store.discard(staged)
    assert kept(root) == [f"{staged.digest}.tar.gz"]


@pytest.mark.parametrize(
    ("left", "known"), [(b"", False), (b"evil", False), (b"longer", False), (b"", True), (b"longer", True)]
)
async def test_a_name_that_is_there_is_not_trusted(store: ServedStore, left: bytes, known: bool) -> None:
    staged = await store.receive(chunks(b"good"))
    store.path(staged.digest).write_bytes(left)
    await store.commit(staged, known=known)
    assert store.path(staged.digest).read_bytes() == b"good"


async def test_many_at_once_do_not_disturb_each_other(store: ServedStore, root: Path) -> None:
    async def one(number: int) -> str:
        staged = await store.receive(chunks(b"%d" % (number % 5)))
        digest = await store.commit(staged)
        await store.discard(staged)
        return digest

    digests = await asyncio.gather(*[one(number) for number in range(20)])
    assert len(kept(root)) == len(set(digests)) == 5
    assert all(store.path(d).read_bytes() == b"%d" % (n % 5) for n, d in enumerate(digests))


async def test_deleting_is_idempotent(store: ServedStore) -> None:
    staged = await store.receive(chunks(b"x"))
    await store.commit(staged)
    await store.delete(staged.digest)
    await store.delete(staged.digest)
    with pytest.raises(SourceMissing):
        await store.open_path(staged.digest)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n"])
def test_only_a_digest_names_a_source(store: ServedStore, digest: str) -> None:
    with pytest.raises(SourceMissing):
        store.path(digest)


async def test_a_signed_url_opens_one_source_for_a_while(
    store: ServedStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = await store.receive(chunks(b"x"))
    digest = await store.commit(staged)
    url = urlsplit(await store.signed_url(digest, 60))
    query = parse_qs(url.query)
    expires, signature = query["expires"][0], query["signature"][0]
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"http://localhost:18080/sources/{digest}"
    assert store.verify(digest, expires, signature).read_bytes() == b"x"
    for wrong in (
        ("0" * 64, expires, signature),
        (digest, str(int(expires) + 1), signature),
        (digest, expires, "0" * 64),
        (digest, expires, "é"),
        (digest, "", signature),
        (digest, "-1", signature),
        (digest, "٣", signature),
    ):
        with pytest.raises(SignatureRefused):
            store.verify(*wrong)
    with pytest.raises(SignatureRefused):
        ServedStore(root, key=bytes(32)).verify(digest, expires, signature)
    later = time.time() + 61
    monkeypatch.setattr("vibed.sources.store.time.time", lambda: later)
    with pytest.raises(SignatureRefused, match="expired"):
        store.verify(digest, expires, signature)


def test_a_short_key_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ServedStore(root, key=b"secret")


def test_errors_are_vibed_errors() -> None:
    assert issubclass(StorageFull, VibedError)
    assert issubclass(TooLarge, VibedError)
