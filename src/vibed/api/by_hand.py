"""VibedApps that somebody applied or edited with kubectl: their sources are read and decided upon here, since this is
the process that reads hostile archives; the controller then sees a version as of any deploy.

A source is named by `spec.source`: by `digest`, one that is in the source store; by `tarballRef`, the same
(`sha256:<digest>`), or an http(s) URL at one of the hosts that the operator trusts (`source_hosts`), since what can be
named here is fetched from within the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from vibed import records
from vibed.api.intake import Intake
from vibed.api.metadata import Override
from vibed.apps.app import Runtime
from vibed.apps.errors import Conflict, NotFound, StoreUnavailable, VibedError
from vibed.apps.store import Deployed
from vibed.cluster.by_hand import Undecided

log = records.logger("vibed.serve")

LOOK_EVERY_S = 30.0
"""How often it is looked when nothing tells of a change."""
_FETCH_S = 120.0
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})(?:\.tar\.gz)?")
_CHUNK = 256 * 1024


class SourceUnknown(VibedError):
    """A VibedApp that was applied by hand names a source that cannot be had."""

    code = "SourceUnknown"
    status = 422


class NotSupportedHere(VibedError):
    """A VibedApp that was applied by hand asks for what this vibeD does not have yet."""

    code = "NotSupported"
    status = 422


class Applied(Protocol):
    """What is needed of the store (`vibed.cluster.store.ClusterStore`)."""

    async def undecided(self) -> Sequence[Undecided]: ...
    async def decide(
        self,
        app_id: str,
        runtime: Runtime,
        digest: str,
        size: int,
        *,
        generation: int,
        storage_limit: int | None = None,
    ) -> Deployed: ...
    async def refuse(self, app_id: str, reason: str, message: str, *, generation: int) -> None: ...


class ByHand:
    """See the module's docstring. `hosts`: those from which sources are fetched."""

    def __init__(self, store: Applied, intake: Intake, *, hosts: Sequence[str], storage_limit: int) -> None:
        self._store = store
        self._intake = intake
        self._hosts = frozenset(host.lower() for host in hosts)
        self._storage_limit = storage_limit
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Some VibedApp was changed."""
        self._woken.set()

    async def run(self) -> None:
        """Decide upon what is undecided until cancelled; only one process may do so at a time."""
        while True:
            self._woken.clear()
            try:
                for spec in await self._store.undecided():
                    await self._one(spec)
            except StoreUnavailable as error:
                log.warning("apps could not be looked through; it is tried again", error=error.message)
            except Exception:
                log.exception("apps that were applied by hand could not be looked through; it is tried again")
                await asyncio.sleep(1.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._woken.wait()

    async def _one(self, spec: Undecided) -> None:
        try:
            _check_supported(spec)
            runtime, digest, size = spec.same or await self._decided(spec)
            await self._store.decide(
                spec.app_id, runtime, digest, size, generation=spec.generation, storage_limit=self._storage_limit
            )
        except (Conflict, NotFound):
            self.wake()  # it was changed meanwhile, or is gone
        except StoreUnavailable:
            raise
        except VibedError as error:
            told = f"{error.message}; {error.hint}" if error.hint else error.message
            if error.may_retry:
                log.warning("an app that was applied by hand waits", app=spec.app_id, error=told)
                return
            with contextlib.suppress(NotFound):
                await self._store.refuse(spec.app_id, error.error_code, told, generation=spec.generation)
            log.info("an app that was applied by hand is refused", app=spec.app_id, reason=error.error_code)
        except Exception:
            # one that nobody thought of keeps no other waiting
            log.exception("a spec cannot be decided upon", app=spec.app_id)

    async def _decided(self, spec: Undecided) -> tuple[Runtime, str, int]:
        override = Override(
            lane=spec.lane or None, template=spec.template or None, entrypoint=spec.entrypoint or None, port=spec.port
        )
        named = _DIGEST.fullmatch(spec.tarball_ref) if spec.tarball_ref else _DIGEST.fullmatch(spec.digest)
        if named is not None:
            _check_digest(spec, named[1])
            path = await self._intake.path(named[1])
            size = (await asyncio.to_thread(path.stat)).st_size
            return await self._intake.decide(path, override), named[1], size
        staged = await self._intake.receive(self._fetched(spec.tarball_ref), spec.owner)
        try:
            _check_digest(spec, staged.digest)
            with self._intake.holding(staged.digest):
                await self._intake.keep(staged, known=False)
                return await self._intake.decide(staged.path, override), staged.digest, staged.size
        finally:
            await self._intake.discard(staged)

    async def _fetched(self, url: str) -> AsyncIterator[bytes]:
        """The bytes of a source. Raises `SourceUnknown`."""
        where = urlsplit(url)
        if where.scheme not in ("http", "https") or not where.hostname:
            raise SourceUnknown(
                f"spec.source names nothing that can be read: {url[:200]!r}",
                hint="name a source that vibeD keeps by its digest, or an http(s) URL of a tar.gz",
            )
        if where.hostname.lower() not in self._hosts:
            raise SourceUnknown(
                f"sources are not fetched from {where.hostname}",
                hint="the operator may name that host in source_hosts",
            )
        try:
            async with (
                asyncio.timeout(_FETCH_S),
                httpx.AsyncClient(trust_env=False, follow_redirects=False) as client,
                client.stream("GET", url) as answer,
            ):
                if answer.status_code != 200:
                    later = answer.status_code >= 500 or answer.status_code == 429
                    raise SourceUnknown(f"{where.hostname} answered {answer.status_code}", retryable=later)
                async for chunk in answer.aiter_raw(_CHUNK):
                    yield chunk
        except (httpx.InvalidURL, ValueError) as error:
            raise SourceUnknown(f"spec.source.tarballRef is no URL: {error}") from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise SourceUnknown(f"{where.hostname} could not be read: {error}", retryable=True) from error


def _check_digest(spec: Undecided, digest: str) -> None:
    """Raises `SourceUnknown` where the spec says that its source is another one."""
    if spec.digest and spec.digest.removeprefix("sha256:") != digest:
        raise SourceUnknown(
            f"spec.source.digest is {spec.digest[:80]}, and what tarballRef names has {digest}",
            hint="leave one of them out, or have both say the same",
        )


def _check_supported(spec: Undecided) -> None:
    """Raises `NotSupportedHere` for what would otherwise be taken and not be done. `ttl` is taken: manifests have it by
    default, and an app that stays up does more than was asked for.
    """
    asked = {
        "source.gitRef": bool(spec.git_ref),
        "secretRefs": bool(spec.secret_refs),
        "egress.allowedHosts": bool(spec.allowed_hosts),
        "visibility": spec.visibility not in ("", "public"),
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise NotSupportedHere(f"spec.{name} is not supported yet", hint="leave it out")
