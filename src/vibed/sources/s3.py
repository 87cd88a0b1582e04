"""The source store `s3`: any S3 server, which every machine of a vibeD reaches.

A source is one object, `<prefix>sources/<sha256>-<suffix>.tar.gz`. The suffix is an HMAC of the digest by a key of this
vibeD: who knows a source, and so its digest, does not know its name, and two vibeDs in one bucket leave each other's
alone. Objects are written whole, each time a source is received, with a SHA-256 of what is sent that the server checks
(of each part, where there are several): the same name has the same bytes, so that no condition is needed and what was
damaged is mended. What is read is verified before it is used (`vibed.sources.cache`).

Several processes may keep sources at once. So nothing is removed that was written in the last hour (`GRACE_S`): the
process that wrote it may be about to write the version that names it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit, urlunsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store as Bucket

from vibed import records
from vibed.apps.errors import VibedError
from vibed.sources.cache import SourceCache
from vibed.sources.errors import (
    SourceDamaged,
    SourceMissing,
    SourceStoreFailed,
    SourceStoreRefused,
    SourceStoreSlow,
    storage_error,
)
from vibed.sources.limits import DEFAULT_LIMITS, ArchiveLimits
from vibed.sources.receiving import Incoming, StagedSource
from vibed.sources.s3_objects import S3Objects
from vibed.sources.s3_words import told
from vibed.sources.store import SUFFIX, checked

if TYPE_CHECKING:
    from obstore.store import S3Config

T = TypeVar("T")

SIGNED_FOR_S = 300.0
"""How long a URL is good for that is handed to who fetches a source at once."""
GRACE_S = 3600.0
_DEADLINE_S = 20.0
"""For a small request with its repetitions. obstore's own retries end after seconds whatever its timeout says, and they
repeat what it takes for safe, so that it gets none."""
_PACE = 1_000_000
"""Bytes a second below which a transfer is given up."""
_PAUSES_S = (0.1, 0.3, 0.7, 1.5, 3.0)
"""Between repetitions; the last one goes on until the deadline."""
_CONNECT_S = 3.0
_STALL_S = 10.0
"""How long the store may be silent in the middle of an answer."""
_PART = 8 << 20
"""Larger sources are sent in parts of this size, so that this much is held of each that is on its way."""
_PARTS_AT_ONCE = 3
_CHUNK = 1 << 20

log = records.logger("vibed.sources")


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Where the bucket is. Credentials are what the AWS variables, a web identity or the machine's role say."""

    bucket: str
    endpoint: str = ""
    """`http(s)://host[:port]`; empty: AWS."""
    region: str = "us-east-1"
    prefix: str = ""
    """Empty, or ends with a slash."""
    addressing: str = "path"
    """`path` (the bucket in the path) or `virtual` (in the host's name)."""

    @property
    def where(self) -> str:
        """For a person."""
        return f"{self.endpoint or 'AWS ' + self.region}, bucket {self.bucket}"


class S3Store:
    """See the module's docstring, and `vibed.sources.store.SourceStore` for the methods."""

    def __init__(
        self,
        settings: S3Settings,
        *,
        key: bytes,
        cache: SourceCache,
        incoming: Path,
        arriving: int = sys.maxsize,
        grace_s: float = GRACE_S,
        deadline_s: float = _DEADLINE_S,
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        """`key`: secret, random, 32 bytes, the same in each process of this vibeD. `incoming`: where this process
        receives, on the file system of the cache; `arriving`: bytes of what it receives at a time. `credentials`:
        `access_key_id` and `secret_access_key`, for whoever has them elsewhere than where they are looked for.
        """
        if len(key) < 32:
            raise ValueError("the key needs at least 32 bytes")
        self._settings = settings
        self._key = hmac.digest(key, b"vibed source names", "sha256")
        self._cache = cache
        self._incoming = Incoming(incoming, arriving)
        self._grace_s = grace_s
        self._deadline_s = deadline_s
        self._bucket = _bucket(settings, credentials or {})
        self._named = re.compile(rf"{re.escape(settings.prefix)}sources/([0-9a-f]{{64}})-[0-9a-f]{{32}}\.tar\.gz")
        self._fetching: dict[str, asyncio.Task[Path]] = {}

    def key_of(self, digest: str) -> str:
        """The name of the object. Raises `SourceMissing` for what is no digest."""
        suffix = hmac.new(self._key, checked(digest).encode(), hashlib.sha256).hexdigest()[:32]
        return f"{self._settings.prefix}sources/{digest}-{suffix}{SUFFIX}"

    @property
    def incoming(self) -> Path:
        return self._incoming.folder

    def prepare(self) -> int:
        self._cache.prepare()
        return self._incoming.prepare()

    def check_room(self, wanted: int = 0) -> None:
        try:
            self._incoming.check(wanted)
        except OSError as error:
            raise storage_error(error, "looking at the disk") from error

    async def receive(self, chunks: AsyncIterator[bytes], limits: ArchiveLimits = DEFAULT_LIMITS) -> StagedSource:
        return await self._incoming.receive(chunks, limits)

    async def commit(self, staged: StagedSource, *, known: bool = False) -> str:
        key = self.key_of(staged.digest)
        # before it waits for anything: work ahead of the version looks for it already
        self._cache.take(staged)

        async def put() -> None:
            parts = staged.size > _PART
            await obstore.put_async(
                self._bucket,
                key,
                staged.path,
                use_multipart=parts,
                chunk_size=_PART,
                max_concurrency=_PARTS_AT_ONCE,
                attributes={"Content-Type": "application/gzip"},
            )
            if parts:
                # the server has checked each part; whether it has all of them, this says
                found = await obstore.head_async(self._bucket, key)
                if found["size"] != staged.size:
                    raise SourceStoreFailed(
                        f"the source store kept {found['size']} of {staged.size} bytes", hint="try again"
                    )

        try:
            await self._trying("storing a source", put, size=staged.size)
        except SourceMissing as error:
            # of a put, a 404 without a reason can only mean the bucket
            raise SourceStoreFailed(f"the source store at {self._settings.where} does not take a source") from error
        return staged.digest

    async def discard(self, staged: StagedSource) -> None:
        staged.path.unlink(missing_ok=True)

    async def open_path(self, digest: str) -> Path:
        path = await self._cache.find(checked(digest))
        if path is not None:
            return path
        fetching = self._fetching.get(digest)
        if fetching is None:
            fetching = self._fetching[digest] = asyncio.create_task(self._fetch(digest))
            fetching.add_done_callback(lambda task: self._fetched(digest, task))
        # whoever gives up leaves it to the others, and to the cache
        return await asyncio.shield(fetching)

    def _fetched(self, digest: str, task: asyncio.Task[Path]) -> None:
        self._fetching.pop(digest, None)
        if not task.cancelled():
            task.exception()  # those who waited were told; asyncio would log it as lost where none is left

    async def _fetch(self, digest: str) -> Path:
        key = self.key_of(digest)

        async def head() -> int:
            return (await obstore.head_async(self._bucket, key))["size"]

        async def get() -> Path:
            found = await obstore.get_async(self._bucket, key)
            return await self._cache.fill(digest, found.meta["size"], _chunks(found))

        size = 0
        if self._cache.bounded:
            # an answer to HEAD does not say why not, the one to GET does
            with contextlib.suppress(SourceMissing, SourceStoreRefused):
                size = await self._trying("reading a source", head)
        try:
            async with self._cache.promised(size):
                return await self._trying("reading a source", get, size=size)
        except SourceMissing as error:
            raise SourceMissing(f"there is no source {digest[:12]}…") from error

    async def delete(self, digest: str) -> None:
        key = self.key_of(digest)

        async def remove() -> None:
            # Once more, as late as can be: whoever commits it again writes it again.
            found = await obstore.head_async(self._bucket, key)
            if time.time() - found["last_modified"].timestamp() >= self._grace_s:
                await obstore.delete_async(self._bucket, key)

        with contextlib.suppress(SourceMissing):
            await self._trying("removing a source", remove)
        if not self._grace_s:
            self._cache.forget(digest)

    async def digests(self) -> frozenset[str]:
        async def look() -> frozenset[str]:
            found = set()
            before = time.time() - self._grace_s
            async for batch in obstore.list(self._bucket, prefix=f"{self._settings.prefix}sources/"):
                for item in batch:
                    named = self._named.fullmatch(item["path"])
                    old = item["last_modified"].timestamp() <= before or not self._grace_s
                    if named and old and item["path"] == self.key_of(named[1]):
                        found.add(named[1])
            return frozenset(found)

        return await self._trying("listing sources", look)

    async def signed_url(self, digest: str, ttl_s: float = SIGNED_FOR_S) -> str:
        key = self.key_of(digest)

        async def sign() -> str:
            return await obstore.sign_async(self._bucket, "GET", key, timedelta(seconds=ttl_s))

        return await self._trying("signing a URL", sign)

    def objects(self) -> S3Objects:
        """What else is kept in the bucket."""
        return S3Objects(
            self._bucket,
            prefix=self._settings.prefix,
            key=self._key,
            where=self._settings.where,
            deadline_s=self._deadline_s,
        )

    async def prove(self) -> None:
        """Write, read, list and remove a small object. Raises what is in the way."""
        name = f"{self._settings.prefix}sources/probe-{os.urandom(8).hex()}"
        content = os.urandom(64)

        async def probe() -> None:
            await obstore.put_async(self._bucket, name, content, use_multipart=False)
            try:
                found = await obstore.get_async(self._bucket, name)
                if bytes(await found.bytes_async()) != content:
                    raise SourceStoreFailed(f"the source store at {self._settings.where} gives other bytes back")
                await obstore.list(self._bucket, prefix=name).collect_async()
            finally:
                await obstore.delete_async(self._bucket, name)

        await self._trying("trying it out", probe)

    async def _trying(self, doing: str, work: Callable[[], Awaitable[T]], *, size: int = 0) -> T:
        """Do it, and again while it may help and there is time. What is repeated can be done twice."""
        deadline = time.monotonic() + self._deadline_s + size / _PACE
        tries = 0
        while True:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    return await work()
            except TimeoutError:
                raise SourceStoreSlow(
                    f"the source store at {self._settings.where} did not finish {doing} in time",
                    hint="try again in a minute",
                ) from None
            except (SourceDamaged, SourceStoreFailed) as error:
                problem: VibedError = error
            except (BaseError, FileNotFoundError) as error:
                problem = told(error, doing, self._settings.where)
            # a transfer that was cut off looks like damage
            again = problem.may_retry or (isinstance(problem, SourceDamaged) and tries < 2)
            pause = _PAUSES_S[min(tries, len(_PAUSES_S) - 1)]
            if not again or time.monotonic() + pause >= deadline:
                raise problem
            tries += 1
            log.warning("source_store_again", doing=doing, tries=tries, error=problem.message)
            await asyncio.sleep(pause)


async def _chunks(found: obstore.GetResult) -> AsyncIterator[bytes]:
    async for chunk in found.stream(min_chunk_size=_CHUNK):
        yield bytes(chunk)


def _bucket(settings: S3Settings, credentials: Mapping[str, str]) -> Bucket:
    endpoint = settings.endpoint
    if endpoint and settings.addressing == "virtual":
        parts = urlsplit(endpoint)
        endpoint = urlunsplit(parts._replace(netloc=f"{settings.bucket}.{parts.netloc}"))
    config: S3Config = {
        "region": settings.region,
        "virtual_hosted_style_request": settings.addressing == "virtual",
        "checksum_algorithm": "SHA256",
        "disable_tagging": True,
        "disable_bulk_delete": True,
    }
    if endpoint:
        # AWS_ENDPOINT_URL_S3 would otherwise be stronger than what was configured
        config |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
    if credentials:
        config |= {
            "access_key_id": credentials["access_key_id"],
            "secret_access_key": credentials["secret_access_key"],
        }
    return Bucket(
        settings.bucket,
        config=config,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=_CONNECT_S),
            "read_timeout": timedelta(seconds=_STALL_S),
            "timeout": timedelta(hours=1),
        },
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=0)},
    )
