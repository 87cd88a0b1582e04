"""Builds for apps: found, or made once however many ask, in a builder sandbox that has what was installed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from vibed import records
from vibed.apps.app import Build
from vibed.apps.errors import VibedError
from vibed.classify.site import Site
from vibed.classify.tree import Tree
from vibed.runtimes.builds import go, lost, worker
from vibed.runtimes.builds.built import Built, build_key
from vibed.runtimes.builds.store import BuiltStore
from vibed.runtimes.builds.words import cause
from vibed.runtimes.layers.compiler_words import wants_compiler
from vibed.runtimes.layers.keys import Base
from vibed.runtimes.layers.layer import Layer
from vibed.runtimes.layers.provider import Layers
from vibed.runtimes.layers.steps import Done, Order, StepFailed
from vibed.runtimes.once import Interrupted, Once, Unwanted
from vibed.runtimes.turn import Turn, one_after_another
from vibed.sandboxes.driver import RunFailed
from vibed.sources.errors import ArchiveError
from vibed.sources.limits import DEFAULT_LIMITS, ArchiveLimits
from vibed.sources.reader import read_table
from vibed.sources.table import Kind

log = records.logger("vibed.builds")

MOST_BYTES = 5 << 30
"""Of all that was built together."""
UNUSED_S = 30 * 86_400.0
_READ_ONLY = re.compile(
    r"\bEROFS\b|[Rr]ead-only file ?system"
    # what Node makes of it for folders in folders
    r"|\b(?:ENOENT|EACCES|EPERM)\b[^\n]{0,200}\b(?:mkdir|open|copyfile|rename|unlink|symlink)\b[^\n]{0,20}/layers/node/"
)
_OLD_HASHES = re.compile(r"\bERR_OSSL_EVP_UNSUPPORTED\b|digital envelope routines::unsupported")
"""What webpack 4 and before (Create React App 4, Vue CLI 4, Nuxt 2 …) ends with on Node 17 and newer, whose OpenSSL has
MD4 only where it is asked for."""
_LEGACY = "--openssl-legacy-provider"
_OTHERWISE = 3
"""How often a build is tried with what it turned out to need."""


class Steps(Protocol):
    """Who performs steps (`vibed.runtimes.layers.work.Workshop`)."""

    async def perform(self, order: Order, place: Path, log_dir: Path) -> Done: ...


class BuildUnavailable(VibedError):
    """Nothing can be built now, which is not the app's fault."""

    code = "BuildUnavailable"
    status = 503
    retryable = True


class Builds:
    """What was built for the apps of one vibeD."""

    def __init__(
        self,
        store: BuiltStore,
        steps: Steps,
        *,
        base: Callable[[str], Base | None],
        layers: Layers | None = None,
        turn: Turn | None = None,
        limits: ArchiveLimits = DEFAULT_LIMITS,
    ) -> None:
        """`base`: what is in a template, None while it is not there. `layers` has toolchains that a build turns out to
        need. `turn`: of each build; None: one by one.
        """
        self._store = store
        self._steps = steps
        self._base = base
        self._layers = layers
        self._turn = turn or one_after_another()
        self._limits = limits
        self._once: Once[Built] = Once()

    def prepare(self) -> None:
        """Blocking: make the folder, and clear what an earlier vibeD left. Raises OSError."""
        self._store.prepare()

    async def provide(
        self,
        build: Build,
        *,
        layer: Layer | None,
        source: Path,
        source_digest: str,
        strip: str,
        env: Mapping[str, str],
        owner: str,
        app_id: str,
        log_dir: Path,
        on_step: Callable[[str], None],
        wanted: Callable[[], bool],
    ) -> Built:
        """What the build makes of a source with what was installed. `env`: what the owner says to it. `on_step` hears
        what it is at; nothing, when it is there already.

        Raises `RunFailed` (`BuildFailed`; `Stopped` when it is wanted no more), `BuildUnavailable` and other errors
        that are no fault of the app.
        """
        base = self._base(build.template)
        if base is None:
            raise BuildUnavailable(f"template {build.template} is not built yet")
        key = build_key(
            build, base, env, source=source_digest, strip=strip, layer=layer.key if layer is not None else ""
        )
        try:
            found = await asyncio.to_thread(self._store.find, key)
        except OSError as error:
            raise BuildUnavailable(f"what was built is not here, and {error.strerror or error}") from error
        if found is not None:
            return found
        mounts = (layer.mount,) if layer is not None else ()
        told = layer.env if layer is not None and build.kind == "go" else {}
        request = {**_request(build, env), "folders": list(layer.folders) if layer is not None else []}
        order = Order(_PROGRAMS[build.kind], build.template, request, source, strip, mounts, env=told, own=True)

        async def make(say: Callable[[str], None]) -> Built:
            doing, left = order, _OTHERWISE
            while True:
                try:
                    async with self._turn(owner=owner, app_id=app_id):
                        say(build.doing)
                        return await self._make(key, build, doing, layer, log_dir)
                except StepFailed as error:
                    # beyond the turn: what it needs may be made in one
                    if build.kind == "go":
                        other = await go.otherwise(self._layers, doing, error, owner, app_id, log_dir, say)
                    else:
                        other = _writable(doing, error) or _compiling(doing, error) or _with_old_hashes(doing, error)
                    if other is None or not left:
                        raise await self._failure(build, env, error, source, strip) from error
                    doing, left = other, left - 1

        try:
            return await self._once.get(key, make, on_step=on_step, wanted=wanted)
        except Unwanted:
            raise RunFailed("it was stopped while it was built", code="Stopped") from None
        except Interrupted:
            raise BuildUnavailable("the build was interrupted") from None

    async def close(self) -> None:
        """End what is in the making."""
        await self._once.close()

    async def _make(self, key: str, build: Build, order: Order, layer: Layer | None, log_dir: Path) -> Built:
        began = time.monotonic()
        with self._store.making() as place:
            try:
                try:
                    done = await self._steps.perform(order, place, log_dir)
                except OSError as error:
                    why = error.strerror or error
                    raise BuildUnavailable(f"what it makes could not be taken in: {why}") from error
                if done.archive is None:
                    raise StepFailed("nothing came of it")
                made = await asyncio.to_thread(self._read, key, build, done.archive)
            except ArchiveError as error:
                raise RunFailed(
                    f"what the build made cannot be used: {error.message}", code=go.FAILED, hint=error.hint
                ) from error
            took_s = time.monotonic() - began
            try:
                if done.image is not None and layer is not None:
                    made = await asyncio.to_thread(
                        self._store.keep_packages, made, done.image, layer, template=build.template, took_s=took_s
                    )
                kept = await asyncio.to_thread(self._store.keep, made, took_s=took_s)
            except OSError as error:
                raise BuildUnavailable(f"what was built could not be kept: {error.strerror or error}") from error
        with contextlib.suppress(OSError):
            gone = await asyncio.to_thread(self._store.tidy, most_bytes=MOST_BYTES, unused_s=UNUSED_S)
            if gone:
                log.info("builds went", keys=[key[:12] for key in gone])
        return kept

    async def _failure(
        self, build: Build, env: Mapping[str, str], error: StepFailed, source: Path, strip: str
    ) -> RunFailed:
        if (told := _FAILURES.get(build.kind)) is not None:
            return told(build, error)
        of = lost.Project()
        with contextlib.suppress(ArchiveError, OSError):  # less is known of it then
            of = await asyncio.to_thread(lost.project, source, strip, self._limits)
        return _failure(build, error, of, {**build.env, **env})

    def _read(self, key: str, build: Build, archive: Path) -> Built:
        """What it is. Blocking. Raises ArchiveError."""
        table = read_table(archive, self._limits)
        made = Built(key, archive, build.site)
        paths = sorted(entry.path for entry in table.entries if entry.kind is not Kind.DIRECTORY)
        tree = Tree("", paths, dict(table.texts), table.texts_complete)
        if build.kind == "worker":
            return worker.read(made, tree)
        if not build.site:
            return made
        decision = Site(tree).decide("", "")
        return replace(
            made, index=decision.index, spa=decision.spa, base=decision.base, notes=tuple(decision.notes)
        )  # fmt: skip


def _writable(order: Order, error: StepFailed) -> Order | None:
    """The same with packages that can be written to, where the build failed since they could not; it is slower."""
    if order.request.get("copied") or not _READ_ONLY.search(error.said):
        return None
    return replace(order, request={**order.request, "copied": True})


def _compiling(order: Order, error: StepFailed) -> Order | None:
    """The same with compilers, where the build failed for want of them."""
    if order.compilers or not wants_compiler(error.said):
        return None
    return replace(order, compilers=True, request={**order.request, "compilers": True})


def _with_old_hashes(order: Order, error: StepFailed) -> Order | None:
    """The same with hashes of OpenSSL's past, where the build failed for want of one."""
    env = order.request.get("env", {})
    options = str(env.get("NODE_OPTIONS", ""))
    if _LEGACY in options or not _OLD_HASHES.search(error.said):
        return None
    return replace(order, request={**order.request, "env": {**env, "NODE_OPTIONS": f"{options} {_LEGACY}".strip()}})


def _request(build: Build, env: Mapping[str, str]) -> Mapping[str, Any]:
    if build.kind == "go":
        return go.request(build)
    if build.kind == "worker":
        return worker.request(build, env)
    return {
        "step": "build",
        "script": build.script,
        "site": build.site,
        "outputs": list(build.outputs),
        "env": {**build.env, **env},
        "copied": build.copied,
    }


def _failure(build: Build, error: StepFailed, of: lost.Project, env: Mapping[str, str]) -> RunFailed:
    """What the app's owner is told."""
    tool = f"{build.tool}: " if build.tool else ""
    hint, retryable = "", False
    made: Any = error.answer.get("made")
    if error.exit is not None and error.exit.oom:
        message = "it used more memory than a build may, and was ended"
        hint = "build it where there is more, and deploy the folder that this makes"
    elif isinstance(made, list):
        named = ", ".join(str(name) for name in made[:8])
        message = f"{build.script} ended well, and made no index.html" + (f"; it made {named}" if named else "")
        hint = "have it make a folder with an index.html, or deploy what it makes with a server of its own"
    else:
        message = cause(error.said) or str(error)
        hint = lost.hint(error.said, of)
    if error.unreachable:
        retryable = True
        hint = "retrying may help: a package registry could not be reached, or did not answer"
    else:
        hint = error.also(hint, "an app is built")
    hint = hint or lost.variables(error.said, [name for name in of.reads if name not in env])
    return RunFailed(
        f"the build failed ({tool}{build.script}): {message}",
        exit=error.exit,
        code=go.FAILED,
        hint=hint or None,
        retryable=retryable,
    )


_PROGRAMS = {"node": "build", "go": "go", "worker": "worker"}
"""What builds, by the kind of a build, as steps name it."""
_FAILURES = {"go": go.failure, "worker": worker.failure}
"""What tells of a failure; of a project of Node, `_failure` does."""
