"""What is run of a version: its source as it was sent, or what its own build makes of that (`vibed.runtimes.builds`).

A build is made outside of the places among starts, so that it delays nobody else's; while one is made, its app is
Pending with reason `BuildingDependencies`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from vibed.apps.app import App, Build, Runtime, Version
from vibed.controller.installing import Layer
from vibed.controller.run import LiveRun
from vibed.sandboxes.driver import RunFailed

_PUBLIC = (
    "VITE_", "NEXT_PUBLIC_", "REACT_APP_", "PUBLIC_", "NUXT_PUBLIC_", "VUE_APP_", "GATSBY_", "EXPO_PUBLIC_",
    "ASTRO_PUBLIC_", "NG_APP_", "PARCEL_", "SNOWPACK_PUBLIC_", "STORYBOOK_",
)  # fmt: skip
"""Variables that tools put into pages, by how their names begin: what else the owner says is no build's concern, since
the code of packages runs in it."""


class Built(Protocol):
    """What a build made (`vibed.runtimes.builds.built`)."""

    @property
    def archive(self) -> Path: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def packages(self) -> Layer | None:
        """What it runs with instead of what was installed for it."""
        ...

    def runtime(self, runtime: Runtime) -> Runtime:
        """How it is run."""
        ...


class Builds(Protocol):
    """What the controller needs of what builds (`vibed.runtimes.builds.provider`)."""

    async def provide(
        self,
        build: Build,
        *,
        layer: Any,
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
        """What the build makes of a source with what was installed, made where it is not there, once however many ask.
        `on_step` hears how far it is. Raises `RunFailed`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Material:
    """What a sandbox gets."""

    source: Path
    version: Version
    """As it is run."""
    layer: Layer | None


async def built(
    builds: Builds | None,
    run: LiveRun,
    version: Version,
    app: App,
    layer: Layer | None,
    *,
    source: Path,
    log_dir: Path,
    on_step: Callable[[], None],
) -> Material:
    """What is run of a version whose packages are in `layer`. `on_step` is called when there is news of a build.

    Raises `RunFailed`, with the code `Stopped` when the run was told to leave meanwhile.
    """
    build = version.runtime.build
    if build is None:
        return Material(source, version, layer)
    if builds is None:
        raise RunFailed(
            "it has to be built first, and this vibeD builds nothing",
            code="BuildRequired",
            hint="build it, and deploy what that makes; or ask the operator: it takes root, and neither layers = false"
            " nor builds = false",
        )

    def said(step: str) -> None:
        if not run.building:
            run.enter("building")
        run.building = f"its build: {step}"
        on_step()

    try:
        made = await builds.provide(
            build,
            layer=layer,
            source=source,
            source_digest=version.source_digest,
            strip=version.runtime.strip,
            env={name: value for name, value in version.env.items() if name.startswith(_PUBLIC)},
            owner=app.owner,
            app_id=app.app_id,
            log_dir=log_dir,
            on_step=said,
            wanted=lambda: not run.leaving,
        )
    finally:
        run.building = ""
    runtime = made.runtime(version.runtime)
    # a compiled program needs nothing of what compiled it, nor does a bundle
    needed = None if build.site or build.kind in ("go", "worker") else made.packages or layer
    return Material(made.archive, replace(version, runtime=runtime), needed)
