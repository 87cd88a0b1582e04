"""What the tests need that takes long to make, made once and shared: `python -m tests.prepare WHAT`.

    system      Debian packages that only tests use (Chromium, QEMU), and the kernel that QEMU boots
    tools       the programs that vibeD installs for itself, below VIBED_TEST_HOME
    go          the same for Go; prints where it is
    acme        what issues certificates to the tests: Pebble, BIND, and vibeD's Caddy with DNS providers, whose build
                takes about three minutes of CPU where it was not built before
    client      the earlier MCP client, with which the agent of the tests speaks too
    templates   every template that is not prepared on need, all stages
    s3          an S3 server (tests/contract)
    cluster     the same, and a Kubernetes control plane with fake nodes (tests/cluster)
    cluster-node  what a real node needs besides: its programs, and Debian packages
    images      vibeD's container images, for a real node; after tools and templates

VIBED_TEST_HOME is a cache: tests bring up vibeDs with homes of their own that take tools and templates from it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.cluster import binaries
from vibed.runtimes.builder import TemplateBuilder
from vibed.runtimes.layers import toolbox
from vibed.runtimes.layers.compilers import Compilers, kits_of
from vibed.runtimes.layers.kits import packed
from vibed.runtimes.layers.toolbox import NAMES as TOOLBOX
from vibed.runtimes.layers.toolbox import Toolbox
from vibed.runtimes.templates import load_templates
from vibed.runtimes.tools import Tools

SYSTEM_PACKAGES = {"chromium": "chromium", "qemu-system-x86_64": "qemu-system-x86"}
"""Program -> Debian package."""
NODE_PACKAGES = {
    "runc": "runc",
    "nft": "nftables",
    "iptables": "iptables",
    "ip": "iproute2",
    "busybox": "busybox-static",
}
"""The same for a real node."""


class CannotPrepare(Exception):
    """What a test needs cannot be had on this machine."""


def home() -> Path:
    """Where tests share tools and templates."""
    given = os.environ.get("VIBED_TEST_HOME")
    return Path(given) if given else Path.home() / ".cache" / "vibed" / "test-home"


def say(what: str, text: str, began: float) -> None:
    print(f"  ..  {what:<14} {text} ({time.monotonic() - began:.1f} s)", file=sys.stderr, flush=True)


def system() -> int:
    """Packages first, then the kernel: the tests that boot it say what is wrong where it cannot be had."""
    from tests.kernels import guest

    status = packages(SYSTEM_PACKAGES)
    with suppress(guest.CannotBoot):
        guest.debian_kernel()
    return status


def missing_packages(wanted: Mapping[str, str]) -> list[str]:
    """Of `wanted` (program -> Debian package), the packages whose program is not there."""
    # a user's PATH need not have the folders of root's programs
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return [package for program, package in wanted.items() if shutil.which(program, path=path) is None]


def packages(wanted: Mapping[str, str]) -> int:
    missing = missing_packages(wanted)
    if not missing:
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"missing: {', '.join(missing)}; as root: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=env, check=False, stdout=sys.stderr)
    # what templates are made with is installed at the same time
    install = ["apt-get", "-o", "DPkg::Lock::Timeout=240", "install", "-y", "-qq", "--no-install-recommends"]
    return subprocess.run([*install, *missing], env=env, stdout=sys.stderr).returncode


async def tools() -> int:
    began = time.monotonic()
    have = Tools(home())
    for name in ("vibed-agent", "caddy", "workerd", "esbuild", "runsc", *TOOLBOX):
        await have.install(name)
        say(name, str(have.tool(name).version), began)
    say("installers", (await Toolbox(home(), have).image()).name, began)
    compilers = Compilers(home(), have, load_templates())
    kits = list(toolbox.kits(have))
    for template in ("python-313", "node-24"):
        mounts = await compilers.mounts(template)
        say("compilers", f"{template}: {', '.join(mount.source.name for mount in mounts)}", began)
        kits += kits_of(home(), have, load_templates()[template]).values()
    for kit in kits:
        say("kits", (await packed(kit, home() / "kits")).path.name, began)
    return 0


async def go() -> int:
    print(await Tools(home()).install("go"))
    return 0


async def s3() -> int:
    await binaries.build(binaries.S3, home())
    return 0


async def acme() -> int:
    from tests.name_server import unpack

    began = time.monotonic()
    have = Tools(home())
    await binaries.build(binaries.ACME, home())
    await have.install("caddy-dns", lambda text, _: say("caddy-dns", text, began))
    say("caddy-dns", have.version("caddy-dns"), began)
    try:
        say("bind", str(unpack()), began)
    except CannotPrepare as error:
        print(error, file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    return 0


OLD_CLIENT = Path(__file__).parents[1] / "locks" / "mcp-1" / "client.txt"


def old_client() -> Path:
    """Where the earlier MCP client is, or will be: a folder for PYTHONPATH, by what is locked."""
    return home() / "clients" / f"mcp-1-{hashlib.sha256(OLD_CLIENT.read_bytes()).hexdigest()[:12]}"


def client() -> int:
    began = time.monotonic()
    target = old_client()
    if not target.exists():
        fresh = target.with_name(f"{target.name}.{os.getpid()}")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        locked = ["--require-hashes", "--only-binary=:all:", "--target", str(fresh), "-r", str(OLD_CLIENT)]
        subprocess.run([*pip, *locked], check=True, stdout=sys.stderr)
        fresh.rename(target)
    say("mcp-1", str(target), began)
    return 0


async def templates() -> int:
    began = time.monotonic()
    known = load_templates()
    builder = TemplateBuilder(home(), known, Tools(home()))
    for template in known.values():
        if template.unavailable or template.on_need or template.name == "static-nginx":
            continue
        while True:
            built = await builder.build(template.name)
            say(template.name, f"stage {built.stage}, {built.digest[:12]}", began)
            if built.complete:
                break
        await builder.prune(template.name)
    return 0


async def cluster() -> int:
    for module in (binaries.CONTROL_PLANE, binaries.S3):
        await binaries.build(module, home())
    return 0


async def cluster_node() -> int:
    status = packages(NODE_PACKAGES)
    for module in (binaries.CONTROL_PLANE, binaries.S3, binaries.NODE, binaries.GVISOR):
        await binaries.build(module, home())
    return status


def images() -> int:
    from tests.cluster import development

    development.images(development.IMAGES)
    return 0


def main(arguments: list[str]) -> int:
    what = arguments[0] if arguments else ""
    home().mkdir(parents=True, exist_ok=True)
    if what == "system":
        return system()
    if what == "client":
        return client()
    if what == "images":
        return images()
    makes: dict[str, Callable[[], Coroutine[Any, Any, int]]] = {"tools": tools, "go": go, "templates": templates}
    work = (makes | {"s3": s3, "acme": acme, "cluster": cluster, "cluster-node": cluster_node}).get(what)
    if work is None:
        print(__doc__, file=sys.stderr)
        return 2
    return asyncio.run(work())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
