"""Apps, versions, keys and sources on their way out of this vibeD and into it (`vibed export`, `vibed import`).

Both are streams: of all that passes only one app's versions are in memory, and a source only on the disk. An app is
written whole or not at all, and only after its sources; what was written is skipped when the same is imported again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from vibed import __version__, records
from vibed.api import moved
from vibed.api.controlling import Controller
from vibed.api.errors import NotSupported
from vibed.api.intake import Intake
from vibed.apps.app import Phase, Version
from vibed.apps.errors import AlreadyExists, Conflict, NotFound, VibedError
from vibed.apps.restoring import KeptKey, Restored, Restoring
from vibed.apps.store import AppStore
from vibed.sources.errors import ArchiveError, NotGzip, SourceDamaged, SourceMissing, TooLarge

_PAGE = 200
_CHUNK = 256 << 10
_GONE_S = 60.0
"""How long an app that is replaced may take to be gone."""

log = records.logger("vibed.api")


@dataclass(slots=True)
class Report:
    """What became of an import."""

    apps: list[dict[str, Any]] = field(default_factory=list)
    keys_imported: int = 0
    keys_there: int = 0
    left_out: list[dict[str, Any]] = field(default_factory=list)
    """What the export says that it lacks."""
    complete: bool = False
    """Whether the export was there to its end."""

    def view(self) -> dict[str, Any]:
        """As the API tells it."""
        return {
            "apps": self.apps,
            "keys": {"imported": self.keys_imported, "skipped": self.keys_there},
            "left_out": self.left_out,
            "complete": self.complete,
        }


class Moving:
    """See the module's docstring."""

    def __init__(self, store: AppStore, intake: Intake, link: Controller) -> None:
        self._store = store
        self._intake = intake
        self._link = link

    def _restoring(self) -> Restoring:
        if not isinstance(self._store, Restoring):
            raise NotSupported("apps of this store cannot be moved yet")
        return self._store

    # out

    async def export(self) -> AsyncIterator[bytes]:
        """The archive, as it is read. An app that cannot be read is left out and told at the end. Raises what is in the
        way of all of it, before there is any.
        """
        return self._archive(await self._restoring().kept_keys())

    async def _archive(self, keys: Sequence[KeptKey]) -> AsyncIterator[bytes]:
        began = {"format": moved.FORMAT, "vibed": __version__, "exported_at": time.time()}
        yield moved.json_member(moved.BEGIN, began)
        written: set[str] = set()
        apps, left_out = 0, []
        async for app_id in self._app_ids():
            try:
                app = await self._read(app_id)
                for version in app.versions:
                    if version.source_kept and version.source_digest not in written:
                        async for piece in self._source(version):
                            yield piece
                        written.add(version.source_digest)
            except NotFound:
                continue  # it was deleted meanwhile
            except VibedError as error:
                log.warning("an app is left out of an export", app=app_id, error=error.message)
                left_out.append({"app_id": app_id, "code": error.error_code, "message": error.message})
                continue
            yield moved.json_member(moved.app_name(app_id), moved.app_said(app))
            apps += 1
        yield moved.json_member(moved.KEYS, [moved.key_said(kept) for kept in keys])
        yield moved.json_member(
            moved.END, {"apps": apps, "sources": len(written), "keys": len(keys), "left_out": left_out}
        )
        yield moved.TAIL

    async def _app_ids(self) -> AsyncIterator[str]:
        """All, those last that were deployed meanwhile: they come to the front of the list."""
        seen: set[str] = set()
        while True:
            offset, new = 0, False
            while True:
                page, total = await self._store.list(limit=_PAGE, offset=offset)
                for app in page:
                    if app.app_id not in seen:
                        seen.add(app.app_id)
                        new = True
                        yield app.app_id
                offset += len(page)
                if not page or offset >= total:
                    break
            if not new:
                return

    async def _read(self, app_id: str) -> Restored:
        app = await self._store.get(app_id)
        versions: dict[int, Version] = {}
        while True:
            page, total = await self._store.versions(app_id, limit=_PAGE, offset=len(versions))
            versions |= {version.number: version for version in page}
            if not page or len(versions) >= total:
                break
        if app.deleted or not versions:
            raise NotFound(f"there is no app {app_id!r}")
        checked = [await self._as_kept(versions[number]) for number in sorted(versions)]
        if not checked[-1].source_kept:
            raise SourceMissing(f"the source of version {checked[-1].number}, which should serve, is missing")
        return Restored(app_id, app.owner, app.created_at, checked)

    async def _as_kept(self, version: Version) -> Version:
        """Without its source where that is not there any more, or is damaged."""
        if not version.source_kept:
            return version
        try:
            await self._intake.path(version.source_digest)
        except (SourceMissing, SourceDamaged):
            return replace(version, source_kept=False)
        return version

    async def _source(self, version: Version) -> AsyncIterator[bytes]:
        path = await self._intake.path(version.source_digest)
        # whatever fails from here on breaks the archive off: its length is promised
        with path.open("rb") as file:
            size = (await asyncio.to_thread(path.stat)).st_size
            yield moved.head(moved.source_name(version.source_digest), size)
            left = size
            while left:
                piece = await asyncio.to_thread(file.read, min(_CHUNK, left))
                if not piece:
                    raise SourceMissing(f"the source {version.source_digest[:12]}… was cut off while it was read")
                left -= len(piece)
                yield piece
            yield moved.padding(size)

    # in

    async def take_in(self, chunks: AsyncIterator[bytes], owner: str, *, replacing: bool) -> Report:
        """Read an archive and write what it has. Raises `MalformedExport`, and what the stores raise: what was written
        until then stays, and is skipped when it is repeated.
        """
        restoring, report = self._restoring(), Report()
        with ExitStack() as held:
            there: dict[str, VibedError | None] = {}
            members = moved.Members(chunks)
            first = True
            async for member in members:
                if first:
                    _check_format(member.name, await moved.json_of(member))
                    first = False
                elif (digest := moved.digest_of(member.name)) is not None:
                    held.enter_context(self._intake.holding(digest))
                    there[digest] = await self._take_source(digest, member, owner)
                elif (app_id := moved.app_id_of(member.name)) is not None:
                    if (said := await moved.json_of(member)) is not None:
                        await self._take_app(restoring, said, app_id, there, report, replacing=replacing)
                elif member.name == moved.KEYS:
                    for kept in moved.keys_of(await moved.json_of(member) or []):
                        if await restoring.restore_key(kept):
                            report.keys_imported += 1
                        else:
                            report.keys_there += 1
                elif member.name == moved.END:
                    end = await moved.json_of(member)
                    report.complete = isinstance(end, dict)
                    report.left_out = list(end.get("left_out", ())) if isinstance(end, dict) else []
                else:
                    raise moved.MalformedExport(f"an export has no {member.name[:80]!r}")
            if first:
                raise moved.MalformedExport("there is nothing in it", hint="give the file that an export wrote")
        return report

    async def _take_source(self, digest: str, member: moved.Member, owner: str) -> VibedError | None:
        """Keep a source; what is wrong with it is told of the apps that need it."""
        if member.size > self._intake.limits.compressed:
            limit = self._intake.limits.compressed
            return TooLarge(f"its source has {member.size:,} bytes, and this vibeD takes {limit:,} (max_source_mb)")
        try:
            staged = await self._intake.receive(member.content, owner)
        except NotGzip as error:  # there is nothing of it
            return error
        try:
            if staged.size < member.size:
                return SourceMissing("its source was cut off")
            if staged.digest != digest:
                raise moved.MalformedExport(f"the source {digest[:12]}… is damaged: its SHA-256 is another")
            try:
                await self._intake.look_at(staged.path)
            except ArchiveError as error:
                return error
            await self._intake.keep(staged, known=False)
            return None
        finally:
            await self._intake.discard(staged)

    async def _take_app(
        self,
        restoring: Restoring,
        said: Any,
        app_id: str,
        there: dict[str, VibedError | None],
        report: Report,
        *,
        replacing: bool,
    ) -> None:
        app = moved.app_of(said, app_id)
        told: dict[str, Any] = {"app_id": app_id, "owner": app.owner, "version": app.versions[-1].number}
        report.apps.append(told)
        try:
            for version in app.versions:
                if version.source_kept:
                    digest = version.source_digest
                    problem = there.get(digest, SourceMissing(f"the source {digest[:12]}… is not in the export"))
                    if problem is not None:
                        raise problem
            if not app.versions[-1].source_kept:
                raise SourceMissing("the source of the version that should serve is not in the export")
            # here it begins anew
            newest = replace(app.versions[-1], phase=Phase.PENDING, reason="Accepted", message="")
            app = replace(app, versions=[*app.versions[:-1], newest])
            told["outcome"] = await self._restore(restoring, app, replacing=replacing)
        except VibedError as error:
            told |= {"outcome": "refused", "code": error.error_code, "message": error.message}
        else:
            if told["outcome"] != "skipped":
                log.info("app_imported", app=app_id, owner=app.owner, versions=len(app.versions))
                with contextlib.suppress(VibedError):
                    await self._link.wake(app_id)

    async def _restore(self, restoring: Restoring, app: Restored, *, replacing: bool) -> str:
        try:
            await restoring.restore(app)
            return "imported"
        except AlreadyExists:
            if not replacing:
                return "skipped"
        await self._store.request_delete(app.app_id)
        until = time.monotonic() + _GONE_S
        while True:
            with contextlib.suppress(VibedError):
                await self._link.wake(app.app_id)
            try:
                await restoring.restore(app)
                return "replaced"
            except Conflict:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(0.2)


def _check_format(name: str, said: Any) -> None:
    if name != moved.BEGIN or not isinstance(said, dict):
        raise moved.MalformedExport("this is no export of vibeD", hint="give the file that an export wrote")
    if said.get("format") != moved.FORMAT:
        raise moved.MalformedExport(
            f"it has format {said.get('format')!r}, and this vibeD reads {moved.FORMAT}",
            hint="import it with the vibeD that wrote it, or a newer one",
        )
