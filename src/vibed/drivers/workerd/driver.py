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
from vibed.classify.host_rules import Rules
from vibed.drivers import probing
from vibed.drivers.ahead import Ahead
from vibed.drivers.workerd import code as worker_code
from vibed.drivers.workerd.bundling import bundle
from vibed.drivers.workerd.source import as_it_is, lay_out, of_bundle
from vibed.sandboxes.driver import Isolation, Limits, Probe, Prospect, Run, Sandbox
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
                for name, text in worker_code.shim().items()
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
            place, limits = sandbox.place, self.host.limits
            owner = (place.uid, place.uid) if self.host.privileged else None
            into = self._assets / place.id / "site"
            laying = asyncio.get_running_loop().run_in_executor(None, lay_out, run, folder, into, owner, limits)
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
        output = await bundle(self.host, root, run, entry)
        return await asyncio.to_thread(of_bundle, output, run, self.host.limits), worker_code.BUNDLE

    def _reading(
        self, source: Path, strip: str, entrypoint: str, *, bundled: bool
    ) -> tuple[Hashable, Callable[[], dict[str, object] | None]]:
        what = (source, strip, entrypoint.removeprefix("./"), bundled)
        return what, partial(as_it_is, *what, self.host.limits)


def _libraries() -> list[tuple[str, str]]:
    """(file on the host, path inside) of the C library that workerd is linked to, and of nothing else."""
    loader = _LOADER[platform.machine()]
    folder = Path(f"/usr/lib/{platform.machine()}-linux-gnu")
    if not (folder / _LIBRARIES[0]).exists():
        folder = Path(loader).resolve().parent
    found = [(str(Path(loader).resolve()), loader)]
    found += [(str((folder / name).resolve()), f"/lib/{name}") for name in _LIBRARIES if (folder / name).exists()]
    return found
