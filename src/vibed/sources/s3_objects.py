"""What vibeD makes itself, in the bucket of the sources.

An object is `<prefix><room>/<name>-<suffix>`; the suffix is an HMAC of both, as of a source. All methods block, may be
called from any thread, and try again for a while what may be done twice, which everything here may.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store as Bucket

from vibed.apps.errors import VibedError
from vibed.sources.errors import SourceMissing, SourceStoreFailed
from vibed.sources.objects import Listed
from vibed.sources.s3_words import told

T = TypeVar("T")
_PART = 8 << 20
_CHUNK = 1 << 20
_PAUSES_S = (0.1, 0.3, 0.7, 1.5, 3.0)
_SUFFIX = re.compile(r"(.+)-([0-9a-f]{32})")


class S3Objects:
    """`Objects` in a bucket."""

    def __init__(self, bucket: Bucket, *, prefix: str, key: bytes, where: str, deadline_s: float) -> None:
        """`where`: the bucket, for a person; `deadline_s`: how long is tried."""
        self._deadline_s = deadline_s
        self._bucket = bucket
        self._prefix = prefix
        self._key = hmac.digest(key, b"vibed object names", "sha256")
        self._where = where

    def put(self, room: str, name: str, content: bytes | Path) -> None:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        at = self._at(room, name)

        def put() -> None:
            obstore.put(self._bucket, at, content, use_multipart=size > _PART, chunk_size=_PART)
            # the server has checked each part; whether it has all of them, this says
            if size > _PART and (found := obstore.head(self._bucket, at)["size"]) != size:
                raise SourceStoreFailed(f"the source store kept {found} of {size} bytes", hint="try again")

        self._trying("keeping what was made", put)

    def get(self, room: str, name: str) -> bytes:
        return self._trying("reading", lambda: bytes(obstore.get(self._bucket, self._at(room, name)).bytes()))

    def save(self, room: str, name: str, path: Path) -> None:
        def save() -> None:
            with path.open("wb") as out:
                for chunk in obstore.get(self._bucket, self._at(room, name)).stream(min_chunk_size=_CHUNK):
                    out.write(chunk)

        self._trying("reading what was made", save)

    def look(self, room: str, name: str) -> Listed | None:
        def look() -> Listed:
            found = obstore.head(self._bucket, self._at(room, name))
            return Listed(name, found["size"], found["last_modified"].timestamp())

        with contextlib.suppress(SourceMissing):
            return self._trying("looking", look)
        return None

    def listing(self, room: str) -> list[Listed]:
        start = f"{self._prefix}{room}/"

        def look() -> list[Listed]:
            found = []
            for batch in obstore.list(self._bucket, prefix=start):
                for item in batch:
                    named = _SUFFIX.fullmatch(item["path"].removeprefix(start))
                    if named and item["path"] == self._at(room, named[1]):
                        found.append(Listed(named[1], item["size"], item["last_modified"].timestamp()))
            return found

        return self._trying("listing what was made", look)

    def delete(self, room: str, name: str) -> None:
        with contextlib.suppress(SourceMissing):
            self._trying("removing", lambda: obstore.delete(self._bucket, self._at(room, name)))

    def signed(self, room: str, name: str, ttl_s: float) -> str:
        at = self._at(room, name)
        return self._trying("signing a URL", lambda: obstore.sign(self._bucket, "GET", at, timedelta(seconds=ttl_s)))

    def _at(self, room: str, name: str) -> str:
        suffix = hmac.new(self._key, f"{room}/{name}".encode(), hashlib.sha256).hexdigest()[:32]
        return f"{self._prefix}{room}/{name}-{suffix}"

    def _trying(self, doing: str, work: Callable[[], T]) -> T:
        deadline, tries = time.monotonic() + self._deadline_s, 0
        while True:
            try:
                return work()
            except SourceStoreFailed as error:
                problem: VibedError = error
            except (BaseError, FileNotFoundError) as error:
                problem = told(error, doing, self._where)
            pause = _PAUSES_S[min(tries, len(_PAUSES_S) - 1)]
            if not problem.may_retry or time.monotonic() + pause >= deadline:
                raise problem
            tries += 1
            time.sleep(pause)
