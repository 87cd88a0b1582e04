"""Where everything of one vibeD lives on disk, and which uids its parts run as.

`home` (VIBED_HOME) is durable. `runtime` is short (a socket path ends at 107 bytes, unix(7)) and belongs to one boot of
the machine. Two vibeDs with different homes share nothing.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

UIDS_PER_INSTANCE = 65_536
FIRST_UID = 100_000_000
INSTANCES = 4_096
_FIRST_SANDBOX = 1_024
_TOLD = "VIBED_LAYOUT"
_POD_RUNTIME = Path("/run/vibed")


@dataclass(frozen=True, slots=True)
class Uids:
    """The uid range of one vibeD (gid = uid throughout). Rootless, everything is the invoking user."""

    base: int
    rootless: bool = False

    @property
    def serve(self) -> int:
        """Of `vibed serve`: faces the network and reads hostile archives."""
        return self.base

    @property
    def caddy(self) -> int:
        return self.base if self.rootless else self.base + 1

    @property
    def registries(self) -> int:
        """Of the registry gates, which face the registries."""
        return self.base if self.rootless else self.base + 2

    @property
    def sandboxes(self) -> range:
        """One uid for each sandbox that is alive."""
        if self.rootless:
            return range(self.base, self.base + 1)
        return range(self.base + _FIRST_SANDBOX, self.base + UIDS_PER_INSTANCE)


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one vibeD; nothing here touches the disk."""

    home: Path
    runtime: Path
    uids: Uids

    @classmethod
    def of(cls, home: Path, *, uid_base: int | None = None) -> Layout:
        """The layout that belongs to `home` for the user who asks.

        `vibed serve` runs as another user than the one who brought vibeD up, and is told theirs (`told`).
        """
        home = home.absolute()
        if told := os.environ.get(_TOLD):
            runtime, first = told.rsplit(":", 1)
            return cls(home, Path(runtime), Uids(int(first)))
        name = hashlib.sha256(os.fsencode(home)).hexdigest()
        if os.geteuid() == 0:
            place = int(name[8:16], 16) % INSTANCES
            base = uid_base if uid_base is not None else FIRST_UID + place * UIDS_PER_INSTANCE
            return cls(home, Path("/run/vibed") / name[:8], Uids(base))
        run = os.environ.get("XDG_RUNTIME_DIR")
        parent = Path(run) if run and len(run) < 40 else _fallback(os.geteuid())
        return cls(home, parent / "vibed" / name[:8], Uids(os.geteuid(), rootless=True))

    @classmethod
    def in_pod(cls, home: Path) -> Layout:
        """The layout inside a pod of a cluster, where every process of vibeD has its own."""
        told = os.environ.get(_TOLD)
        runtime = Path(told.rsplit(":", 1)[0]) if told else _POD_RUNTIME
        return cls(home.absolute(), runtime, Uids(os.geteuid(), rootless=True))

    @property
    def above_runtime(self) -> tuple[Path, ...]:
        """What vibeD makes above `runtime`, which all vibeDs of one user share; the innermost comes first."""
        above = self.runtime.parent
        return (above, above.parent) if above.parent == _fallback(self.uids.base) else (above,)

    def told(self) -> dict[str, str]:
        """The variable that hands this layout on to a process of another user."""
        return {} if self.uids.rootless else {_TOLD: f"{self.runtime}:{self.uids.base}"}

    @property
    def database(self) -> Path:
        return self.home / "state" / "vibed.db"

    @property
    def sources(self) -> Path:
        return self.home / "sources"

    @property
    def signing_key(self) -> Path:
        return self.home / "state" / "signing.key"

    @property
    def fetched_sources(self) -> Path:
        """Of sources that are kept elsewhere, what was used lately, by digest (vibed.sources.cache)."""
        return self.home / "cache" / "sources"

    @property
    def sites(self) -> Path:
        """Unpacked static sites, below a folder named after the machine's boot (see `drivers.static`)."""
        return self.home / "sites"

    @property
    def logs(self) -> Path:
        """`<app id>/<run number, ten digits>/log.jsonl`."""
        return self.home / "logs"

    @property
    def admin_key(self) -> Path:
        return self.home / "admin.key"

    @property
    def tools(self) -> Path:
        return self.home / "tools"

    @property
    def templates(self) -> Path:
        return self.home / "templates"

    @property
    def downloads(self) -> Path:
        """What builds have downloaded from registries, by its digest."""
        return self.home / "cache" / "registry"

    @property
    def certificates(self) -> Path:
        """Caddy's: certificates with their keys, and its accounts with certificate authorities."""
        return self.home / "certificates"

    @property
    def acme(self) -> Path:
        """What Caddy reads to get certificates: the DNS provider's credentials, a file each, and `acme_roots`."""
        return self.runtime / "acme"

    @property
    def acme_roots(self) -> Path:
        """The roots of a certificate authority that the machine does not know; no credential is called so."""
        return self.acme / "roots.pem"

    @property
    def own_logs(self) -> Path:
        """Of vibeD's own processes."""
        return self.home / "log"

    @property
    def apps(self) -> Path:
        """What Caddy looks at: `<app id>.sock`, `<app id>/<key>.s` (vibed.router.markers)."""
        return self.runtime / "apps"

    @property
    def ingress(self) -> Path:
        """The ingress sockets of runs: `<app id>/<run>-<version>.sock`."""
        return self.runtime / "ingress"

    @property
    def sandboxes(self) -> Path:
        return self.runtime / "sb"

    @property
    def gates(self) -> Path:
        """The registry gates of builds that run now: `<id>/registry.sock`."""
        return self.runtime / "rg"

    @property
    def serve_socket(self) -> Path:
        return self.runtime / "serve" / "api.sock"

    @property
    def activator_socket(self) -> Path:
        return self.runtime / "serve" / "activator.sock"

    @property
    def fallback_socket(self) -> Path:
        """Caddy's own site that answers while vibeD is down."""
        return self.runtime / "caddy" / "fallback.sock"

    @property
    def front_socket(self) -> Path:
        """Caddy's door to the apps for `vibed serve`, which has no network: where it asks an app as a visitor would."""
        return self.runtime / "front" / "http.sock"

    @property
    def sites_socket(self) -> Path:
        """Of the site server, which answers for the sites with rules of their own (agent/sites)."""
        return self.runtime / "caddy" / "sites.sock"

    @property
    def controller_socket(self) -> Path:
        return self.runtime / "ctl" / "controller.sock"

    def run_log(self, app_id: str, run: int) -> Path:
        """Where the log of one run of an app is kept."""
        return self.logs / app_id / f"{run:010d}"


def _fallback(uid: int) -> Path:
    """Where the runtime files of a user are who has no XDG_RUNTIME_DIR."""
    return Path("/tmp") / f"vibed-{uid}"
