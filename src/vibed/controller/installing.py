"""What a version needs installed, before it starts: the port to what makes layers, and how a run waits for one.

A layer is made outside of the places among starts, so that it delays nobody else's; while one is made, its app is
Pending with reason `BuildingDependencies`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from vibed.apps.app import App, Install, Version
from vibed.controller.run import LiveRun
from vibed.runtimes.layers.asker import Asker
from vibed.sandboxes.driver import Mount, RunFailed


class Layer(Protocol):
    """What was installed, and what a sandbox has to be told to use it (`vibed.runtimes.layers.layer`)."""

    @property
    def key(self) -> str: ...
    @property
    def mount(self) -> Mount: ...
    @property
    def env(self) -> Mapping[str, str]: ...
    @property
    def links(self) -> Mapping[str, str]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def packages(self) -> Mapping[str, str]: ...


class LayerFacts(Protocol):
    """A layer as the operator sees it; times are Unix seconds."""

    @property
    def key(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def template(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def packages(self) -> Mapping[str, str]: ...
    @property
    def made_at(self) -> float: ...
    @property
    def used_at(self) -> float: ...
    @property
    def took_s(self) -> float: ...
    @property
    def private(self) -> bool: ...
    @property
    def builds(self) -> int: ...
    @property
    def pinned(self) -> bool: ...


class Layers(Protocol):
    """What the controller needs of what makes layers (`vibed.runtimes.layers.provider`)."""

    def ready(self, template: str) -> bool:
        """Whether something can be installed on a template, whose image may be made anew."""
        ...

    def find(self, install: Install, asker: Asker) -> Layer | None:
        """The layer, if it is there. Blocks. Raises `RunFailed`, with `unmet` for what was set aside."""
        ...

    def set_aside(self, install: Install, asker: Asker, failed: RunFailed) -> None:
        """Remember that this template cannot have what another one had. Blocks. Raises `RunFailed`, `OSError`."""
        ...

    async def provide(
        self,
        install: Install,
        asker: Asker,
        *,
        log_dir: Path,
        on_step: Callable[[str], None],
        wanted: Callable[[], bool],
        compiles: bool = True,
    ) -> Layer:
        """The layer, made where it is not there, once however many ask. `on_step` hears how far it is, in words that
        follow a colon. Without `compiles`, what has to be compiled is not. Raises `RunFailed`, with `unmet` where
        another version of the language may have it. Cancelling gives up waiting; what nobody waits for is ended.
        """
        ...

    def listing(self) -> Sequence[LayerFacts]:
        """All that are there. Blocks."""
        ...

    def pin(self, key: str, *, pinned: bool) -> bool:
        """Have a layer stay, or not; whether there is one. Blocks. Raises `OSError`."""
        ...

    def remove(self, key: str) -> None:
        """Have one go. Blocks. Raises `OSError`."""
        ...


def asker_of(version: Version, app: App, source: Path) -> Asker:
    runtime = version.runtime
    template = runtime.build.template if runtime.build is not None else runtime.template
    return Asker(template, source, version.source_digest, runtime.strip, app.owner, app.app_id)


async def installed(
    layers: Layers | None,
    run: LiveRun,
    version: Version,
    app: App,
    *,
    source: Path,
    log_dir: Path,
    on_step: Callable[[], None],
    compiles: bool = True,
) -> Layer | None:
    """The layer that a run needs, None when it needs none. `on_step` is called when there is news of it.

    Raises `RunFailed`, with the code `Stopped` when the run was told to leave meanwhile.
    """
    install = version.runtime.install
    if install is None:
        return None
    if layers is None:
        raise RunFailed(
            "it needs packages that the template does not have, and this vibeD installs none",
            code="DependenciesMissing",
            hint="use what the template has (vibed templates), or ask the operator: it takes root, and layers = true",
        )

    def said(step: str) -> None:
        run.building = f"its dependencies to be installed: {step}"
        on_step()

    asker = asker_of(version, app, source)
    found = await asyncio.to_thread(layers.find, install, asker)
    if found is not None:
        return found
    run.enter("building")
    said("waiting")
    work = asyncio.ensure_future(
        layers.provide(
            install,
            asker,
            log_dir=log_dir,
            on_step=said,
            wanted=lambda: not run.leaving,
            compiles=compiles,
        )
    )
    leaving = asyncio.ensure_future(run.left.wait())
    try:
        await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise RunFailed("it was stopped while its dependencies were installed", code="Stopped")
        return work.result()
    except OSError as error:
        # of this machine: a full disk, for one
        message = f"what it needs could not be installed: {error.strerror or error}"
        raise RunFailed(message, code="DependencyBuildFailed", retryable=True) from error
    finally:
        run.building = ""
        for task in (work, leaving):
            task.cancel()
        await asyncio.gather(work, leaving, return_exceptions=True)
