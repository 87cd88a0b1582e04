"""How the API's process asks the controller's: a few operations over one connection (`vibed.wire`).

The link is a hint, never the truth: what was accepted is in the app store, and a controller that is down finds it
there when it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vibed.apps.app import Install, Phase, Runtime
from vibed.wire import Connection, Disconnected, Remote

GRACE_S = 0.3
"""How much later than the time that it was given a controller's answer may come. With what a deploy waits by default
(`deploy_wait_s`) that is less than the ten seconds in which it is answered, whatever has become of the controller."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one version (or an app that was asked for) stands."""

    phase: Phase
    reason: str = ""
    message: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    serving_version: int | None = None


@dataclass(frozen=True, slots=True)
class TemplateFigures:
    """One row of `GET /v1/templates`; the figures are the pool's and the probe's own."""

    name: str
    lane: str
    description: str
    kind: str
    warm_pool_size: int
    ready: int
    claimed: int
    isolation: str
    packages: Mapping[str, str]
    available: bool
    reason: str
    """Why it is not available, or the build step it is at; empty when there is nothing to say."""
    building: bool = False
    """Whether an image is being built, or its driver probed; while it is available, one with more packages."""
    progress: float | None = None
    on_need: bool = False
    """Whether it is prepared when an app first needs it, and none has yet."""
    limitations: Sequence[str] = ()
    """What does not hold for its sandboxes on this machine, and the cure (`vibed.supervision.limitations`)."""


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """One row of `GET /v1/layers`; times are Unix seconds."""

    key: str
    kind: str
    template: str
    bytes: int
    packages: Mapping[str, str]
    made_at: float
    used_at: float
    took_s: float
    builds: int
    private: bool
    apps: Sequence[str] = ()
    """Those whose sandboxes have it."""
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class BakeFigures:
    """A layer that is made before an app asks for it."""

    bake_id: str
    kind: str
    template: str
    state: str
    """`building`, `ready` or `failed`."""
    message: str = ""
    """What it is at, or what went wrong."""
    key: str = ""
    """Of the layer, once it is there."""


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines of an app's log (the fields of `vibed.supervision.runlogs.Line`), each with the position behind it."""

    lines: Sequence[tuple[Mapping[str, Any], str]]
    position: str


class ControllerLink:
    """The client's side; reconnects by itself. Calls raise `Disconnected` while the controller is down. `where` is its
    socket, or finds out where it is now, for each connection anew: `Disconnected` where nobody leads.
    """

    def __init__(self, where: Path | Callable[[], Awaitable[Path | Remote]]) -> None:
        self._where = where
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()

    async def _call(self, op: str, *, timeout: float, **arguments: object) -> dict[str, Any]:
        """`timeout` bounds all of it: the kernel connects to a process that is stopped, too."""
        try:
            async with asyncio.timeout(timeout):
                return await (await self._connected()).call(op, timeout=None, **arguments)
        except TimeoutError as error:
            # its machine may be gone, and say nothing for a quarter of an hour
            await self.close()
            raise Disconnected(f"the controller did not answer {op!r} in {timeout:g} s") from error

    async def _connected(self) -> Connection:
        connection = self._connection
        if connection is None or connection.closed.done():
            async with self._connecting:
                if self._connection is None or self._connection.closed.done():
                    where = self._where if isinstance(self._where, Path) else await self._where()
                    self._connection = await Connection.open(where, timeout=2.0)
                connection = self._connection
        return connection

    async def wake(self, app_id: str) -> None:
        """Say that an app's spec has changed."""
        await self._call("wake", app_id=app_id, timeout=5.0)

    async def prepare(self, app_id: str, source_digest: str, runtime: Runtime) -> None:
        """Say which version will probably be stored in a moment."""
        await self._call(
            "prepare",
            app_id=app_id,
            digest=source_digest,
            template=runtime.template,
            strip=runtime.strip,
            root=runtime.root,
            entrypoint=runtime.entrypoint,
            bundle=runtime.bundle or runtime.build is not None,
            timeout=5.0,
        )

    async def settle(self, app_id: str, version: int, *, timeout_s: float, trace: str = "") -> Outcome:
        """Wake, then wait until the version is Ready or Failed, waits for something slow, or time is up. `trace`: of
        what the version's runs are a part (`vibed.tracing`).
        """
        wanted: dict[str, Any] = {"app_id": app_id, "version": version, "timeout_s": timeout_s, "trace": trace}
        return _outcome(await self._call("settle", timeout=timeout_s + GRACE_S, **wanted))

    async def ensure(self, app_id: str, *, timeout_s: float) -> Outcome:
        """Bring an app up whose name leads nowhere; Ready: it reaches it now."""
        return _outcome(await self._call("ensure", app_id=app_id, timeout_s=timeout_s, timeout=timeout_s + GRACE_S))

    async def templates(self) -> Sequence[TemplateFigures]:
        """Every template with real figures."""
        answer = await self._call("templates", timeout=5.0)
        return [TemplateFigures(**item) for item in answer["items"]]

    async def layers(self) -> Sequence[LayerFigures]:
        """What was installed for apps, the last used first."""
        answer = await self._call("layers", timeout=10.0)
        return [LayerFigures(**item) for item in answer["items"]]

    async def bake(self, digest: str, strip: str, template: str, install: Install, owner: str) -> BakeFigures:
        """Have a layer made of a source's lists, out of band. Raises `VibedError` where nothing is installed here."""
        wanted = {"digest": digest, "strip": strip, "template": template, "install": asdict(install), "owner": owner}
        return BakeFigures(**(await self._call("bake", timeout=20.0, **wanted))["bake"])

    async def baked(self, bake_id: str) -> BakeFigures:
        """How that stands. Raises `NotFound`."""
        return BakeFigures(**(await self._call("baked", timeout=5.0, bake_id=bake_id))["bake"])

    async def pin_layer(self, key: str, *, pinned: bool) -> None:
        """Have a layer stay, or go when it is not used any more. Raises `NotFound`."""
        await self._call("pin_layer", timeout=10.0, key=key, pinned=pinned)

    async def remove_layer(self, key: str) -> None:
        """Have a layer go. Raises `NotFound`, and `LayerInUse` where apps have it."""
        await self._call("remove_layer", timeout=10.0, key=key)

    async def log_page(self, app_id: str, position: str, *, tail: int | None, limit: int) -> LogPage:
        """Up to `limit` lines of an app's log after `position`; with `tail`, after that many from its end."""
        wanted: dict[str, Any] = {"app_id": app_id, "position": position, "tail": tail, "limit": limit}
        return LogPage(**await self._call("log_page", timeout=10.0, **wanted))

    async def failing(self, app_id: str) -> str | None:
        """How the first request of the run that serves failed (`vibed.supervision.failing`)."""
        answer = await self._call("failing", timeout=10.0, app_id=app_id)
        return None if answer["told"] is None else str(answer["told"])

    async def texts(self, domain: str) -> Sequence[str]:
        """What the DNS says where a domain's record belongs (TXT). Raises `DnsUnavailable`."""
        return list((await self._call("texts", timeout=20.0, domain=domain))["texts"])

    async def lead(self) -> None:
        """Say that the domains in the store have changed; they lead as it says when this returns."""
        await self._call("lead", timeout=5.0)

    async def metrics(self) -> str:
        """The controller's metrics in Prometheus' text format."""
        return str((await self._call("metrics", timeout=5.0))["text"])

    async def health(self) -> dict[str, Any]:
        """`{"ok": bool, "checks": {name: {"ok", "detail"}}}`: store, drivers, router."""
        return await self._call("health", timeout=5.0)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


def _outcome(answer: dict[str, Any]) -> Outcome:
    return Outcome(**{**answer, "phase": Phase(answer["phase"])})
