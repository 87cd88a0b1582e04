"""The registry gate of one build: its only way out, on a Unix socket that its claim mounts.

The gate (`vibed-agent registry`, docs/reference/supervisor.md) runs on the host as a uid of its own and ends with the
build, or with vibeD. It knows the registries and what they know their callers by; what is in the sandbox knows the
gate.

In a pod of a cluster nobody can be another user, or have namespaces of his own. There the gate has the controller's
uid, and Landlock alone keeps it from the controller's keys, files and processes: without it there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from vibed import records
from vibed.runtimes import binaries, pod_disk
from vibed.runtimes.registries import Registries
from vibed.sandboxes.driver import Mount, SandboxError
from vibed.supervision import landlock
from vibed.supervision.cgroups import BUILDING, Bounds
from vibed.supervision.host import Host

ADDRESS = "http://127.0.0.1:3128"
"""Where clients in the sandbox find the gate."""
PYPI = f"{ADDRESS}/pypi/simple/"
NPM = f"{ADDRESS}/npm/"
GO = f"{ADDRESS}/go"
CACHE_BYTES = 8 << 30
"""How much of downloads is kept."""

log = records.logger("vibed.gate")

_TARGET = "/layers/registry"
_READY_S = 20.0
_MEMORY = 512 << 20
_LINE_BYTES = 1 << 16
_SYSTEM = ("/etc/ssl", "/etc/pki", "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf")
"""What looking up a name and checking a certificate takes; the program itself is static."""


class GateFailed(SandboxError):
    """The gate could not be started; another attempt may work."""

    code = "RegistryGateFailed"
    retryable = True


class Gate:
    """A gate that is open."""

    def __init__(self, folder: Path, registries: Registries) -> None:
        self.mount = Mount(folder, _TARGET)
        """For the claim of the builder sandbox."""
        self.env = _told(registries)
        """What package clients in the sandbox have to be told."""
        self._denied: Counter[str] = Counter()
        self._trouble: list[str] = []
        self._refused: list[str] = []
        self._lacking: dict[str, str] = {}
        self._said = ""

    def denied(self) -> Mapping[str, int]:
        """How often what other `host:port` was asked for, and refused."""
        return dict(self._denied)

    def trouble(self) -> tuple[str, ...]:
        """What failed at the registries, a sentence each, in the order in which it did: where there is any, and a build
        has failed, trying again may help.
        """
        return tuple(self._trouble)

    def refused(self) -> tuple[str, ...]:
        """What registries refused, a sentence each: the operator's credentials are missing or do not fit."""
        return tuple(self._refused)

    def lacking(self) -> Mapping[str, str]:
        """Sources of programs that were asked and could not be had (`vibed.runtimes.binaries`), and why, by name."""
        return dict(self._lacking)

    @property
    def last_words(self) -> str:
        """What it has said last that is no news."""
        return self._said

    def forget(self) -> None:
        """Begin anew with what was denied, and what failed: the next step is not to be told of the one before."""
        self._denied.clear()
        self._trouble.clear()
        self._lacking.clear()

    def _hear(self, line: bytes) -> bool:
        """Take in what the gate says; whether it says that it is open."""
        with contextlib.suppress(ValueError, AttributeError):
            event = json.loads(line)
            if host := event.get("denied"):
                self._denied[str(host)] += 1
            if trouble := event.get("trouble"):
                self._trouble.append(str(trouble))
            if lacking := event.get("lacking"):
                self._lacking.setdefault(str(lacking.get("source")), str(lacking.get("why")))
            if refused := event.get("refused"):
                self._refused.append(str(refused))
                log.warning("a registry refuses a build", text=str(refused))
            return bool(event.get("ready"))
        self._said = line.decode(errors="replace").strip()[:2000]
        log.warning("the registry gate says", text=self._said)
        return False


@asynccontextmanager
async def registry_gate(host: Host, registries: Registries) -> AsyncIterator[Gate]:
    """A gate for one build, which ends when the context does. Raises `GateFailed`."""
    if not host.privileged:
        raise GateFailed("builds need vibeD to run as root: the gate has a uid of its own", retryable=False)
    id = f"g{secrets.token_hex(6)[:11]}"
    folder = host.layout.gates / id
    group = host.cgroups.get(id)
    try:
        process, gate = await _open(host, registries, id, folder)
        reading = asyncio.create_task(_listen(process, gate), name=f"registry gate {id}")
        try:
            yield gate
        finally:
            await _end(process)
            await group.end()
            await reading
    finally:
        await group.end()
        await asyncio.to_thread(_remove, folder, host.layout.downloads)


@asynccontextmanager
async def gate_in_pod(agent: Path, gates: Path, downloads: Path, registries: Registries) -> AsyncIterator[Gate]:
    """The same in the controller's own pod. `gates`: where gates have their folders, with a short path; `downloads`:
    what is kept of earlier ones. Raises `GateFailed`.
    """
    if not landlock.abi():
        raise GateFailed(
            "no packages can be installed: what gets them from the registries runs beside the keys of this vibeD, and"
            " the kernel of the controller's node has no Landlock, which keeps it from these",
            retryable=False,
            hint="an operator's to mend: nodes for the control plane with Linux 5.13 or newer and landlock in its lsm="
            " list, and no RuntimeClass for its pods; an app without packages of its own can be deployed meanwhile",
        )
    folder = gates / f"g{secrets.token_hex(6)[:11]}"
    try:
        try:
            for place in (folder, downloads):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            confine = {
                "cwd": "/",
                # its memory is the controller's
                "env": {"GOMAXPROCS": "2", "GOMEMLIMIT": "64MiB"},
                "capabilities": [],
                "seccomp": "default",
                "landlock": {
                    "ro": [str(agent.resolve()), *(name for name in _SYSTEM if Path(name).exists())],
                    "rw": [str(folder), str(downloads)],
                },
                "landlock_required": True,
                "rlimits": {"nofile": 4096, "core": 0},
                "die_with_parent": True,
                "oom_score_adj": 500,
            }
            spec = gates / f"{folder.name}.json"
            spec.write_text(json.dumps(confine))
        except OSError as error:
            raise GateFailed(f"the registry gate could not be started: {error}") from error
        told = {"cache_bytes": pod_disk.CACHE_BYTES, "arriving": folder.name}
        config = {**_config(registries, str(folder), str(downloads), []), **told}
        process, gate = await _started(agent, agent, spec, config, Gate(folder, registries))
        reading = asyncio.create_task(_listen(process, gate), name=f"registry gate {folder.name}")
        try:
            yield gate
        finally:
            await _end(process)
            await reading
    finally:
        await asyncio.to_thread(_remove, folder, downloads)


def _remove(folder: Path, downloads: Path) -> None:
    """What a gate that was killed leaves: its socket, and downloads that were on their way."""
    for left in (folder, downloads / "tmp" / folder.name):
        shutil.rmtree(left, ignore_errors=True)


async def _open(host: Host, registries: Registries, id: str, folder: Path) -> tuple[asyncio.subprocess.Process, Gate]:
    uid = host.layout.uids.registries
    try:
        # nobody but root gets to the sockets on the host; in a sandbox every process may
        host.layout.gates.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o755)
        os.chown(folder, uid, uid)
        await asyncio.to_thread(_own_cache, host.layout.downloads, uid)
        host.cgroups.make(id, Bounds(_MEMORY, 2.0, 128, BUILDING))
        spec = host.layout.gates / f"{id}.json"
        spec.write_text(json.dumps(_confine(host, registries, id, folder)))
    except OSError as error:
        raise GateFailed(f"the registry gate could not be started: {error}") from error
    links = [f"/links/{n}" for n, path in enumerate(registries.find_links) if path.is_dir()]
    config = {**_config(registries, "/gate", "/cache", links), "arriving": id}
    return await _started(host.agent, Path("/vibed-agent"), spec, config, Gate(folder, registries))


async def _started(
    agent: Path, program: Path, spec: Path, config: Mapping[str, object], gate: Gate
) -> tuple[asyncio.subprocess.Process, Gate]:
    """`program`: the agent, as who is confined finds it. `spec` is used up. Raises `GateFailed`."""
    try:
        process = await asyncio.create_subprocess_exec(
            *(str(agent), "confine", str(spec), "--", str(program), "registry"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.defpath},
            start_new_session=True,
            limit=_LINE_BYTES,
        )
    except OSError as error:
        raise GateFailed(f"the registry gate could not be started: {error}") from error
    try:
        assert process.stdin is not None
        assert process.stderr is not None
        # its end is how the gate learns that its build, or vibeD, has ended
        process.stdin.write(json.dumps(config).encode() + b"\n")
        async with asyncio.timeout(_READY_S):
            with contextlib.suppress(ConnectionError):  # it says why it has ended
                await process.stdin.drain()
            while line := await process.stderr.readline():
                if gate._hear(line):
                    return process, gate
        raise GateFailed(f"the registry gate ended at once: {gate.last_words or 'it said nothing'}")
    except (TimeoutError, ConnectionError, ValueError) as error:
        await _end(process)
        raise GateFailed(f"the registry gate did not open: {error or 'it took too long'}") from error
    except BaseException:
        await _end(process)
        raise
    finally:
        spec.unlink(missing_ok=True)


def _own_cache(folder: Path, uid: int) -> None:
    """Make the folder of downloads, the gates' own; that of another `uid_base` is begun anew. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid not in (uid, os.geteuid()):
        shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
    os.chown(folder, uid, uid)


async def _listen(process: asyncio.subprocess.Process, gate: Gate) -> None:
    assert process.stderr is not None
    while True:
        try:
            line = await process.stderr.readline()
        except ValueError:  # longer than the gate writes any
            continue
        if not line:
            return
        gate._hear(line)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _confine(host: Host, registries: Registries, id: str, folder: Path) -> dict[str, object]:
    uid = host.layout.uids.registries
    entries: list[dict[str, object]] = [{"type": "tmpfs", "target": "/", "size": 1 << 20, "mode": "0755"}]
    binds = [(host.agent, "/vibed-agent", True), (folder, "/gate", False), (host.layout.downloads, "/cache", False)]
    binds += [(Path(name).resolve(), name, True) for name in _SYSTEM if Path(name).exists()]
    binds += [(path, f"/links/{n}", True) for n, path in enumerate(registries.find_links) if path.is_dir()]
    entries += [{"type": "bind", "source": str(source), "target": target, "ro": ro} for source, target, ro in binds]
    return {
        "uid": uid,
        "gid": uid,
        "namespaces": ["mount", "pid", "ipc", "uts"],
        "hostname": "registry",
        "root": entries,
        "cwd": "/",
        "env": {"GOMAXPROCS": "2"},
        "capabilities": [],
        "seccomp": "default",
        "landlock": {"ro": ["/"], "rw": ["/gate", "/cache"]},
        "rlimits": {"nofile": 4096, "core": 0},
        "cgroup_procs": [str(path) for path in host.cgroups.get(id).procs],
        "die_with_parent": True,
        "oom_score_adj": 500,
    }


def _config(registries: Registries, folder: str, cache: str, links: list[str]) -> dict[str, object]:
    """All as the gate finds them."""
    authorities = []
    for path in registries.authorities:
        with contextlib.suppress(OSError):  # the client that it is meant for says so, here it may not matter
            authorities.append(path.read_text(errors="replace"))
    proxy = registries.proxy
    return {
        "socket": f"{folder}/registry.sock",
        "cache": cache,
        "cache_bytes": CACHE_BYTES,
        "pypi": list(registries.pypi),
        "first_index": registries.first_index,
        "find_links": links,
        "npm": registries.npm,
        "npm_scopes": dict(registries.npm_scopes),
        "go": registries.go,
        "sumdb": _sumdb(registries.sumdb),
        "binaries": [
            {"name": source.name, "url": registries.binaries.get(source.name, ""), "digests": source.digests}
            for source in binaries.SOURCES
        ],
        "authorization": [{"prefix": prefix, "header": header} for prefix, header in registries.authorization.items()],
        "authorities": authorities,
        "insecure": list(registries.insecure),
        "proxy": {"http": proxy.http, "https": proxy.https, "none": proxy.none},
    }


def _sumdb(value: str) -> dict[str, str]:
    """The database's name, by which Go asks for it, and its address."""
    name, _, address = value.strip().partition(" ")
    name = name.partition("+")[0]
    return {"name": name, "url": address.strip() or f"https://{name}"} if name else {"name": "", "url": ""}


def _told(registries: Registries) -> dict[str, str]:
    """Every client by its own variables. Whatever else they ask for goes to the gate as to a proxy, which refuses it by
    its name and writes it down; without one, a name would only not be found.
    """
    env = {
        "PIP_INDEX_URL": PYPI,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_DEFAULT_INDEX": PYPI,
        "UV_NO_PROGRESS": "1",
        "NPM_CONFIG_REGISTRY": NPM,
        "NPM_CONFIG_UPDATE_NOTIFIER": "false",
        "NPM_CONFIG_AUDIT": "false",
        "NPM_CONFIG_FUND": "false",
        "YARN_REGISTRY": NPM,
        "YARN_NPM_REGISTRY_SERVER": NPM.rstrip("/"),
        "YARN_UNSAFE_HTTP_WHITELIST": "127.0.0.1",
        "COREPACK_NPM_REGISTRY": NPM.rstrip("/"),
        "GOPROXY": GO,
        **binaries.told(ADDRESS),
    }
    # with its key, where it is not the one that Go knows; the address is the gate's
    env["GOSUMDB"] = registries.sumdb.split()[0] if registries.sumdb else "off"
    if registries.go_unsummed:
        env["GONOSUMDB"] = registries.go_unsummed
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        env[name] = ADDRESS
    env["NO_PROXY"] = env["no_proxy"] = "127.0.0.1,localhost"
    return env
