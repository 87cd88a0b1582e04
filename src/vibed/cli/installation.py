"""What lies on disk before vibeD's processes start: folders with their owners, the admin key, Caddy's configuration,
and the plan by which the watchdog starts each process, confined to what it needs.

As root, `vibed serve` (it faces the network and reads hostile archives) and Caddy run under uids of their own in mount
namespaces that show them nothing but their own folders; without root everything is the invoking user.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import resource
import secrets
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from vibed import __version__
from vibed.cli.removing import remove
from vibed.config import Config, InvalidConfiguration
from vibed.drivers.media_types import TYPES, UNKNOWN
from vibed.layout import Layout
from vibed.router.caddyfile import caddyfile
from vibed.spreading import spread
from vibed.supervision import mounts

CADDY_GOGC = "300"
"""Measured against Go's 100 with the trivial upstream of bench/rows/router.py: 8 % more requests, for 14 MB."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_HANDED_ON = (
    "OTEL_",
    "VIBED_",
    "PIP_",
    "UV_",
    "NPM_CONFIG_",
    "npm_config_",
    "GO",
    "SSL_CERT_",
    "HTTP",
    "http",
    "NO_PROXY",
    "no_proxy",
)
_ALWAYS = (
    "LANG",
    "TZ",
    "PYTHONPATH",
    "HOME",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NETRC",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
)


def lay_out(config: Config, layout: Layout) -> None:
    """Make the folders of `home` and `runtime`, each with the owner that needs it. Idempotent.

    What `runtime` holds of an earlier boot of the machine is removed first: its processes are gone.
    """
    boot = _BOOT_ID.read_text().strip()
    mark = layout.runtime / "boot"
    marked = ""
    with contextlib.suppress(OSError):
        marked = mark.read_text()
        if marked != boot:
            remove_runtime(layout)
    uids = layout.uids
    root = os.geteuid()
    _folder(layout.home, 0o711, root, root)
    for path in reversed(layout.above_runtime):
        _folder(path, 0o711, root, root)
    _folder(layout.runtime, 0o711, root, root)
    if not uids.rootless and not any(layout.runtime.iterdir()) and not mounts.in_memory(layout.runtime):
        # /run is in memory on a machine, but often not in a container, where a journal would carry every switch
        with contextlib.suppress(OSError):
            mounts.put_in_memory(layout.runtime)
    for path, mode, uid, gid in (
        (layout.home / "state", 0o700, uids.serve, uids.serve),
        (layout.sources, 0o700, uids.serve, uids.serve),
        (layout.logs, 0o750, root, uids.serve),
        (layout.own_logs, 0o750, root, root),
        (layout.tools, 0o755, root, root),
        (layout.templates, 0o755, root, root),
        (layout.apps, 0o750, root, uids.caddy),
        (layout.ingress, 0o750, root, uids.caddy),
        (layout.sandboxes, 0o711, root, root),
        # set-group-ID: sockets made in it belong to Caddy's group, so that it may connect to them
        (layout.serve_socket.parent, 0o2750, uids.serve, uids.caddy),
        (layout.fallback_socket.parent, 0o700, uids.caddy, uids.caddy),
        # the same the other way round
        (layout.front_socket.parent, 0o2750, uids.caddy, uids.serve),
        (layout.controller_socket.parent, 0o750, root, uids.serve),
    ):
        _folder(path, mode, uid, gid)
    for folder in (layout.home, layout.runtime, layout.sandboxes, layout.apps, layout.ingress, layout.logs):
        spread(folder)
    if marked != boot:
        # whole or not at all: with a mark that is cut off, what runs now would be taken for an earlier boot's
        _replace(mark, boot, 0o644)
    # Both processes write it; SQLite gives its other files the owner of this one.
    _give(layout.database, uids.serve, os.O_CREAT)
    for path in layout.database.parent.glob(f"{layout.database.name}*"):
        with contextlib.suppress(FileNotFoundError):  # SQLite has just removed it
            _give(path, uids.serve)
    key = config.admin_key
    if key is not None or not layout.admin_key.exists():
        _secret(layout.admin_key, key or f"vibed_{secrets.token_urlsafe(32)}", uids.serve)


def is_of_other_uids(layout: Layout) -> bool:
    """Whether the data was kept by a vibeD with other uids than these."""
    state = layout.home / "state"
    return not layout.uids.rootless and state.exists() and state.stat().st_uid != layout.uids.serve


def hand_over(layout: Layout) -> None:
    """Give the data to the uids of `layout`; `lay_out` does the folders themselves. Nothing may be running."""
    shutil.rmtree(layout.sites, ignore_errors=True)  # they are unpacked again, for Caddy as it is now
    serve = layout.uids.serve
    for top, uid in ((layout.home / "state", serve), (layout.sources, serve), (layout.logs, -1)):
        for _, folders, files, descriptor in os.fwalk(top) if top.exists() else ():
            for name in (*folders, *files):
                os.chown(name, uid, serve, dir_fd=descriptor, follow_symlinks=False)
    if layout.admin_key.exists():
        os.chown(layout.admin_key, serve, serve)


def remove_runtime(layout: Layout) -> list[str]:
    """Remove the runtime directory; returns what stays. What it held must have ended."""
    if not layout.uids.rootless:
        mounts.unmount_below(layout.runtime)
    return remove([layout.runtime])


def _folder(path: Path, mode: int, uid: int, gid: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(path, uid, gid)
    elif path.stat().st_uid != os.geteuid() or path.lstat().st_uid not in (os.geteuid(), 0):
        # below /tmp somebody else may have been there first, with a folder or with a link to one of ours
        raise InvalidConfiguration(
            f"{path} belongs to another user", hint="set XDG_RUNTIME_DIR or VIBED_HOME to a folder of your own"
        )
    path.chmod(mode)


def _give(path: Path, uid: int, flags: int = 0) -> None:
    """Make a file belong to `uid`, who may write to its folder and so could lead root elsewhere with a link.

    Raises InvalidConfiguration for whatever is no file, OSError.
    """
    odd = InvalidConfiguration(
        f"{path} is not a regular file", hint="vibeD puts nothing else there: see what it is, and remove it"
    )
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # a link, a socket, a folder
            raise odd from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise odd
        if os.geteuid() == 0:
            os.fchown(descriptor, uid, uid)
    finally:
        os.close(descriptor)


def _secret(path: Path, text: str, uid: int) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        if os.geteuid() == 0:
            os.fchown(file.fileno(), uid, uid)
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def admin_key(layout: Layout) -> str:
    """The admin key, for whoever may read it. Raises OSError."""
    return layout.admin_key.read_text().strip()


def plan(config: Config, layout: Layout, *, agent: Path, caddy: Path) -> dict[str, object]:
    """The watchdog's plan (docs/explanation/processes.md); writes Caddyfile and confine specs beside it."""
    runtime = layout.runtime
    _replace(runtime / "Caddyfile", caddyfile(config, layout), 0o640, layout.uids.caddy)
    env = _environment(config)
    python = [sys.executable, "-m", "vibed.cli.main"]
    serve = [*python, "serve"]
    proxy = [str(caddy), "run", "--config", str(runtime / "Caddyfile"), "--adapter", "caddyfile"]
    # confined it has a /tmp of its own; without root that is everybody's, and what it keeps there is in others' way
    place = str(layout.fallback_socket.parent) if layout.uids.rootless else "/tmp"
    quiet = {"HOME": place, "XDG_DATA_HOME": place, "XDG_CONFIG_HOME": place, "PATH": "/usr/bin:/bin"}
    # Caddy's live heap is a few megabytes: Go's default would collect it hundreds of times a second under load.
    quiet["GOGC"] = CADDY_GOGC
    if not layout.uids.rootless:
        serve = _confined(layout, agent, "serve", _serve_spec(config, layout, env), serve)
        proxy = _confined(layout, agent, "caddy", _caddy_spec(layout, caddy, quiet), proxy)
    told = {"socket": str(layout.sites_socket), "apps": str(layout.apps), "types": TYPES, "unknown": UNKNOWN}
    _replace(runtime / "sites.json", json.dumps(told), 0o640, layout.uids.caddy)
    sites = [str(agent), "sites", str(runtime / "sites.json")]
    if not layout.uids.rootless:
        sites = _confined(layout, agent, "sites", _sites_spec(layout, agent), sites)
    # Everything that a process reads once, at its start; the key as a digest, since the plan is no place for it.
    key = hashlib.sha256(layout.admin_key.read_bytes()).hexdigest()
    code = f"{_code_digest()} {config!r} {key}"
    return {
        "commands": [
            _command(layout, "caddy", proxy, quiet, (runtime / "Caddyfile").read_text()),
            _command(layout, "sites", sites, {}, (runtime / "sites.json").read_text()),
            _command(layout, "controller", [*python, "controller"], env, code),
            _command(layout, "serve", serve, env, code),
        ],
        "state": str(runtime / "watchdog.json"),
        "lock": str(runtime / "watchdog.lock"),
        "log": str(layout.own_logs / "watchdog.log"),
    }


def _command(layout: Layout, name: str, argv: Sequence[str], env: Mapping[str, str], content: str) -> dict[str, object]:
    """`content` is what the process reads besides: a running one is replaced when that has changed."""
    spec = layout.runtime / f"{name}.confine.json"
    confined = spec.read_text() if spec.exists() else ""
    facts = json.dumps([list(argv), sorted(env.items()), content, confined])
    return {
        "name": name,
        "argv": list(argv),
        "env": dict(env),
        "log": str(layout.own_logs / f"{name}.log"),
        "fingerprint": hashlib.sha256(facts.encode()).hexdigest(),
    }


def _environment(config: Config) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name in _ALWAYS or name.startswith(_HANDED_ON)}
    env.pop("VIBED_ADMIN_KEY", None)  # it is in its file; an environment is read by more than needs it
    env["PATH"] = os.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    env["VIBED_HOME"] = str(config.home)
    env["PYTHONUNBUFFERED"] = "1"
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    # One heap for all threads, not one for each: they work in turn, and what one has freed another can use.
    env["MALLOC_ARENA_MAX"] = "1"
    return env


def _confined(layout: Layout, agent: Path, name: str, spec: Mapping[str, object], argv: Sequence[str]) -> list[str]:
    path = layout.runtime / f"{name}.confine.json"
    _replace(path, json.dumps(spec, indent=1), 0o600)
    return [str(agent), "confine", str(path), "--", *argv]


def _serve_spec(config: Config, layout: Layout, env: Mapping[str, str]) -> dict[str, object]:
    """`vibed serve` sees its own data, Python and vibeD's code, read-only where it only reads; it has no network
    unless it exports traces."""
    own = [layout.home / "state", layout.sources, layout.serve_socket.parent]
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
    return {
        **_process(layout.uids.serve, [*_system(), *_binds(read, ro=True), *_binds(own, ro=False)]),
        "namespaces": ["mount", "ipc", "uts"] if exports else ["mount", "net", "ipc", "uts"],
        "hostname": "vibed-serve",
        "env": {**env, **layout.told(), "HOME": "/tmp"},
    }


def _caddy_spec(layout: Layout, caddy: Path, env: Mapping[str, str]) -> dict[str, object]:
    read = [caddy, layout.runtime / "Caddyfile", layout.apps, layout.ingress, layout.sites, layout.serve_socket.parent]
    layout.sites.mkdir(mode=0o750, exist_ok=True)
    os.chown(layout.sites, os.geteuid(), layout.uids.caddy)
    own = [layout.fallback_socket.parent, layout.front_socket.parent]
    return {
        **_process(layout.uids.caddy, [*_system(), *_binds(read, ro=True), *_binds(own, ro=False)]),
        "namespaces": ["mount", "ipc", "uts"],
        "hostname": "vibed-caddy",
        "env": dict(env),
    }


def _sites_spec(layout: Layout, agent: Path) -> dict[str, object]:
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


def _code_digest() -> str:
    """Of vibeD's own code."""
    digest = hashlib.sha256(__version__.encode())
    package = Path(__file__).resolve().parents[1]
    for path in sorted(package.rglob("*.py")):
        stat = path.stat()
        digest.update(f"{path}{stat.st_size}{stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def _replace(path: Path, text: str, mode: int, gid: int | None = None) -> None:
    """Write a file whole; `gid` (as root) is the group of the one process of vibeD that reads it."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    if gid is not None and os.geteuid() == 0:
        os.chown(fresh, 0, gid)
    fresh.chmod(mode)
    fresh.replace(path)
