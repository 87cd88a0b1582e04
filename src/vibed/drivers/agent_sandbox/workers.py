"""A worker for a pod: the worker code and the static assets, packed as one object that its agent unpacks.

What is in it is what a worker gets on one machine (`vibed.drivers.workerd`). What has to be bundled is bundled in the
pod that will run it, before anything else is there: esbuild reads whatever a source names, and finds that source, the
template's packages and an image without secrets.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vibed.apps.app import Runtime
from vibed.classify.host_rules import Rules
from vibed.drivers.packing import add, compressed, needed
from vibed.drivers.workerd import code
from vibed.drivers.workerd.bundling import MAX_BUNDLE_BYTES, refusal
from vibed.drivers.workerd.source import as_it_is, lay_out
from vibed.sandboxes.driver import Run, RunFailed, SandboxLost
from vibed.sources.extraction import unpacked_tree
from vibed.sources.limits import ArchiveLimits
from vibed.sources.reader import read_table
from vibed.sources.table import ArchiveTable
from vibed.wire import Message, WireError

KIND = "worker"
CODE = "worker.json"
"""In the object, beside the folder `site` of the assets; the agent hands it to the worker and removes it."""
PROGRAM = "/usr/bin/workerd"
BUNDLER = "/usr/bin/esbuild"
MODULES = "/modules"
"""In the image of the template: the packages that a worker may import."""
SHIM = "/usr/lib/vibed/worker"
ASSETS = "/app"
COMMAND = (PROGRAM, "serve", "--experimental", "--socket-fd=http={http_fd}", "--socket-fd=admin={admin_fd}")
"""And the shim's configuration; the agent fills in the descriptors."""

_BUNDLE_S = 60.0
_PIECE_S = 20.0

Ask = Callable[..., Awaitable[Message]]
"""An operation of the pod's agent, its seconds, and its arguments; raises `WireError`."""


def command() -> list[str]:
    """What the agent of a worker's pod runs."""
    return [*COMMAND, f"{SHIM}/shim.capnp"]


def as_modules(run: Run, limits: ArchiveLimits) -> dict[str, object] | None:
    """The modules of a worker whose source is that already; None where it has to be bundled. Blocking. Raises
    `RunFailed`.
    """
    runtime = run.runtime
    if not runtime.entrypoint:
        return {}
    if runtime.bundle:
        return None
    bundled = runtime.options.get("bundled") is True
    return as_it_is(run.source, runtime.strip, _entry(runtime), bundled, limits)


async def bundle(run: Run, source: dict[str, object], ask: Ask) -> bytes:
    """The bundle that esbuild makes of it in the pod. Raises `RunFailed`, `SandboxLost`, `WireError`."""
    entry = _entry(run.runtime)
    arguments = code.esbuild_arguments(entry, run.runtime)
    try:
        said = await ask("bundle", _BUNDLE_S, source=source, strip=run.runtime.strip, arguments=arguments)
    except WireError as error:
        if error.error_code == "BundleFailed" and error.extra.get("said"):
            raise refusal(str(error.extra["said"]), run) from error
        raise
    size = int(said["size"])
    if size > MAX_BUNDLE_BYTES:
        raise RunFailed(f"the bundle is larger than {MAX_BUNDLE_BYTES >> 20} MB", code="BundleFailed")
    pieces = bytearray()
    while len(pieces) < size:
        piece = base64.b64decode((await ask("bundled", _PIECE_S, at=len(pieces)))["data"])
        if not piece:
            raise SandboxLost(f"the pod had {len(pieces)} bytes of a bundle of {size}")
        pieces += piece
    return bytes(pieces)


@dataclass(frozen=True, slots=True)
class Planned:
    """A worker that is to be packed (`vibed.drivers.packing.Plan`)."""

    run: Run
    modules: Mapping[str, object]
    table: ArchiveTable | None
    """Of the source, where there are assets in it."""
    limits: ArchiveLimits
    needs: int

    def pack(self, folder: Path) -> Path:
        """A tar.gz with the worker's code and its assets."""
        run, runtime = self.run, self.run.runtime
        place, archive = folder / "site", folder / "packed.tar.gz"
        assets: dict[str, str] | None = None
        rules = Rules()
        if self.table is not None and runtime.site_folder is not None:
            assets, rules = lay_out(run, runtime.site_folder, place, None, self.limits, self.table)
        entry = code.BUNDLE if code.BUNDLE in self.modules else _entry(runtime) if self.modules else ""
        text = json.dumps(code.build(runtime, run.env, dict(self.modules), entry, assets, rules)).encode()
        with compressed(archive) as tar:
            add(tar, CODE, text, 0o600)
            if assets is not None:
                tar.add(place, place.name)
        shutil.rmtree(place, ignore_errors=True)
        return archive


def planned(run: Run, modules: Mapping[str, object], limits: ArchiveLimits) -> Planned:
    """By the table of its source. Blocking. Raises `ArchiveError`."""
    folder = run.runtime.site_folder
    needs = 2 * len(json.dumps(modules)) + needed((0, 1))
    if folder is None:
        return Planned(run, modules, None, limits, needs)
    table = read_table(run.source, limits)
    return Planned(run, modules, table, limits, needs + needed(unpacked_tree(table, run.runtime.strip + folder)))


def _entry(runtime: Runtime) -> str:
    return runtime.entrypoint.removeprefix("./")
