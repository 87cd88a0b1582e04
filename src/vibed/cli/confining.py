"""What vibeD's own processes see of the machine: specs for `vibed-agent confine` (docs/reference/supervisor.md).

As root, `vibed serve` (it faces the network and reads hostile archives), Caddy and the site server run under uids of
their own in mount namespaces that show them nothing but their own folders.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from vibed.config import Config
from vibed.layout import Layout


def serve(config: Config, layout: Layout, env: Mapping[str, str]) -> dict[str, object]:
    """`vibed serve` sees its own data, Python and vibeD's code, read-only where it only reads; it has no network
    unless it exports traces or keeps sources elsewhere."""
    own = [layout.home / "state", layout.sources, layout.fetched_sources, layout.serve_socket.parent]
    read = [
        layout.admin_key,
        layout.logs,
        layout.controller_socket.parent,
        layout.front_socket.parent,
        layout.templates,
        layout.home / "vibed.toml",
    ]
    read += [Path(sys.base_prefix), Path(sys.prefix), *_code()]
    if config.template_dir is not None:
        read.append(config.template_dir)
    exports = any(name.startswith("OTEL_EXPORTER") or name == "OTEL_TRACES_EXPORTER" for name in env)
    outside = exports or config.source_store == "s3"
    return {
        **_process(layout.uids.serve, [*_system(), *_binds(read, ro=True), *_binds(own, ro=False)]),
        "namespaces": ["mount", "ipc", "uts"] if outside else ["mount", "net", "ipc", "uts"],
        "hostname": "vibed-serve",
        "env": {**env, **layout.told(), "HOME": "/tmp"},
    }


def caddy(config: Config, layout: Layout, program: Path, env: Mapping[str, str]) -> dict[str, object]:
    """Caddy faces the network; what it may do beside others of its uid is to take a port below 1024, if it has one."""
    read = [
        program,
        layout.runtime / "Caddyfile",
        layout.apps,
        layout.ingress,
        layout.sites,
        layout.serve_socket.parent,
    ]
    layout.sites.mkdir(mode=0o750, exist_ok=True)
    os.chown(layout.sites, os.geteuid(), layout.uids.caddy)
    own = [layout.fallback_socket.parent, layout.front_socket.parent]
    ports = [config.port]
    if config.https:
        read.append(layout.acme)
        own.append(layout.certificates)
        ports.append(config.https_port)
    return {
        **_process(layout.uids.caddy, [*_system(), *_binds(read, ro=True), *_binds(own, ro=False)]),
        "capabilities": ["NET_BIND_SERVICE"] if min(ports) < 1024 else [],
        "namespaces": ["mount", "ipc", "uts"],
        "hostname": "vibed-caddy",
        "env": dict(env),
    }


def sites(layout: Layout, agent: Path) -> dict[str, object]:
    """As Caddy, whose files it reads and who alone may connect to it; it needs no network."""
    read = [agent, layout.runtime / "sites.json", layout.apps, layout.sites]
    return {
        **_process(
            layout.uids.caddy, [*_system(), *_binds(read, ro=True), *_binds([layout.sites_socket.parent], ro=False)]
        ),
        "namespaces": ["mount", "net", "ipc", "uts"],
        "hostname": "vibed-sites",
        "env": {},
    }


def _process(uid: int, root: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return {
        "uid": uid,
        "gid": uid,
        "userns": False,
        "root": list(root),
        "cwd": "/",
        "no_new_privs": True,
        "capabilities": [],
        "seccomp": "default",
        "rlimits": {"nofile": min(65_536, resource.getrlimit(resource.RLIMIT_NOFILE)[1]), "core": 0},
        "die_with_parent": False,
    }


def _system() -> list[dict[str, object]]:
    """What any program of this machine needs to run."""
    entries: list[dict[str, object]] = [{"type": "tmpfs", "target": "/", "size": 8 << 20, "mode": "0755"}]
    for name in ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            entries.append({"type": "symlink", "source": str(path.readlink()), "target": str(path)})
        elif path.is_dir():
            entries.append({"type": "bind", "source": str(path), "target": str(path), "ro": True})
    for name in (
        "/etc/ssl",
        "/etc/ld.so.cache",
        "/etc/localtime",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/etc/nsswitch.conf",
    ):
        if Path(name).exists():
            entries.append({"type": "bind", "source": str(Path(name).resolve()), "target": name, "ro": True})
    entries += [
        {"type": "proc", "target": "/proc"},
        {"type": "dev", "target": "/dev"},
        {"type": "tmpfs", "target": "/tmp", "size": 64 << 20, "mode": "1777"},
    ]
    return entries


def _binds(paths: Sequence[Path], *, ro: bool) -> list[dict[str, object]]:
    return [
        {"type": "bind", "source": str(path), "target": str(path), "ro": ro}
        for path in dict.fromkeys(paths)
        if path.exists() and not path.is_relative_to("/usr")
    ]


def _code() -> list[Path]:
    """Where vibeD's own code and data are, when it runs from a checkout."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1]
    data = [checkout / name for name in ("agent", "templates", "locks", "examples")]
    return [package.parent, *(path for path in data if path.is_dir())]
