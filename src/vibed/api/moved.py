"""The archive in which apps move from one vibeD to another (docs/reference/export.md): a tar of sources, then the app
that needs them, then keys, then what there was in all. Read in one pass, with bounds on everything, for it may have
lain anywhere meanwhile.
"""

from __future__ import annotations

import json
import math
import re
import tarfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from vibed.apps import decision, ids
from vibed.apps.app import Key, Phase, Resources, Version
from vibed.apps.errors import VibedError
from vibed.apps.restoring import KeptKey, Restored

FORMAT = 1
BEGIN, KEYS, END = "vibed-export.json", "keys.json", "end.json"
LARGEST_JSON = 64 << 20
"""Bytes of one member that is JSON: an app with all its versions, or all keys."""
MOST_VERSIONS = 100_000

_BLOCK = 512
_SOURCE = re.compile(r"sources/([0-9a-f]{64})\.tar\.gz")
_APP = re.compile(r"apps/([a-z0-9-]{1,63})\.json")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_KEY = re.compile(r"key-[0-9a-f]{12}")
_LARGEST_ENV = 96 << 10


class MalformedExport(VibedError):
    """What is imported is no export of vibeD, or was damaged."""

    code = "MalformedExport"


def source_name(digest: str) -> str:
    return f"sources/{digest}.tar.gz"


def app_name(app_id: str) -> str:
    return f"apps/{app_id}.json"


def digest_of(name: str) -> str | None:
    """Of a member that is a source."""
    return found[1] if (found := _SOURCE.fullmatch(name)) else None


def app_id_of(name: str) -> str | None:
    """Of a member that is an app."""
    return found[1] if (found := _APP.fullmatch(name)) else None


# writing


def head(name: str, size: int) -> bytes:
    """What stands before a member."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(time.time())
    return member.tobuf(tarfile.USTAR_FORMAT)


def padding(size: int) -> bytes:
    """What stands after it."""
    return bytes(-size % _BLOCK)


def json_member(name: str, content: object) -> bytes:
    """A whole member."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True).encode()
    return head(name, len(text)) + text + padding(len(text))


TAIL = bytes(2 * _BLOCK)
"""What ends an archive."""


def app_said(app: Restored) -> dict[str, Any]:
    """An app, for its member."""
    return {
        "app_id": app.app_id,
        "owner": app.owner,
        "created_at": app.created_at,
        "versions": [
            {
                "number": version.number,
                "source": version.source_digest,
                "source_size": version.source_size,
                "source_kept": version.source_kept,
                "runtime": decision.as_json(version.runtime),
                "env": dict(version.env),
                "resources": asdict(version.resources),
                "created_at": version.created_at,
                "created_by": version.created_by,
                "rolled_back_from": version.rolled_back_from,
                "phase": version.phase.value,
                "reason": version.reason,
                "message": version.message,
                "timings": dict(version.timings),
            }
            for version in app.versions
        ],
    }


def key_said(kept: KeptKey) -> dict[str, Any]:
    """A key, for `keys.json`: never its secret, which nobody has."""
    return {**asdict(kept.key), "secret_sha256": kept.secret_sha256}


# reading


@dataclass(frozen=True, slots=True)
class Member:
    """One member, whose `content` has to be read before the next."""

    name: str
    size: int
    content: AsyncIterator[bytes]


class Members:
    """The members of an archive that arrives in pieces. Raises `MalformedExport`."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""
        self.cut_off = False
        """Whether it ended before its end."""

    async def __aiter__(self) -> AsyncIterator[Member]:
        while True:
            block = await self._exactly(_BLOCK)
            if len(block) < _BLOCK:
                self.cut_off = True
                return
            if not any(block):
                return
            try:
                found = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
            except (tarfile.HeaderError, UnicodeDecodeError, ValueError) as error:
                raise MalformedExport(f"this is no export of vibeD, or it is damaged: {error}") from error
            if found.type != tarfile.REGTYPE or found.size < 0:
                raise MalformedExport(f"an export has only plain files, not {found.name[:80]!r}")
            member = Member(found.name, found.size, self._content(found.size))
            yield member
            async for _ in member.content:
                pass
            if self.cut_off:
                return
            if len(await self._exactly(-found.size % _BLOCK)) < -found.size % _BLOCK:
                self.cut_off = True
                return

    async def _content(self, size: int) -> AsyncIterator[bytes]:
        left = size
        while left:
            piece = await self._some(left)
            if not piece:
                self.cut_off = True
                return
            left -= len(piece)
            yield piece

    async def _some(self, most: int) -> bytes:
        while not self._held:
            try:
                self._held = await anext(self._chunks)
            except StopAsyncIteration:
                return b""
        piece, self._held = self._held[:most], self._held[most:]
        return piece

    async def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = await self._some(size - len(found))
            if not piece:
                break
            found += piece
        return found


async def json_of(member: Member) -> Any:
    """What a member says; None where it was cut off. Raises `MalformedExport`."""
    if member.size > LARGEST_JSON:
        raise MalformedExport(f"{member.name} has {member.size:,} bytes, more than any that vibeD writes")
    text = bytearray()
    async for piece in member.content:
        text += piece
    if len(text) < member.size:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedExport(f"{member.name} is not JSON: {error}") from error


def app_of(said: Any, app_id: str) -> Restored:
    """The app that a member says. Raises `MalformedExport` for what no vibeD can have said."""
    try:
        if said["app_id"] != app_id or not ids.PATTERN.fullmatch(app_id):
            raise ValueError("its name is another")
        if not _OWNER.fullmatch(said["owner"]):
            raise ValueError("its owner is none")
        if not 1 <= len(said["versions"]) <= MOST_VERSIONS:
            raise ValueError("it has no versions, or too many")
        versions = [_version(app_id, one) for one in said["versions"]]
        if any(a.number >= b.number for a, b in pairwise(versions)):
            raise ValueError("its versions are not in their order")
        return Restored(app_id, said["owner"], _time(said["created_at"]), versions)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise MalformedExport(f"the app {app_id!r} cannot be read: {type(error).__name__}: {error}") from error


def keys_of(said: Any) -> list[KeptKey]:
    """The keys that `keys.json` says. Raises `MalformedExport`."""
    try:
        return [_key(one) for one in said]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedExport(f"{KEYS} cannot be read: {type(error).__name__}: {error}") from error


def _version(app_id: str, said: Mapping[str, Any]) -> Version:
    number, back = _whole(said["number"], 1), said["rolled_back_from"]
    digest, env = said["source"], {str(name): str(value) for name, value in said["env"].items()}
    if not _DIGEST.fullmatch(digest):
        raise ValueError("its source is none")
    if not all(map(_VARIABLE.fullmatch, env)) or sum(map(len, [*env, *env.values()])) > _LARGEST_ENV:
        raise ValueError("its variables are none, or too many")
    if any("\0" in value for value in env.values()):
        raise ValueError("a variable has a NUL")
    runtime = decision.of_json(said["runtime"])
    folder = runtime.site_folder or ""
    for path in (runtime.strip, runtime.root, folder):
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{path!r} leads out of its source")
    resources = Resources(**said["resources"])
    if resources.cpu is not None and not 0.05 <= resources.cpu <= 64:
        raise ValueError("its cores are out of bounds")
    if resources.memory_mb is not None and not 16 <= resources.memory_mb <= 65_536:
        raise ValueError("its memory is out of bounds")
    return Version(
        app_id, number, digest, _whole(said["source_size"], 0), runtime, env, resources, _time(said["created_at"]),
        str(said["created_by"])[:200], None if back is None else _whole(back, 1), Phase(said["phase"]),
        str(said["reason"])[:200], str(said["message"])[:10_000],
        {str(name)[:80]: _time(ms) for name, ms in said["timings"].items()}, bool(said["source_kept"]),
    )  # fmt: skip


def _key(said: Mapping[str, Any]) -> KeptKey:
    if not (_KEY.fullmatch(said["key_id"]) and _OWNER.fullmatch(said["owner"])):
        raise ValueError("a key is none")
    if not _DIGEST.fullmatch(said["secret_sha256"]) or not isinstance(said["admin"], bool):
        raise ValueError("a key is none")
    used = said["last_used_at"]
    key = Key(
        said["key_id"], said["owner"], said["admin"], str(said["label"])[:200], _time(said["created_at"]),
        None if used is None else _time(used),
    )  # fmt: skip
    return KeptKey(key, said["secret_sha256"])


def _time(said: Any) -> float:
    if isinstance(said, bool) or not isinstance(said, int | float) or not math.isfinite(said) or not 0 <= said < 1e11:
        raise ValueError(f"{said!r} is no time")
    return float(said)


def _whole(said: Any, least: int) -> int:
    if isinstance(said, bool) or not isinstance(said, int) or not least <= said < 2**53:
        raise ValueError(f"{said!r} is no number of that kind")
    return said
