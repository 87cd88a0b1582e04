"""The driver: puts together claims, pods and the agents in them; keeps the pools as templates say.

`boot` costs nothing, because agent-sandbox keeps the pools warm: a sandbox is claimed when it is given a run. A
controller that ends leaves every pod as it is, and the next one finds them by their claims.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vibed import records
from vibed.apps.app import Runtime, Start
from vibed.apps.errors import VibedError
from vibed.cluster.client import Client
from vibed.cluster.kinds import SANDBOX_TEMPLATE, SANDBOX_WARM_POOL, Object
from vibed.drivers import general
from vibed.drivers.agent_sandbox import handing, sites, workers
from vibed.drivers.agent_sandbox.ahead import Ahead
from vibed.drivers.agent_sandbox.claims import (
    APP,
    BUILDER_APP,
    BY,
    MANAGED,
    SANDBOX_ID,
    SITES,
    Claims,
    Got,
    builders_of,
    claimed_of,
)
from vibed.drivers.agent_sandbox.line import NobodysYet
from vibed.drivers.agent_sandbox.log_room import LogRoom
from vibed.drivers.agent_sandbox.luggage import Luggage
from vibed.drivers.agent_sandbox.mirror import Mirror
from vibed.drivers.agent_sandbox.sandbox import PodSandbox
from vibed.drivers.agent_sandbox.shared_site import SharedSite
from vibed.drivers.agent_sandbox.shelf import Remote, Sent, Shelf
from vibed.drivers.agent_sandbox.signing import ClaimKeys
from vibed.drivers.agent_sandbox.site_pods import Bounds, SitePod, SitePods
from vibed.drivers.agent_sandbox.templates import (
    BUILDERS,
    PodSettings,
    Resources,
    Template,
    layer_mb,
    manifests,
    packed_mb,
)
from vibed.drivers.packing import Packing, packed, room_of
from vibed.drivers.workerd.source import of_bundle
from vibed.sandboxes.driver import (
    BootFailed,
    Builder,
    Claimed,
    Isolation,
    Limits,
    Mount,
    Probe,
    Prospect,
    Run,
    Sandbox,
    SandboxLost,
)
from vibed.sources.limits import DEFAULT_LIMITS, TAKEN, ArchiveLimits

log = records.logger("vibed.drivers.agent_sandbox")

_PROBE_APP = "vibed-probe"
_PROBE_S = 180.0
_WORKER = b"export default { fetch() { return new Response('ok') } }"
Send = Callable[[Path], Awaitable[str]]
"""Gives a pod a file; its digest."""
_AT_ONCE = 64
"""How many pods are met at the same time when they are taken over."""


@dataclass(frozen=True, slots=True)
class Place:
    """What the driver is told of where it is."""

    namespace: str
    """Of the apps."""
    owner_of: Callable[[str], str | None]
    """The UID of an app's VibedApp, which owns its claims."""
    log_dir: Callable[[str, int], Path]
    """Where the log of an app's run is copied to."""
    log_room: LogRoom | None = None
    """What all those copies may take; None: whatever they do."""
    led_to: Callable[[str], Sequence[Claimed]] = lambda address: ()
    """The runs whose apps' names lead to an address."""


class AgentSandboxDriver:
    """See the module's docstring."""

    name = "agent-sandbox"

    def __init__(
        self,
        client: Client,
        place: Place,
        keys: ClaimKeys,
        settings: PodSettings,
        *,
        shelf: Shelf | None = None,
        limits: ArchiveLimits = DEFAULT_LIMITS,
        builder: Builder | None = None,
    ) -> None:
        """`limits`: of sources that are taken, for as large ones of which packing has room; what was taken is not held
        to them again. `builder`: the bounds of builder sandboxes; None: there are none.
        """
        self._builder = builder
        self.keys = keys
        self.claims = Claims(client, place.namespace, place.owner_of)
        self._client = client
        self._place = place
        self._settings = settings
        self._shelf = shelf or Sent()
        self.packing = Packing(room_of(limits))
        self._ahead = Ahead(self.claims.unclaimed, keys, self._shelf, place.namespace)
        self.site_pods = SitePods(self._place_of, place.log_dir, settings.image_tag)
        self.site_bounds = Bounds(settings.sites_per_pod, settings.site_pod_mb << 20)
        self._templates: dict[str, Template] = {}
        self._sandboxes: set[PodSandbox] = set()
        self._isolation = Isolation.PROCESS
        self._heard: dict[PodSandbox, float] = {}
        """The two that were heard last, and when."""

    @property
    def isolation(self) -> Isolation:
        """What the last probe has measured; the least before it."""
        return self._isolation

    async def run(self) -> None:
        """Watch claims and pods until cancelled."""
        await self.claims.run()

    async def synced(self) -> None:
        """Return once all that is there is known."""
        await self.claims.synced()

    async def ensure_pools(self, templates: Mapping[str, Template], sizes: Mapping[str, int]) -> None:
        """Have the cluster keep a pool of each template, and one of its builders, and none of others. Raises
        `KubeError`.
        """
        usable = {name: one for name, one in templates.items() if one.unavailable is None}
        # a claim may come as soon as the first of them is there
        self._templates = dict(usable)
        made = [manifests(one, self._settings, self.keys.public, sizes.get(name, 0)) for name, one in usable.items()]
        if self._builder is not None:
            made += [
                # a claim without a warm pod gets one that is made for it: a builder takes its memory when it is needed
                manifests(one, self._settings, self.keys.public, sizes.get(builders_of(name), 0), self._builder)
                for name, one in usable.items()
                if one.kind in BUILDERS
            ]
        for template, pool in made:
            await self._client.apply(SANDBOX_TEMPLATE, template, namespace=self._place.namespace)
            await self._client.apply(SANDBOX_WARM_POOL, pool, namespace=self._place.namespace)
        wanted = {template["metadata"]["name"] for template, _ in made}
        for kind in (SANDBOX_WARM_POOL, SANDBOX_TEMPLATE):
            there = await self._client.objects(kind, namespace=self._place.namespace, labels=f"{MANAGED}={BY}")
            for one in there.items:
                if one["metadata"]["name"] not in wanted:
                    # those that are claimed stay
                    await self._client.delete(kind, one["metadata"]["name"], namespace=self._place.namespace)

    async def probe(self) -> Probe:
        """Serve a page from a sandbox, and ask its agent what it stands in."""
        began = time.perf_counter()
        if not self._templates:
            return Probe(False, self._isolation, "there are no pools yet, so it could not be tried")
        name = min(self._templates, key=lambda one: (one not in ("static-nginx", "python-313"), one))
        worker = self._templates[name].kind == workers.KIND
        folder = Path(tempfile.mkdtemp(prefix="vibed-probe-"))
        try:
            archive = folder / "source.tar.gz"
            archive.write_bytes(packed({"worker.js": _WORKER} if worker else {"index.html": b"ok\n"}))
            sandbox = PodSandbox(self, _id(), name, self._templates[name].definition_digest)
            self._sandboxes.add(sandbox)
            if worker:
                runtime = Runtime("fast", name, workers.KIND, "worker.js", "")
            else:
                start = Start(("/proc/self/exe", "site", "."))
                runtime = Runtime("general", name, "binary", "", "", start=start)
            run = Run(_PROBE_APP, 1, secrets.randbelow(10**9), archive, runtime, {}, Limits(), start_timeout_s=30)
            try:
                async with asyncio.timeout(_PROBE_S):
                    await sandbox.run(run, socket=folder, log_dir=folder / "log", on_stage=lambda stage: None)
            finally:
                await asyncio.shield(sandbox.destroy(0))
        except TimeoutError:
            return Probe(False, self._isolation, f"no page was served from a sandbox within {_PROBE_S:g} s")
        except (VibedError, OSError) as error:
            return Probe(False, self._isolation, str(error))
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)
        seen = sandbox.measured
        self._isolation = sandbox.isolation or Isolation.PROCESS
        took = (time.perf_counter() - began) * 1000
        evidence = "; ".join(str(one) for one in seen.get("evidence") or ())
        return Probe(True, self._isolation, f"served a page from a pod of {name} in {took:.0f} ms: {evidence}")

    async def boot(self, template: str, *, urgent: bool = False, builder: Builder | None = None) -> Sandbox:
        """A place for one run, which claims a pod of the template's pool, or of that of its builders, whose bounds the
        pool decides. Raises `BootFailed` for a template that has none.
        """
        if builder is not None and self._builder is None:
            raise BootFailed("this vibeD has no builder sandboxes", retryable=False)
        known = self._templates.get(template)
        if known is None or (builder is not None and known.kind not in BUILDERS):
            raise BootFailed(f"there is no pool of {template}", retryable=not self._templates)
        if known.kind == sites.KIND:
            return SharedSite(self, _id(), template, known.definition_digest)
        return self._place_of(template, builder=builder is not None)

    def prepare(self, prospect: Prospect) -> None:
        """Nothing: what a pod needs, it gets when it is claimed."""

    async def prefetch(self, layers: Mapping[str, Sequence[Mount]]) -> None:
        """Have pods that nobody has claimed yet fetch layers, by template, and let go of others. To be called again and
        again: pods come, and are told a few at a time. Raises `VibedError`, OSError where the layers cannot be had.
        """
        self._ahead.forget_others()
        for name, template in self._templates.items():
            if template.kind in BUILDERS:
                # what /layers of a pod holds is four times that
                await self._ahead.have(name, layers.get(name, ()), template.resources.disk_mb << 20)

    async def adopt(self) -> Sequence[Sandbox]:
        """Those whose pods an earlier controller has claimed for a run; claims that it did not come to use go."""
        await self.synced()
        few = asyncio.Semaphore(_AT_ONCE)

        async def one(claim: Object) -> Sequence[Sandbox]:
            async with few:
                sandbox = await self._take_over(claim)
                if sandbox is None:
                    return []
                self._sandboxes.add(sandbox)
                assert sandbox.claimed is not None
                if sandbox.claimed.app_id != SITES:
                    return [sandbox]
                return await self._sites_of(sandbox, image=sandbox.claimed.app_key)

        found = await asyncio.gather(*(one(claim) for claim in self.claims.all()))
        return [sandbox for some in found for sandbox in some]

    def count_sites(self) -> int:
        """How many static sites pods serve."""
        return self.site_pods.count()

    def to_move(self) -> Sequence[Claimed]:
        """Runs that are to be begun again beside themselves: they are sites whose pod is to be emptied."""
        return self.site_pods.to_move(self.site_bounds)

    async def close(self) -> None:
        """Let go of connections; pods stay."""
        await self.site_pods.close()
        for sandbox in list(self._sandboxes):
            await sandbox.let_go()

    def _place_of(self, template: str, *, builder: bool = False) -> PodSandbox:
        digest = self._templates[template].definition_digest
        sandbox = PodSandbox(self, _id(), template, digest, builder=builder)
        self._sandboxes.add(sandbox)
        return sandbox

    # used by the sandboxes

    async def order(self, run: Run, send: Send, ask: workers.Ask, *, builder: bool) -> dict[str, object]:
        """The driver's part of the operation `run`; a builder, which reaches nothing, is sent what it needs. Raises
        `RunFailed`, `SandboxLost`, `WireError`, OSError.
        """
        shelf = self._shelf.unsigned() if builder else self._shelf
        bounds = self._builder if builder and self._builder is not None else self._bounds(run)
        luggage = Luggage(packed_mb(bounds) << 20)
        order = general.order(run)
        del order["source"]
        start = order["start"]
        assert isinstance(start, dict)
        # a pod has one uid, whatever it is
        del start["uid"]
        if run.runtime.kind == workers.KIND:
            return {"source": await self._send_worker(run, shelf, send, ask, luggage), "limits": order["limits"]}
        if run.app_id == SITES:
            order["sites"] = True
        order["layer_bytes"] = layer_mb(bounds, builder=builder) << 20
        layers = [one for mount in run.mounts if (one := await _handed(mount, shelf, send, luggage)) is not None]
        return {**order, "layers": layers, "source": await _source(run, shelf, send, luggage)}

    def mirror(self, log_dir: Path) -> Mirror:
        return Mirror(log_dir, self._place.log_room)

    def heard(self, sandbox: PodSandbox) -> None:
        self._heard.pop(sandbox, None)
        self._heard[sandbox] = time.monotonic()
        if len(self._heard) > 2:
            del self._heard[next(iter(self._heard))]

    def others_heard_at(self, sandbox: PodSandbox) -> float:
        return max((at for other, at in self._heard.items() if other is not sandbox), default=0.0)

    def forget(self, sandbox: PodSandbox) -> None:
        self._sandboxes.discard(sandbox)

    def _bounds(self, run: Run) -> Resources:
        """Of the pods of its template."""
        known = self._templates.get(run.runtime.template)
        return run.limits if known is None else known.resources

    async def _send_worker(
        self, run: Run, shelf: Shelf, send: Send, ask: workers.Ask, luggage: Luggage
    ) -> dict[str, object]:
        modules = await asyncio.to_thread(workers.as_modules, run, TAKEN)
        if modules is None:
            output = await workers.bundle(run, await _source(run, shelf, send, luggage), ask)
            modules = await asyncio.to_thread(of_bundle, output, run, TAKEN)
        async with self.packing.of(lambda: workers.planned(run, modules, TAKEN)) as archive:
            return await _sent(archive, send, luggage)

    async def _sites_of(self, pod: PodSandbox, *, image: str) -> Sequence[Sandbox]:
        """The sites that a pod has which an earlier controller claimed for some."""
        adopted: list[Sandbox] = []

        def found(place: SitePod, claimed: Claimed) -> SharedSite:
            site = SharedSite(self, _id(), pod.template, pod.template_digest)
            site.serve(place, claimed)
            adopted.append(site)
            return site

        def led_to() -> Sequence[Claimed]:
            return self._place.led_to(pod.endpoint.address) if pod.endpoint is not None else ()

        await self.site_pods.take_over(pod, image, found, led_to)
        return adopted

    async def _take_over(self, claim: Object) -> PodSandbox | None:
        name, uid = claim["metadata"]["name"], claim["metadata"]["uid"]
        where = self.claims.where(claim)
        labels = claim["metadata"]["labels"]
        # who waited for what a builder does is gone, and no app may ever get one
        if where is None or labels.get(APP) in (_PROBE_APP, BUILDER_APP):
            await self.claims.remove(name, uid)
            return None
        try:
            claimed = claimed_of(claim)
        except (KeyError, ValueError):
            log.warning("a claim does not say which run it is for", claim=name)
            await self.claims.remove(name, uid)
            return None
        template = claim["spec"]["warmPoolRef"]["name"]
        # under the name that it was told under: another would be news of every app
        known = (claim["metadata"].get("annotations") or {}).get(SANDBOX_ID)
        sandbox = PodSandbox(self, known or _id(), template, "")
        mirror = await asyncio.to_thread(self.mirror, self._place.log_dir(claimed.app_id, claimed.number))
        try:
            await sandbox.take_over(Got(name, uid, where), claimed, mirror)
        except NobodysYet as error:
            # its controller ended between the claim and the pod
            log.info("a claim was never used", claim=name, error=error.message)
            await self.claims.remove(name, uid)
            return None
        return sandbox


async def _source(run: Run, shelf: Shelf, send: Send, luggage: Luggage) -> dict[str, object]:
    """Where the pod has the run's source from."""
    there = await shelf.source(run.source)
    return _told(there, luggage) if there is not None else await _sent(run.source, send, luggage)


async def _handed(mount: Mount, shelf: Shelf, send: Send, luggage: Luggage) -> dict[str, object] | None:
    """What the agent is told of a mount; nothing where there is nothing in it to be handed over."""
    if mount.writable:
        raise SandboxLost("a pod takes no data of an app", code="NotSupported", retryable=False)
    if await asyncio.to_thread(mount.source.is_dir):
        with tempfile.TemporaryDirectory(prefix="vibed-handed-") as folder:
            archive = Path(folder) / "files.tar.gz"
            if not await asyncio.to_thread(handing.packed, mount.source, archive):
                return None
            return {**await _sent(archive, send, luggage), "target": mount.target}
    there = await shelf.layer(mount)
    if there is not None:
        return {**_told(there, luggage), "target": mount.target}
    return {**await _sent(await shelf.local(mount), send, luggage), "target": mount.target}


async def _sent(archive: Path, send: Send, luggage: Luggage) -> dict[str, object]:
    size = (await asyncio.to_thread(archive.stat)).st_size
    luggage.add(size)
    return {"sha256": await send(archive), "size": size}


def _told(there: Remote, luggage: Luggage) -> dict[str, object]:
    luggage.add(there.size)
    return {"url": there.url, "sha256": there.sha256, "size": there.size}


def _id() -> str:
    return f"s{secrets.token_hex(6)[:11]}"
