"""What every source store promises, proven for files on this machine and for a real S3 server; then what only the
latter can suffer: servers that die, lie, stall, or do not know us.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests import prepare
from tests.contract.s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server
from vibed.apps.errors import VibedError
from vibed.sources import room
from vibed.sources.cache import SourceCache
from vibed.sources.errors import (
    BucketMissing,
    NotGzip,
    SourceDamaged,
    SourceMissing,
    SourceStoreFailed,
    SourceStoreRefused,
    SourceStoreSlow,
    SourceStoreUnreachable,
    StorageFull,
    TooLarge,
)
from vibed.sources.limits import ArchiveLimits
from vibed.sources.receiving import Incoming
from vibed.sources.s3 import S3Settings, S3Store
from vibed.sources.store import ServedStore, SourceStore

KEY = bytes(range(32))
GRANTED = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}


@pytest.fixture(scope="module")
def shared_server() -> Iterator[S3Server]:
    with S3Server(prepare.home()) as server:
        yield server


@pytest.fixture
def server(shared_server: S3Server) -> Iterator[S3Server]:
    """With an empty bucket."""
    yield shared_server
    for path in (shared_server.root / "data" / shared_server.bucket).iterdir():
        shutil.rmtree(path)


def s3(server: S3Server, folder: Path, **changed: object) -> S3Store:
    """A store over that server, as one machine would have it below `folder`."""
    settings = {"bucket": server.bucket, "endpoint": server.endpoint, "region": REGION, "prefix": "team/"}
    settings |= {name: changed.pop(name) for name in tuple(changed) if name in ("bucket", "endpoint", "prefix")}
    given = {"key": KEY, "grace_s": 0, "credentials": GRANTED, "deadline_s": 20.0}
    given |= {"cache": SourceCache(folder / "cache"), **changed}
    store = S3Store(S3Settings(**settings), incoming=folder / "cache" / "in", **given)  # type: ignore[arg-type]
    store.prepare()
    return store


@pytest.fixture(params=["served", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SourceStore:
    if request.param == "s3":
        return s3(request.getfixturevalue("server"), tmp_path)
    made = ServedStore(tmp_path / "sources", key=KEY, base_url="http://localhost:18080/")
    made.prepare()
    return made


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def kept(store: SourceStore, *parts: bytes) -> str:
    staged = await store.receive(chunks(*parts))
    digest = await store.commit(staged)
    await store.discard(staged)
    return digest


# every store


async def test_a_source_is_hashed_on_its_way_and_found_by_its_digest(store: SourceStore) -> None:
    staged = await store.receive(chunks(b"hello ", b"world"))
    assert (staged.digest, staged.size) == (hashlib.sha256(b"hello world").hexdigest(), 11)
    assert await store.commit(staged) == staged.digest
    assert staged.path.read_bytes() == b"hello world", "it can be read until it is discarded"
    await store.discard(staged)
    assert not staged.path.exists()
    assert (await store.open_path(staged.digest)).read_bytes() == b"hello world"
    assert await store.digests() == {staged.digest}


async def test_a_large_source_arrives_whole(store: SourceStore) -> None:
    parts = [os.urandom(1 << 20) for _ in range(20)]
    digest = await kept(store, *parts)
    assert digest == hashlib.sha256(b"".join(parts)).hexdigest()
    assert (await store.open_path(digest)).read_bytes() == b"".join(parts)


async def test_a_source_that_is_only_received_is_not_kept(store: SourceStore) -> None:
    staged = await store.receive(chunks(b"x"))
    await store.discard(staged)
    await store.discard(staged)
    assert await store.digests() == frozenset()
    with pytest.raises(SourceMissing):
        await store.open_path(staged.digest)


async def test_too_much_nothing_and_what_breaks_off_is_refused_and_leaves_nothing(
    store: SourceStore, tmp_path: Path
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(3_000_000)
        raise ConnectionResetError

    with pytest.raises(TooLarge):
        await store.receive(chunks(bytes(600), bytes(600)), ArchiveLimits(compressed=1000))
    with pytest.raises(NotGzip):
        await store.receive(chunks())
    with pytest.raises(ConnectionResetError):
        await store.receive(broken())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_what_was_half_received_is_swept_at_the_start(store: SourceStore) -> None:
    digest = await kept(store, b"kept")
    await store.receive(chunks(b"left"))
    assert store.prepare() == 1
    assert (await store.open_path(digest)).read_bytes() == b"kept"


async def test_the_same_source_twice_is_one(store: SourceStore) -> None:
    for known in (False, False, True):
        staged = await store.receive(chunks(b"same"))
        await store.commit(staged, known=known)
        await store.discard(staged)
    assert await store.digests() == {staged.digest}


async def test_many_at_once_do_not_disturb_each_other(store: SourceStore) -> None:
    digests = await asyncio.gather(*[kept(store, b"%d" % (number % 5)) for number in range(20)])
    assert await store.digests() == frozenset(digests)
    assert len(set(digests)) == 5
    for number, digest in enumerate(digests):
        assert (await store.open_path(digest)).read_bytes() == b"%d" % (number % 5)


async def test_deleting_is_idempotent_and_leaves_the_others(store: SourceStore) -> None:
    gone, stays = await kept(store, b"gone"), await kept(store, b"stays")
    await store.delete(gone)
    await store.delete(gone)
    with pytest.raises(SourceMissing):
        await store.open_path(gone)
    assert await store.digests() == {stays}
    assert (await store.open_path(stays)).read_bytes() == b"stays"


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n"])
async def test_only_a_digest_names_a_source(store: SourceStore, digest: str) -> None:
    for work in (store.open_path(digest), store.signed_url(digest, 60), store.delete(digest)):
        with pytest.raises(SourceMissing):
            await work


async def test_a_disk_without_room_says_so(store: SourceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FLOOR", 1 << 60)
    with pytest.raises(StorageFull):
        store.check_room()
    with pytest.raises(StorageFull):
        await store.receive(chunks(b"x"))


# what another process, and the server, see


async def test_what_arrives_at_the_same_time_takes_no_more_than_its_room(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path / "incoming", most=5 << 20)
    incoming.prepare()
    held = asyncio.Event()

    async def slowly(size: int) -> AsyncIterator[bytes]:
        for _ in range(size):
            yield os.urandom(1 << 20)
        await held.wait()

    limits, waiting = ArchiveLimits(), []
    for _ in range(2):
        waiting.append(asyncio.create_task(incoming.receive(slowly(2), limits)))
    while sum(one.stat().st_size for one in incoming.folder.iterdir()) < 4 << 20:
        await asyncio.sleep(0.01)
    with pytest.raises(StorageFull, match="more than 5 MB of sources arrive at the same time") as refused:
        await incoming.receive(slowly(20), limits)
    assert refused.value.may_retry
    assert sum(one.stat().st_size for one in incoming.folder.iterdir()) == 4 << 20, "nothing of it is kept"
    held.set()
    for staged in await asyncio.gather(*waiting):
        staged.path.unlink()
    await incoming.receive(slowly(5), limits)


async def test_another_process_finds_it_by_the_digest_alone(server: S3Server, tmp_path: Path) -> None:
    digest = await kept(s3(server, tmp_path / "one"), b"from afar")
    assert (await s3(server, tmp_path / "two").open_path(digest)).read_bytes() == b"from afar"


async def test_who_knows_a_source_does_not_know_its_name(server: S3Server, tmp_path: Path) -> None:
    store = s3(server, tmp_path / "one")
    digest = await kept(store, b"guessed")
    (name,) = server.objects()
    assert name == store.key_of(digest)
    assert name.startswith(f"team/sources/{digest}-")
    assert len(name) == len(f"team/sources/{digest}-.tar.gz") + 32
    stranger = s3(server, tmp_path / "two", key=bytes(32))
    assert stranger.key_of(digest) != name
    with pytest.raises(SourceMissing):
        await stranger.open_path(digest)
    assert await stranger.digests() == frozenset(), "two vibeDs in one bucket leave each other's alone"


async def test_it_is_fetched_once_however_many_ask_and_then_not_again(server: S3Server, tmp_path: Path) -> None:
    digest = await kept(s3(server, tmp_path / "one"), os.urandom(300_000))
    async with between(server) as way:
        store = s3(server, tmp_path / "two", endpoint=way.endpoint)
        paths = await asyncio.gather(*[store.open_path(digest) for _ in range(20)])
        assert len(set(paths)) == 1
        assert await store.open_path(digest) == paths[0]
        assert way.asked("GET") == 1


async def test_who_stops_waiting_does_not_take_it_from_the_others(server: S3Server, tmp_path: Path) -> None:
    digest = await kept(s3(server, tmp_path / "one"), os.urandom(300_000))
    store = s3(server, tmp_path / "two")
    gives_up, waits = asyncio.ensure_future(store.open_path(digest)), asyncio.ensure_future(store.open_path(digest))
    await asyncio.sleep(0)
    gives_up.cancel()
    assert (await waits).exists()


async def test_what_was_written_lately_is_not_removed_by_another_process(server: S3Server, tmp_path: Path) -> None:
    mine, other = s3(server, tmp_path / "one"), s3(server, tmp_path / "two", grace_s=3600.0)
    digest = await kept(mine, b"about to be named")
    assert await other.digests() == frozenset()
    await other.delete(digest)
    assert len(server.objects()) == 1


async def test_a_signed_url_opens_one_source_for_a_while_and_nothing_else(server: S3Server, tmp_path: Path) -> None:
    store = s3(server, tmp_path)
    digest, other = await kept(store, b"mine"), await kept(store, b"theirs")
    url = await store.signed_url(digest, 60)
    async with httpx.AsyncClient() as client:
        answer = await client.get(url)
        assert (answer.status_code, answer.content) == (200, b"mine")
        wrong = {
            "tampered": url[:-1] + ("0" if url[-1] != "0" else "1"),
            "another object": url.replace(store.key_of(digest), store.key_of(other)),
            "longer": url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"),
            "anonymous": url.partition("?")[0],
        }
        for what, changed in wrong.items():
            assert changed != url
            assert (await client.get(changed)).status_code == 403, what
        for method in ("PUT", "DELETE"):
            assert (await client.request(method, url, content=b"")).status_code == 403, method
        short = await store.signed_url(digest, 1)
        for _ in range(200):
            if (answer := await client.get(short)).status_code != 200:
                break
            await asyncio.sleep(0.05)
        assert answer.status_code == 403, "expired"


async def test_it_is_tried_out_without_leaving_anything(server: S3Server, tmp_path: Path) -> None:
    await s3(server, tmp_path).prove()
    assert server.objects() == {}


# a store that lies, dies, stalls, or does not know us


class Way:
    """What lies between vibeD and the server: passes bytes on, and spoils them as a test asks."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.requests: list[bytes] = []
        self.spoil_sent = lambda data: data
        """What becomes of what vibeD sends, and of what it is answered."""
        self.spoil_answer = lambda data: data
        self.held = False
        """Whether nothing is passed on."""
        self.hold_after = 0
        """Bytes that vibeD sends over all connections after which nothing is passed on; 0: never."""
        self.sent = 0
        self.cut_after = 0
        """Bytes of answers of one connection after which it is broken off; 0: never."""
        self.port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, method: str) -> int:
        return sum(request.startswith(method.encode() + b" ") for request in self.requests)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.server.port)
        except OSError:
            writer.close()
            return
        moves = [self._move(reader, back, sent=True), self._move(there, writer, sent=False)]
        await asyncio.wait([asyncio.ensure_future(move) for move in moves], return_when=asyncio.FIRST_COMPLETED)
        writer.close()
        back.close()

    async def _move(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, sent: bool) -> None:
        passed = 0
        try:
            while data := await reader.read(65_536):
                while self.held:
                    await asyncio.sleep(0.01)
                if sent and data[:4] in (b"GET ", b"PUT ", b"HEAD", b"DELE", b"POST"):
                    self.requests.append(data.partition(b"\r\n")[0])
                data = self.spoil_sent(data) if sent else self.spoil_answer(data)
                self.sent += len(data) if sent else 0
                self.held |= 0 < self.hold_after < self.sent
                if not sent and self.cut_after and passed + len(data) > self.cut_after:
                    writer.write(data[: self.cut_after - passed])
                    await writer.drain()
                    return
                passed += len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            return


@asynccontextmanager
async def between(server: S3Server) -> AsyncIterator[Way]:
    way = Way(server)
    listener = await asyncio.start_server(way.carry, "127.0.0.1", 0)
    way.port = listener.sockets[0].getsockname()[1]
    try:
        yield way
    finally:
        way.held = False
        listener.close()


SECRET = b"the-content-of-a-source-that-is-easy-to-find"


async def test_what_changes_on_its_way_there_is_not_acknowledged_and_not_there(
    server: S3Server, tmp_path: Path
) -> None:
    async with between(server) as way:
        way.spoil_sent = lambda data: data.replace(SECRET, SECRET[::-1])
        store = s3(server, tmp_path, endpoint=way.endpoint, deadline_s=2.0)
        with pytest.raises(VibedError) as caught:
            await kept(store, SECRET)
        assert isinstance(caught.value, SourceStoreFailed | SourceStoreRefused)
        assert server.objects() == {}
        way.spoil_sent = lambda data: data
        assert (await s3(server, tmp_path / "b").open_path(await kept(store, SECRET))).read_bytes() == SECRET


async def test_what_changes_on_its_way_back_is_never_used(server: S3Server, tmp_path: Path) -> None:
    digest = await kept(s3(server, tmp_path / "one"), SECRET)
    async with between(server) as way:
        store = s3(server, tmp_path / "two", endpoint=way.endpoint)
        way.spoil_answer = lambda data: data.replace(SECRET, SECRET[::-1])
        with pytest.raises(SourceDamaged):
            await store.open_path(digest)
        assert [path for path in (tmp_path / "two").rglob("*") if path.is_file()] == []
        way.spoil_answer = lambda data: data
        assert (await store.open_path(digest)).read_bytes() == SECRET


@pytest.mark.parametrize("how", ["cut off", "changed", "longer", "empty"])
async def test_an_object_that_is_damaged_where_it_lies_is_refused_until_it_is_stored_again(
    server: S3Server, tmp_path: Path, how: str
) -> None:
    digest = await kept(s3(server, tmp_path / "one"), SECRET)
    (path,) = server.objects().values()
    path.write_bytes({"cut off": SECRET[:9], "changed": SECRET[::-1], "longer": SECRET * 2, "empty": b""}[how])
    store = s3(server, tmp_path / "two")
    with pytest.raises(SourceDamaged) as caught:
        await store.open_path(digest)
    assert caught.value.hint is not None
    staged = await store.receive(chunks(SECRET))
    await store.commit(staged, known=True)
    assert (await s3(server, tmp_path / "three").open_path(digest)).read_bytes() == SECRET


async def test_an_answer_that_breaks_off_is_asked_for_again(server: S3Server, tmp_path: Path) -> None:
    content = os.urandom(400_000)
    digest = await kept(s3(server, tmp_path / "one"), content)
    async with between(server) as way:
        store = s3(server, tmp_path / "two", endpoint=way.endpoint)
        way.cut_after = 100_000
        reading = asyncio.ensure_future(store.open_path(digest))
        while way.asked("GET") < 2:
            await asyncio.sleep(0.01)
        way.cut_after = 0
        assert (await reading).read_bytes() == content


@pytest.mark.parametrize("size", [300_000, 20 << 20])
async def test_a_server_that_dies_in_the_middle_of_a_put_and_comes_back_has_all_of_it(
    server: S3Server, tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    async with between(server) as way:
        store = s3(server, tmp_path, endpoint=way.endpoint)
        way.hold_after = size // 2
        putting = asyncio.ensure_future(kept(store, content))
        while not way.held:
            await asyncio.sleep(0.01)
        server.kill()
        assert server.objects() == {}, "there is no half of it"
        assert not putting.done(), "nothing is acknowledged before it is there"
        way.hold_after, way.held = 0, False
        await asyncio.to_thread(server.start)
        digest = await putting
    assert (await s3(server, tmp_path / "b").open_path(digest)).read_bytes() == content


async def test_a_server_that_stays_away_is_told_and_nothing_is_acknowledged(server: S3Server, tmp_path: Path) -> None:
    store = s3(server, tmp_path, deadline_s=1.0)
    server.kill()
    try:
        with pytest.raises(SourceStoreUnreachable) as caught:
            await kept(store, b"x")
    finally:
        server.start()
    assert caught.value.may_retry
    assert "refused" in caught.value.message
    assert server.endpoint in caught.value.message
    with pytest.raises(SourceMissing):
        await s3(server, tmp_path / "b").open_path(hashlib.sha256(b"x").hexdigest())


async def test_a_server_that_does_not_answer_is_slow_and_may_be_asked_again(server: S3Server, tmp_path: Path) -> None:
    async with between(server) as way:
        way.held = True
        store = s3(server, tmp_path, endpoint=way.endpoint, deadline_s=0.5)
        for work in (kept(store, b"x"), store.open_path("a" * 64), store.digests()):
            with pytest.raises(SourceStoreSlow) as caught:
                await work
            assert caught.value.may_retry


@pytest.mark.parametrize("bounded", [False, True], ids=["on one machine", "in a pod"])
async def test_what_the_operator_has_to_put_right_is_told_as_that(
    server: S3Server, tmp_path: Path, bounded: bool
) -> None:
    digest = await kept(s3(server, tmp_path / "a"), b"x")

    def as_told(name: str, **changed: object) -> S3Store:
        cache = SourceCache(tmp_path / name / "cache", bounded=bounded)
        return s3(server, tmp_path / name, cache=cache, **changed)

    without_bucket = as_told("b", bucket="another-bucket")
    wrong_secret = as_told("c", credentials={**GRANTED, "secret_access_key": "wrong"})
    unknown = as_told("d", credentials={**GRANTED, "access_key_id": "NOBODY"})
    for store, kind in (
        (without_bucket, BucketMissing),
        (wrong_secret, SourceStoreRefused),
        (unknown, SourceStoreRefused),
    ):
        for work in (kept(store, b"y"), store.open_path(digest), store.digests(), store.prove()):
            with pytest.raises(kind) as caught:
                await work
            assert not caught.value.may_retry
            assert "operator" in (caught.value.hint or "")
            assert SECRET_KEY not in caught.value.message


# the files on this machine


async def test_a_cached_file_that_was_damaged_is_fetched_again(server: S3Server, tmp_path: Path) -> None:
    digest = await kept(s3(server, tmp_path), SECRET)
    (tmp_path / "cache" / f"{digest}.tar.gz").unlink()
    (tmp_path / "cache" / f"{digest}.tar.gz").write_bytes(SECRET[:9])
    assert (await s3(server, tmp_path).open_path(digest)).read_bytes() == SECRET


async def test_leases_do_not_let_the_cache_outgrow_its_volume(tmp_path: Path) -> None:
    cache = SourceCache(tmp_path / "cache", largest=2600, lease_s=1000, held_s=0)
    cache.prepare()
    for number in range(20):
        content = bytes([number]) * 1000
        path = await cache.fill(hashlib.sha256(content).hexdigest(), 1000, chunks(content))
        os.utime(path, (time.time() - 100 + number,) * 2)  # within the lease
        assert sum(one.stat().st_size for one in (tmp_path / "cache").glob("*.tar.gz")) <= 2 * 2600
    assert path.exists()
    assert len(list((tmp_path / "cache").glob("*.tar.gz"))) >= 2, "while there is room, leases are kept"


async def test_what_was_just_asked_for_stays_however_little_room_there_is(tmp_path: Path) -> None:
    cache = SourceCache(tmp_path / "cache", largest=500, lease_s=1000)
    cache.prepare()
    paths = []
    for number in range(5):
        content = bytes([number]) * 1000
        paths.append(await cache.fill(hashlib.sha256(content).hexdigest(), 1000, chunks(content)))
    assert all(path.exists() for path in paths)


async def test_who_fetches_waits_for_room_where_all_that_is_there_was_just_asked_for(
    server: S3Server, tmp_path: Path
) -> None:
    """In a pod, whose volume has no more. Meanwhile the server is asked for nothing."""
    sources = [gzip.compress(os.urandom(1000)) for _ in range(6)]
    first = s3(server, tmp_path / "first")
    digests = [await first.commit(await first.receive(chunks(source))) for source in sources]
    most = 3 * max(map(len, sources))
    cache = SourceCache(tmp_path / "second", largest=most // 2 + 1, bounded=True, lease_s=1000, held_s=1.5)
    async with between(server) as way:
        second = s3(server, tmp_path, cache=cache, endpoint=way.endpoint)
        fetching = [asyncio.create_task(second.open_path(digest)) for digest in digests]
        seen = 0
        while not all(task.done() for task in fetching):
            there = (tmp_path / "second").glob("*.tar.gz"), (tmp_path / "second" / "arriving").iterdir()
            taken = 0
            for path in (path for some in there for path in some):
                with contextlib.suppress(FileNotFoundError):
                    taken += path.stat().st_size
            seen = max(seen, taken)
            await asyncio.sleep(0.002)
        assert {task.result().name.partition(".")[0] for task in fetching} == set(digests)
        assert 0 < seen <= most + 1
        assert (way.asked("HEAD"), way.asked("GET")) == (6, 6)


async def test_on_one_machine_nobody_waits_for_room_in_the_cache(server: S3Server, tmp_path: Path) -> None:
    first = s3(server, tmp_path / "first")
    digests = [await kept(first, os.urandom(1000)) for _ in range(3)]
    second = s3(server, tmp_path, cache=SourceCache(tmp_path / "second", largest=500))
    paths = [await second.open_path(digest) for digest in digests]
    digests.append(await kept(second, os.urandom(1000)))
    assert all(path.exists() for path in [*paths, tmp_path / "second" / f"{digests[-1]}.tar.gz"])


async def test_room_in_the_cache_is_had_in_the_order_in_which_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vibed.sources.cache._AGAIN_S", 0.01)
    cache, had = SourceCache(tmp_path / "cache", largest=500, bounded=True), []
    cache.prepare()

    async def one(name: str, size: int) -> None:
        async with cache.promised(size):
            had.append(name)

    async with asyncio.TaskGroup() as group, cache.promised(600):
        for name, size in (("large", 900), ("small", 100), ("gives up", 1), ("last", 100)):
            waits = group.create_task(one(name, size), name=name)
            if name == "gives up":
                gives_up = waits
        await asyncio.sleep(0.05)
        gives_up.cancel()
        staged = Incoming(tmp_path / "incoming")
        staged.prepare()
        received = await staged.receive(chunks(b"x"), ArchiveLimits())
        cache.take(received)
        assert await cache.find(received.digest) is None, "nor does what arrives take it from who waits"
        assert had == []
    assert had == ["large", "small", "last"]


async def test_who_waits_for_room_in_the_cache_is_told_only_where_nothing_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vibed.sources.cache._AGAIN_S", 0.01)
    cache, over = SourceCache(tmp_path / "cache", largest=500, bounded=True, stuck_s=2.0), 0
    cache.prepare()

    async def one() -> None:
        nonlocal over
        async with cache.promised(1000):
            await asyncio.sleep(0.6)
            over += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(one())
    assert over == 5, "although the last one waited for longer"
    async with cache.promised(1000):
        with pytest.raises(StorageFull, match="copies of sources that are in use") as told:
            await one()
    assert told.value.may_retry
    await one()


async def test_the_cache_keeps_what_is_used_and_lets_the_rest_go(tmp_path: Path) -> None:
    cache = SourceCache(tmp_path / "cache", largest=2600, lease_s=1000)
    cache.prepare()
    digests = []
    for number in range(5):
        content = bytes([number]) * 1000
        digests.append(hashlib.sha256(content).hexdigest())
        path = await cache.fill(digests[-1], 1000, chunks(content))
        os.utime(path, (0, number + 1))
    assert await cache.find(digests[0]) is not None, "it is leased from now on"
    again = SourceCache(tmp_path / "cache", largest=2600, lease_s=1000)
    new = gzip.compress(os.urandom(500))
    await again.fill(hashlib.sha256(new).hexdigest(), len(new), chunks(new))
    left = {path.name[:64] for path in (tmp_path / "cache").glob("*.tar.gz")}
    assert left == {digests[0], digests[4], hashlib.sha256(new).hexdigest()}
