"""The plan by which the watchdog starts vibeD's processes, each confined to what it needs, and the files that they read
at their start: Caddy's configuration, the site server's, the confine specs (docs/explanation/processes.md).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from vibed import __version__
from vibed.cli import confining
from vibed.cli.credentials import hand_to_caddy
from vibed.cli.installation import replace
from vibed.config import Config
from vibed.drivers.media_types import TYPES, UNKNOWN
from vibed.layout import Layout
from vibed.router.caddyfile import caddyfile
from vibed.runtimes.binaries import SOURCES

CADDY_GOGC = "300"
"""Measured against Go's 100 with the trivial upstream of bench/rows/router.py: 8 % more requests, for 14 MB."""

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
    *(source.variable for source in SOURCES),
)


def plan(config: Config, layout: Layout, *, agent: Path, caddy: Path) -> dict[str, object]:
    """The watchdog's plan (docs/explanation/processes.md); writes Caddyfile and confine specs beside it.

    Raises InvalidConfiguration for credentials of a DNS provider that cannot be used.
    """
    runtime = layout.runtime
    secrets = hand_to_caddy(config, layout)
    replace(runtime / "Caddyfile", caddyfile(config, layout, secrets.names), 0o640, layout.uids.caddy)
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
        serve = _confined(layout, agent, "serve", confining.serve(config, layout, env), serve)
        proxy = _confined(layout, agent, "caddy", confining.caddy(config, layout, caddy, quiet), proxy)
    told = {"socket": str(layout.sites_socket), "apps": str(layout.apps), "types": TYPES, "unknown": UNKNOWN}
    replace(runtime / "sites.json", json.dumps(told), 0o640, layout.uids.caddy)
    sites = [str(agent), "sites", str(runtime / "sites.json")]
    if not layout.uids.rootless:
        sites = _confined(layout, agent, "sites", confining.sites(layout, agent), sites)
    # Everything that a process reads once, at its start; the key as a digest, since the plan is no place for it.
    key = hashlib.sha256(layout.admin_key.read_bytes()).hexdigest()
    code = f"{_code_digest()} {config!r} {key}"
    return {
        "commands": [
            _command(layout, "caddy", proxy, quiet, f"{(runtime / 'Caddyfile').read_text()} {secrets.digest}"),
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
    handed_on = (*_HANDED_ON, "AWS_") if config.source_store == "s3" else _HANDED_ON
    env = {name: value for name, value in os.environ.items() if name in _ALWAYS or name.startswith(handed_on)}
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
    replace(path, json.dumps(spec, indent=1), 0o600)
    return [str(agent), "confine", str(path), "--", *argv]


def _code_digest() -> str:
    """Of vibeD's own code."""
    digest = hashlib.sha256(__version__.encode())
    package = Path(__file__).resolve().parents[1]
    for path in sorted(package.rglob("*.py")):
        stat = path.stat()
        digest.update(f"{path}{stat.st_size}{stat.st_mtime_ns}".encode())
    return digest.hexdigest()
