"""Driver `workerd`: one V8 isolate, alone in its own workerd process, which is alone in its own `process` sandbox.

A warm sandbox is a workerd with the shim (`shim/`) and no worker in it. A run builds the worker code, which the
supervisor posts to the shim's admin socket; static assets are unpacked into a folder that the sandbox sees read-only.
The sandbox has no network at all: its sockets come from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import platform
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vibed.apps.app import Runtime
from vibed.classify.host_rules import Rules, host_rules
from vibed.classify.tree import decoded
from vibed.classify.unpublished import unpublished
from vibed.drivers import probing
from vibed.drivers.ahead import Ahead
from vibed.drivers.workerd import code as worker_code
from vibed.drivers.workerd.bundling import bundle
from vibed.sandboxes.driver import Isolation, Limits, Probe, Prospect, Run, RunFailed, Sandbox
from vibed.sources.errors import ArchiveError
from vibed.sources.extraction import extract, file_paths, iter_files
from vibed.sources.limits import ArchiveLimits
from vibed.sources.reader import read_table
from vibed.supervision.base import SupervisedDriver
from vibed.supervision.cgroups import Bounds, Group
from vibed.supervision.host import Host
from vibed.supervision.place import Place
from vibed.supervision.roots import Root
from vibed.supervision.supervised import Supervised

TEMPLATE = "workerd"
_LOADER = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}
_LIBRARIES = ("libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0")
_DEFAULT = Limits(cpus=1.0, memory_mb=192, pids=64, disk_mb=128)
_HEAP_MB = 96
"""What JavaScript objects may take; the group bounds everything else (ArrayBuffers are outside V8's heap)."""
_MAX_SOURCE_BYTES = 16 << 20
_MAX_BINARY_BYTES = 32 << 20


class WorkerdDriver(SupervisedDriver):
    """Makes sandboxes of template `workerd`."""

    name = "workerd"
    isolation = Isolation.ISOLATE

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        # on disk and not in the sandbox's own folder, which lies in memory; a reboot makes it another vibeD's rubbish
        self._assets = host.layout.sites / boot / ".assets"
        self._libraries = _libraries()
        self._ahead: Ahead[dict[str, object] | None] = Ahead()
        self._laying: dict[str, asyncio.Future[tuple[dict[str, str], Rules]]] = {}
        """By sandbox: the thread that unpacks its assets."""

    async def probe(self) -> Probe:
        """Load a worker in a fresh sandbox and get an answer from it."""
        source = {"worker.js": b"export default { fetch(request, env) { return new Response(env.WORD) } }"}
        runtime = Runtime("fast", TEMPLATE, "worker", "worker.js", "probe")
        return await probing.probe(self, TEMPLATE, source, runtime, {"WORD": "probed"}, _DEFAULT, b"probed")

    def default_limits(self, root: Root) -> Limits:
        """Of a warm shim."""
        return _DEFAULT

    def bounds(self, limits: Limits) -> Bounds:
        """Less than the floor of workerd itself would only ever fail."""
        return Bounds(max(limits.memory_mb, 64) << 20, limits.cpus, max(limits.pids, 64))

    def lay_out(
        self, folder: Path, place: Place, root: Root, group: Group, *, urgent: bool, builder: bool
    ) -> dict[str, object]:
        assets = self._assets / place.id
        assets.mkdir(mode=0o711, parents=True)
        program = str(self.host.programs.path("workerd"))
        entries: list[dict[str, Any]] = [
            {"type": "tmpfs", "target": "/tmp", "size": 32 << 20, "mode": "1777"},
            {"type": "bind", "source": program, "target": "/workerd", "ro": True},
            {"type": "bind", "source": str(assets), "target": "/assets", "ro": True},
            {"type": "proc", "target": "/proc"},
            {"type": "dev", "target": "/dev"},
            *({"type": "bind", "source": source, "target": target, "ro": True} for source, target in self._libraries),
            *(
                {"type": "file", "target": f"/shim/{name}", "content": text}
                for name, text in worker_code.shim(_HEAP_MB).items()
            ),
        ]
        confine: dict[str, object] = {
            "userns": True,
            "namespaces": ["mount", "pid", "net", "ipc", "uts", "cgroup"],
            "hostname": "worker",
            "root": entries,
            "cwd": "/",
            "env": {},
            "capabilities": [],
            "seccomp": "default",
            "landlock": {"ro": ["/"], "rw": ["/tmp", "/dev"]},
            "rlimits": {"nproc": 128, "nofile": 4096, "core": 0},
            "die_with_parent": True,
        }
        if self.host.privileged:
            confine |= {"uid": place.uid, "gid": place.uid}
        return {
            "kind": "worker",
            "command": [
                "/workerd",
                "serve",
                "--experimental",
                "--socket-fd=http={http_fd}",
                "--socket-fd=admin={admin_fd}",
                "/shim/shim.capnp",
            ],
            "confine": confine,
            "sockets": {"http": str(place.folder / "http.sock"), "admin": str(place.folder / "admin.sock")},
        }

    def prepare(self, prospect: Prospect) -> None:
        """Read the modules of a worker that is not bundled."""
        if prospect.entrypoint and not prospect.bundle:
            self._ahead.begin(*self._reading(prospect.source, prospect.strip, prospect.entrypoint, bundled=False))

    async def close(self) -> None:
        """As every driver."""
        await super().close()
        await self._ahead.close()

    async def order(self, sandbox: Supervised, run: Run) -> dict[str, object]:
        """Build the worker code, bundled where it has to be, and lay out its assets."""
        if run.runtime.entrypoint:
            modules, entry = await self._modules(sandbox, run)
        else:
            modules, entry = {}, ""
        folder = run.runtime.site_folder
        assets: dict[str, str] | None = None
        rules = Rules()
        if folder is not None:
            laying = asyncio.get_running_loop().run_in_executor(None, self._lay_out_assets, sandbox.place, run, folder)
            self._laying[sandbox.place.id] = laying
            laying.add_done_callback(lambda _: self._laying.pop(sandbox.place.id))
            assets, rules = await asyncio.shield(laying)
        code = worker_code.build(run.runtime, run.env, modules, entry, assets, rules)
        path = sandbox.place.folder / "worker.json"
        path.touch(0o600)
        path.write_text(json.dumps(code))
        return {"worker": str(path)}

    def tidy(self, place: Place) -> None:
        """Remove the worker code: it is in memory twice otherwise, here and in the worker."""
        (place.folder / "worker.json").unlink(missing_ok=True)

    async def adopt(self) -> Sequence[Sandbox]:
        """As every driver; assets of sandboxes that are gone are removed."""
        adopted = await super().adopt()
        alive = {sandbox.place.id for sandbox in self._sandboxes}
        with contextlib.suppress(FileNotFoundError):
            for folder in self._assets.iterdir():
                if folder.name not in alive:
                    await asyncio.to_thread(shutil.rmtree, folder, True)
        return adopted

    async def clean(self, place: Place, group: Group, state: Mapping[str, Any], *, lost: bool) -> None:
        """As every driver, and the assets."""
        await super().clean(place, group, state, lost=lost)
        await asyncio.to_thread(shutil.rmtree, self._assets / place.id, True)
        if laying := self._laying.get(place.id):
            # it usually ends at that; but what it wrote in between may have kept its folder there
            await asyncio.wait([laying])
            await asyncio.to_thread(shutil.rmtree, self._assets / place.id, True)

    async def _modules(self, sandbox: Supervised, run: Run) -> tuple[dict[str, object], str]:
        entry = run.runtime.entrypoint.removeprefix("./")
        if not run.runtime.bundle:
            bundled = run.runtime.options.get("bundled") is True
            reading = self._reading(run.source, run.runtime.strip, run.runtime.entrypoint, bundled=bundled)
            modules = await self._ahead.take(*reading)
            if modules is not None:
                return modules, entry
        root = self.host.roots.root(run.runtime.template)
        modules = worker_code.bundled(await bundle(self.host, root, run, entry))
        module = modules[worker_code.BUNDLE]
        assert isinstance(module, Mapping)
        text = str(module["js"])
        if any(f"{kind}{end}" in text for kind in worker_code.BINARIES for end in ('"', "?")):
            files = await asyncio.to_thread(_binaries, run.source, run.runtime.strip, self.host.limits)
            modules = worker_code.with_binaries(text, files)
        return modules, worker_code.BUNDLE

    def _reading(
        self, source: Path, strip: str, entrypoint: str, *, bundled: bool
    ) -> tuple[Hashable, Callable[[], dict[str, object] | None]]:
        what = (source, strip, entrypoint.removeprefix("./"), bundled)
        return what, partial(_plain, *what, self.host.limits)

    def _lay_out_assets(self, place: Place, run: Run, folder: str) -> tuple[dict[str, str], Rules]:
        """Blocking: unpack them; returns their etags by path, and the rules that they bring."""
        prefix = run.runtime.strip + folder
        try:
            limits = self.host.limits
            table = read_table(run.source, limits)

            def text(path: str) -> str:
                return decoded(table.texts.get(prefix + path, b""))

            names = frozenset(file_paths(table, prefix))
            if not names:
                raise RunFailed(f"the folder of static assets, {folder!r}, is not in the source", code="InjectFailed")
            entry = run.runtime.entrypoint.removeprefix("./")
            code = {entry.removeprefix(folder)} if entry.startswith(folder) else set()
            links = frozenset(entry.target[len(prefix) :] for entry in table.entries if entry.target)
            left_out = (unpublished(names, text) | code) - links
            owner = (place.uid, place.uid) if self.host.privileged else None
            into = self._assets / place.id / "site"
            extract(
                run.source,
                table,
                into,
                strip=prefix,
                file_mode=0o440,
                dir_mode=0o550,
                owner=owner,
                without=left_out,
                limits=limits,
            )
        except ArchiveError as error:
            raise RunFailed(error.message, code=error.error_code, hint=error.hint) from error
        version = run.source.name[:12]
        etags = {name: f'"{version}-{number}"' for number, name in enumerate(sorted(names - left_out))}
        return etags, host_rules(text, "")


def _plain(source: Path, strip: str, entry: str, bundled: bool, limits: ArchiveLimits) -> dict[str, object] | None:
    """Blocking: the modules of a worker that needs no bundling, or was `bundled`; None for one that needs it."""
    try:
        table = read_table(source, limits)
        files: dict[str, bytes] = {}
        size = 0
        for name, content in iter_files(source, table, strip=strip, limits=limits):
            if name != entry and (name.startswith("node_modules/") or not name.endswith(worker_code.MODULES)):
                continue
            size += len(content)
            if size > _MAX_SOURCE_BYTES:
                return None
            files[name] = content
    except ArchiveError as error:
        raise RunFailed(error.message, code=error.error_code, hint=error.hint) from error
    if entry not in files:
        raise RunFailed(f"the worker's entry point {entry!r} is not in the source", code="InjectFailed")
    return worker_code.built(files, entry) if bundled else worker_code.plain(files, entry)


def _binaries(source: Path, strip: str, limits: ArchiveLimits) -> dict[str, bytes]:
    """Blocking: the files of a source that can be modules without being text."""
    try:
        files = iter_files(source, read_table(source, limits), strip=strip, limits=limits)
        found = {name: content for name, content in files if name.endswith(tuple(worker_code.BINARIES))}
    except ArchiveError as error:
        raise RunFailed(error.message, code=error.error_code, hint=error.hint) from error
    if sum(map(len, found.values())) > _MAX_BINARY_BYTES:
        raise RunFailed(
            f"the worker's .wasm and .bin files have more than {_MAX_BINARY_BYTES >> 20} MB", code="BundleFailed"
        )
    return found


def _libraries() -> list[tuple[str, str]]:
    """(file on the host, path inside) of the C library that workerd is linked to, and of nothing else."""
    loader = _LOADER[platform.machine()]
    folder = Path(f"/usr/lib/{platform.machine()}-linux-gnu")
    if not (folder / _LIBRARIES[0]).exists():
        folder = Path(loader).resolve().parent
    found = [(str(Path(loader).resolve()), loader)]
    found += [(str((folder / name).resolve()), f"/lib/{name}") for name in _LIBRARIES if (folder / name).exists()]
    return found
