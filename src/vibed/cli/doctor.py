"""`vibed doctor`: what this machine has, what is missing, what that costs and how to get it."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import socket
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from vibed.apps.errors import VibedError
from vibed.apps.sqlite.reserve import Reserve
from vibed.cli import certificate, watchdog
from vibed.cli.readiness import client
from vibed.config import Config, load
from vibed.layout import Layout
from vibed.runtimes import debian_packages
from vibed.runtimes.tools import NAMES, Tools
from vibed.sources.choice import s3_store
from vibed.supervision import landlock
from vibed.supervision.cgroups import Cgroups

_RUN_HERE = {("debian", "12")}
_PATH_KEPT = {("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    cure: str = ""
    needed: bool = True
    """Whether vibeD cannot work without it; otherwise something works less well."""


def examine(config: Config, layout: Layout) -> Iterator[Finding]:
    """Look at everything, cheapest first."""
    yield _system()
    yield Finding("python", sys.version_info >= (3, 11), platform.python_version(), "install Python 3.11 or newer")
    root = os.geteuid() == 0
    yield Finding(
        "root",
        root,
        "yes"
        if root
        else "no: one uid for all sandboxes, memory and CPU limits only with a delegated cgroup, nothing is mounted "
        "into a warm sandbox, the API and Caddy are not confined, and no Debian package is installed for you",
        "run vibeD with sudo for full isolation",
        needed=False,
    )
    yield _user_namespaces()
    yield landlocked("add landlock to the kernel's lsm= list; without it one of several layers is missing")
    yield _cgroups(layout)
    yield _disk(config)
    if layout.database.exists():
        yield _reserve(layout)
    yield sources(config, layout)
    yield from _programs(root)
    tools = Tools(config.home)
    for name in NAMES:
        if name in ("caddy", "caddy-dns") and (config.caddy is not None or (name == "caddy-dns") != config.https):
            continue  # another Caddy is used
        there = tools.installed(name)
        yield Finding(
            f"tool {name}",
            there,
            tools.tool(name).version if there else "not installed yet",
            "vibed up installs it",
            needed=False,
        )
    yield _port(config, layout)
    if config.https:
        yield _names(config)
        yield _certificate(config, layout)
    yield from _processes(layout)
    yield from _templates(config, layout)
    yield from _storage(config, layout)


def _system() -> Finding:
    facts = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    name = (facts.get("ID", "unknown"), facts.get("VERSION_ID", ""))
    told = f"{facts.get('PRETTY_NAME', 'unknown system')}, Linux {platform.release()}, {platform.machine()}"
    if name in _RUN_HERE:
        return Finding("system", True, told)
    if name in _PATH_KEPT:
        return Finding("system", True, f"{told}: its path is kept, but vibeD's tests are not run on it")
    cure = "Debian 12 is what vibeD is tested on; Debian 13 and Ubuntu 22.04 and 24.04 should work"
    return Finding("system", False, told, cure, needed=False)


def _user_namespaces() -> Finding:
    for path, refused in (
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ):
        file = Path(path)
        if file.exists() and file.read_text().strip() == refused and (os.geteuid() != 0 or "max_user" in path):
            name = path.removeprefix("/proc/sys/").replace("/", ".")
            return Finding("namespaces", False, f"{name} is {refused}", f"sudo sysctl {name}={1 - int(refused)}")
    return Finding("namespaces", True, "user namespaces are allowed")


_OWNERS = 5
"""How many owners are told of, those first whose apps take most."""


def landlocked(cure: str) -> Finding:
    """Whether processes can be kept from files without root; `cure` says what to do where not, and what is missed."""
    version = landlock.abi()
    told = f"ABI {version}" if version else "the kernel has it not, or it is switched off"
    return Finding("landlock", version > 0, told, cure, needed=False)


def _cgroups(layout: Layout) -> Finding:
    try:
        found = Cgroups.find(layout.runtime.name)
    except OSError as error:
        return Finding("cgroups", False, str(error), "mount cgroup2 at /sys/fs/cgroup", needed=False)
    return Finding(
        "cgroups",
        not found.missing,
        found.detail,
        found.cure,
        needed=False,
    )


def _disk(config: Config) -> Finding:
    place = config.home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free >> 20
    return Finding("disk", free > 4096, f"{free} MB free at {place}", "free at least 4 GB, or set VIBED_HOME elsewhere")


def sources(config: Config, layout: Layout) -> Finding:
    """The source store; one that is elsewhere is tried out, with the credentials of whoever asks."""
    if config.source_store == "served":
        detail = f"served: files in {layout.sources}, for one machine and for development"
        return Finding("source store", True, detail, needed=False)
    where = f"s3: {config.s3_endpoint or 'AWS ' + config.s3_region}, bucket {config.s3_bucket}"
    try:
        asyncio.run(s3_store(config, layout).prove())
    except VibedError as error:
        return Finding("source store", False, f"{where}: {error.message}", error.hint or "")
    except (OSError, ValueError) as error:
        return Finding("source store", False, f"{where}: {error}", "vibed up makes its key and its folders")
    return Finding("source store", True, f"{where}: writes, reads, lists and deletes")


def _reserve(layout: Layout) -> Finding:
    try:
        held = Reserve(layout.database).held()
    except OSError as error:
        return Finding("reserve", False, f"cannot be looked at: {error.strerror}", "", needed=False)
    return Finding(
        "reserve",
        held,
        "apps can be deleted on a full disk" if held else "was given up, or is not made yet",
        "free space: it is made again by itself when vibeD runs and more than 80 MB are free",
        needed=False,
    )


def _storage(config: Config, layout: Layout) -> Iterator[Finding]:
    """What takes most of an owner's share; nothing while the API does not answer."""
    owners: dict[str, list[tuple[int, str]]] = defaultdict(list)
    with suppress(Exception), client(config, layout) as api:
        while True:
            told = sum(map(len, owners.values()))
            page = api.get("/v1/apps", params={"limit": 200, "offset": told}, timeout=5).raise_for_status().json()
            for app in page["items"]:
                owners[app["owner"]].append((app["storage_bytes"] or 0, app["app_id"]))
            if not page["items"] or told + len(page["items"]) >= page["total"]:
                break
    for owner, apps in sorted(owners.items(), key=lambda item: -sum(size for size, _ in item[1]))[:_OWNERS]:
        megabytes = sum(size for size, _ in apps) / 1e6
        largest = ", ".join(f"{app_id} {size / 1e6:.0f}" for size, app_id in sorted(apps, reverse=True)[:3])
        yield Finding(
            f"storage {owner}",
            megabytes < 0.9 * config.owner_storage_mb,
            f"{megabytes:.0f} of {config.owner_storage_mb} MB: {largest}",
            "delete apps that are not needed, or raise owner_storage_mb",
            needed=False,
        )


def _programs(root: bool) -> Iterator[Finding]:
    for program in ("mmdebstrap", "mkfs.erofs"):
        path = debian_packages.which(program)
        package = debian_packages.PROGRAMS[program]
        cure = "vibed up installs it" if root and shutil.which("apt-get") else f"sudo apt-get install {package}"
        yield Finding(program, path is not None, path or "missing (builds template images)", cure, needed=False)


def _port(config: Config, layout: Layout) -> Finding:
    up = "caddy" in watchdog.running(layout.runtime / "watchdog.json")
    with socket.socket() as probe:
        probe.settimeout(1)
        used = probe.connect_ex((config.host.strip("[]"), config.port)) == 0
    if used and not up:
        return Finding("port", False, f"{config.listen} is used by another program", "set VIBED_LISTEN")
    return Finding("port", True, f"{config.listen} {'is served by vibeD' if used else 'is free'}")


def _names(config: Config) -> Finding:
    """Where the names below the domain lead, as this machine sees it."""
    name = f"vibed.{config.domain}"
    try:
        found = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, config.https_port)})
    except OSError as error:
        cure = f"add records for *.{config.domain} and {config.domain} that lead to this machine"
        return Finding("domain", False, f"{name} leads nowhere: {error}", cure, needed=False)
    return Finding("domain", True, f"{name} leads to {', '.join(found)}")


def _certificate(config: Config, layout: Layout) -> Finding:
    try:
        there = certificate.served(config)
    except OSError as error:
        told = f"port {config.https_port} does not answer: {error.strerror or error}"
        return Finding("certificate", False, told, "vibed up", needed=False)
    said = certificate.trouble(layout)
    if there is None:
        return Finding(
            "certificate",
            False,
            f"*.{config.domain} has none yet, so that browsers cannot connect; nothing is served in plain HTTP. "
            f"{said or 'Caddy has not said why'}",
            f"Caddy tries again by itself; its log is {layout.own_logs / 'caddy.log'}",
            needed=False,
        )
    if there.renewing_fails:
        left = f"{there.left_s / 86_400:.1f} days" if there.left_s > 0 else "no time, it has expired"
        told = f"{there}; it should have been renewed and has {left} left. {said}"
        return Finding(
            "certificate", False, told, "see to what is in the way: it is tried again by itself", needed=False
        )
    if there.distrusted:
        cure = "a test authority's is distrusted everywhere: acme_ca"
        return Finding("certificate", False, f"{there}; this machine does not trust it", cure, needed=False)
    return Finding("certificate", True, str(there))


def _processes(layout: Layout) -> Iterator[Finding]:
    running = watchdog.running(layout.runtime / "watchdog.json")
    keeper = watchdog.holder(layout.runtime / "watchdog.lock")
    yield Finding(
        "watchdog", keeper is not None, f"pid {keeper}" if keeper else "not running", "vibed up", needed=False
    )
    for name in ("caddy", "sites", "controller", "serve"):
        pid = running[name].pid if name in running else 0
        cure = f"vibed up; its log is {layout.own_logs / f'{name}.log'}"
        yield Finding(f"process {name}", bool(pid), f"pid {pid}" if pid else "not running", cure, needed=False)


def _templates(config: Config, layout: Layout) -> Iterator[Finding]:
    try:
        with client(config, layout) as api:
            items = api.get("/v1/templates", timeout=5).raise_for_status().json()["items"]
    except Exception as error:
        yield Finding("templates", False, f"the API does not tell: {error}", "vibed up", needed=False)
        return
    for item in items:
        level = f"isolation {item['isolation']}" if item["isolation"] else "no isolation measured"
        detail = f"{level}, {item['ready']} warm" if item["available"] else item["reason"]
        told = config.home / "templates" / item["name"] / "build.log"
        cure = "it becomes ready by itself" if item["building"] else f"see {told}" if told.exists() else ""
        there = item["available"] or item.get("on_need", False)
        yield Finding(f"template {item['name']}", there, detail, cure, needed=False)


def doctor(*, as_json: bool = False, out: Callable[[str], None] = print) -> int:
    """Print every finding; returns 1 when something that vibeD needs is missing."""
    config = load()
    findings = list(examine(config, Layout.of(config.home, uid_base=config.uid_base)))
    return show(findings, as_json=as_json, about={"home": str(config.home)}, out=out)


def show(
    findings: Sequence[Finding], *, as_json: bool, about: Mapping[str, str], out: Callable[[str], None] = print
) -> int:
    """Print findings; returns 1 when something that is needed is missing. `about` is what JSON says beside them."""
    if as_json:
        out(json.dumps({**about, "findings": [asdict(f) for f in findings]}))
    else:
        for finding in findings:
            mark = "ok" if finding.ok else "MISSING" if finding.needed else "note"
            out(f"{mark:>8}  {finding.name:<22} {finding.detail}")
            if not finding.ok and finding.cure:
                out(f"{'':>8}  {'':<22} > {finding.cure}")
    return 1 if any(f.needed and not f.ok for f in findings) else 0
