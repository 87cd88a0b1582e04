"""Configuration: `vibed.toml` and `VIBED_*` variables, validated once, at the edge.

Every process of vibeD reads it through `load` and hands what it needs to the depths. Standard library only: the
controller and the watchdog stay small. docs/reference/configuration.md lists every key (a test compares).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vibed.apps.errors import VibedError

DEFAULT_LISTEN = "127.0.0.1:18080"
LISTEN_WITH_CERTIFICATES = "0.0.0.0:80"
"""Of a vibeD with certificates, which is for everybody's browsers."""


class InvalidConfiguration(VibedError):
    """A key or value that vibeD does not understand; says which, and what is allowed."""

    code = "InvalidConfiguration"


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one vibeD."""

    home: Path
    """All data and what vibeD installed for itself (VIBED_HOME)."""
    listen: str = DEFAULT_LISTEN
    """host:port of the one port for API and apps (VIBED_LISTEN). With a `dns_provider` it only leads visitors to HTTPS,
    and is `0.0.0.0:80` where it is not given."""
    domain: str = "localhost"
    """Apps are at `<id>.<domain>`."""
    public_url: str = ""
    """`https://apps.example.com`: how visitors reach the domain where something else is in front of vibeD, such as a
    forwarded port or a load balancer that ends TLS; empty: as vibeD itself listens."""
    dns_provider: str = ""
    """Whose DNS has the domain: `cloudflare`, `rfc2136`, `route53`, or another that `caddy` knows. vibeD then gets a
    certificate for all names below the domain and serves HTTPS (docs/how-to/use-a-domain.md); empty: plain HTTP."""
    dns_credentials: Path | None = None
    """A TOML file with what the provider wants to know (`api_token = "…"`), which nobody but its owner may read."""
    dns_resolvers: tuple[str, ...] = ()
    """DNS servers (`host:port`) that are asked whether a record is there; empty: those of this machine."""
    listen_https: str = ""
    """host:port for HTTPS, with a `dns_provider`; empty: port 443 beside `listen`."""
    acme_ca: str = "https://acme-v02.api.letsencrypt.org/directory"
    """The ACME directory of the certificate authority."""
    acme_email: str = ""
    """Where the certificate authority writes to, if it does."""
    acme_ca_roots: Path | None = None
    """PEM file of the roots by which the authority itself is trusted, where this machine's own are not enough."""
    certificate: Path | None = None
    """On Kubernetes: folder with `tls.crt` and `tls.key` for `<domain>` and `*.<domain>`, which somebody else renews
    (a mounted Secret). They are read again when they have changed; no `dns_provider` is needed then."""
    caddy: Path | None = None
    """A Caddy of your own, which has the module of your DNS provider; otherwise vibeD brings one."""
    admin_key: str | None = None
    """The admin key (VIBED_ADMIN_KEY); generated into `home/admin.key` when not given."""
    uid_base: int | None = None
    """First uid of the 65,536 that this vibeD uses when it runs as root."""
    reserved_names: tuple[str, ...] = ()
    """Names that no app may have, besides vibeD's own."""
    max_source_mb: int = 50
    """Largest compressed source."""
    max_expanded_mb: int = 600
    """Largest unpacked source."""
    max_files: int = 20_000
    """Most files in a source."""
    owner_storage_mb: int = 2_000
    """What the sources and unpacked sites of one owner's apps may take together; where a new version needs room, the
    oldest sources go first."""
    deploy_wait_s: float = 9.5
    """How long `POST /v1/deploy` waits for Ready before it answers 202."""
    start_timeout_s: float = 60.0
    """How long an app may take until it listens."""
    build_timeout_s: float = 240.0
    """How long compiling an app in its sandbox may take, besides."""
    drain_s: float = 60.0
    """How long requests of a replaced version may go on."""
    general_driver: str = "gvisor"
    """Driver of the general lane: `gvisor` or `process`."""
    least_general: str = "kernel"
    """Least isolation of the general lane."""
    least_fast: str = "isolate"
    """Least isolation of code in the fast lane."""
    pools: Mapping[str, int] = field(default_factory=dict)
    """Warm sandboxes by template, where they differ from the template's own default."""
    refill_concurrency: int = 1
    """Sandboxes that are booted for the pools at the same time."""
    start_concurrency: int = 0
    """Apps of a driver that are started at the same time, half of them without anybody who waits; 0: twice as many as
    there are processors, and at least 4; on Kubernetes, where they start on other machines, 64."""
    warm_processes: bool = True
    """Whether Python and Node apps may start in a process that has already imported what they import."""
    layers: bool = True
    """Whether what an app needs beside its template is installed, in a sandbox, from the package registries; takes
    root. Otherwise such an app is refused."""
    prefetch_from_apps: int = 3
    """Kubernetes: how many apps have a layer until sandboxes that wait for an app have it ahead; 0: none has."""
    builds: bool = True
    """Whether what has to be built first (Vite, Next.js, TypeScript) is built, where dependencies are installed.
    Otherwise such an app is refused, with what to deploy."""
    template_dir: Path | None = None
    """More templates, one folder each."""
    big_packages: bool = True
    """Whether the second stage of templates (numpy, pandas, …) is built."""
    templates: tuple[str, ...] = ()
    """Only these templates are built; empty: all."""
    source_store: str = "served"
    """Where sources are kept: `served` (files in VIBED_HOME, for one machine) or `s3`. A change moves nothing."""
    s3_bucket: str = ""
    """The bucket, which is there already. Credentials are not settings: they are what AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY say where vibeD is started, a web identity's token, or the role of the machine."""
    s3_endpoint: str = ""
    """`https://host[:port]` of the S3 server; empty: AWS."""
    s3_region: str = "us-east-1"
    """The bucket's region."""
    s3_prefix: str = ""
    """What the names of objects begin with, with a slash at the end, where the bucket is not vibeD's alone."""
    s3_addressing: str = "path"
    """How the bucket is named in requests: `path` (`/bucket/…`) or `virtual` (`bucket.host`)."""
    source_cache_mb: int = 1024
    """With `s3`: how much copies of sources may take in VIBED_HOME, in MB; half of it is kept for long. On Kubernetes
    never more, and at least four times `max_source_mb`; on one machine more while more are in use."""
    copied_logs_mb: int = 512
    """Kubernetes: how much the controller's copies of apps' logs may take in VIBED_HOME, in MB. The oldest lines go
    first; pods keep their own last 8 MB."""
    registries: Mapping[str, object] = field(default_factory=dict)
    """Where builds get packages from, when not from where this machine's own package clients do: `pypi`, `npm`,
    `npm_scopes`, `go`, `sumdb`, `binaries`, `credentials`."""
    substrate: str = "machine"
    """Where apps run: on this `machine`, or on `kubernetes`, where the chart sets this and what follows."""
    namespace: str = "vibed"
    """Kubernetes: the namespace of vibeD's own pods, keys and Lease."""
    apps_namespace: str = "vibed-apps"
    """Kubernetes: the namespace of apps and their sandboxes."""
    keys_namespace: str = ""
    """Kubernetes: the namespace of API keys; empty: that of vibeD's own pods."""
    pod_name: str = ""
    """Kubernetes: of the pod in which this process runs."""
    pod_ip: str = ""
    """Kubernetes: its address."""
    source_hosts: tuple[str, ...] = ()
    """Kubernetes: hosts from which the sources of VibedApps that are applied by hand are fetched
    (`spec.source.tarballRef`); empty: none."""
    api_host: str = ""
    """Kubernetes: where routers find `vibed serve`; empty: its Service."""
    router_host: str = ""
    """Kubernetes: where `vibed serve` finds the way in; empty: its Service."""
    router_port: int = 80
    """Kubernetes: the port there."""
    source_urls: bool = True
    """Kubernetes: whether sandboxes get sources from the bucket by signed URLs, where their policy lets them; otherwise
    the controller sends them."""
    api_port: int = 8000
    """Kubernetes: where `vibed serve` answers."""
    wire_port: int = 7443
    """Kubernetes: where vibeD's own processes answer each other."""
    health_port: int = 8001
    """Kubernetes: where the controller and the router answer probes."""
    wire_certificates: Path = Path("/etc/vibed/wire")
    """Kubernetes: the folder with `ca.crt`, `tls.crt` and `tls.key` of vibeD's own connections."""
    claim_key: Path = Path("/etc/vibed/claims/key.pem")
    """Kubernetes: the private key (Ed25519, PEM) with which the controller signs claims; where there is `previous.pem`
    beside it, that is the key which it replaces, and which pods still know."""
    signing_key: Path = Path("/etc/vibed/keys/signing")
    """Kubernetes: the secret with which URLs are signed."""
    image_repository: str = "vibed"
    """Kubernetes: where the images of templates are, which are called `vibed-template-<name>`."""
    image_tag: str = ""
    """Kubernetes: their tag; empty: vibeD's version."""
    image_pull_policy: str = "IfNotPresent"
    """Kubernetes: `Always`, `IfNotPresent` or `Never`."""
    runtime_class: str = ""
    """Kubernetes: the RuntimeClass of sandboxes: `gvisor`, `kata-fc`, `kata-qemu`; empty: the cluster's own."""
    sandbox_pods: Mapping[str, object] = field(default_factory=dict)
    """Kubernetes: what else the pods of sandboxes have: `node_selector`, `tolerations`, `pull_secrets`."""
    sites_per_pod: int = 200
    """Kubernetes: how many static sites one pod serves at most; 1: each has its own."""
    site_pod_mb: int = 512
    """Kubernetes: what the files of all sites of one pod may take, and so the largest of them."""
    log_level: str = "info"
    """`debug`, `info`, `warning` or `error`."""

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def https(self) -> bool:
        """Whether vibeD has certificates and serves HTTPS."""
        return bool(self.dns_provider) or self.certificate is not None

    @property
    def https_host(self) -> str:
        return (self.listen_https or self.listen).rpartition(":")[0]

    @property
    def https_port(self) -> int:
        return int(self.listen_https.rpartition(":")[2]) if self.listen_https else 443

    @property
    def visited_https_port(self) -> int:
        """Where visitors find `https_port`: another, where a Service or a forwarded port leads there."""
        url = urlsplit(self.public_url)
        return (url.port or 443) if url.scheme == "https" else self.https_port

    @property
    def place(self) -> str:
        """Domain and port, as URLs have them."""
        if self.public_url:
            return self.public_url.partition("://")[2].rstrip("/")
        if self.https:
            return self.domain if self.https_port == 443 else f"{self.domain}:{self.https_port}"
        return f"{self.domain}:{self.port}"

    @property
    def api_url(self) -> str:
        """Where clients find the API."""
        return f"{self._scheme}://{self.place}"

    def app_url(self, app_id: str) -> str:
        """The live URL of an app."""
        return f"{self._scheme}://{app_id}.{self.place}"

    def own_url(self, name: str) -> str:
        """The URL of an app at a domain of its own."""
        port = self.visited_https_port
        return f"https://{name}" if port == 443 else f"https://{name}:{port}"

    @property
    def local_address(self) -> str:
        """host:port where this machine itself finds the API, in plain HTTP, certificate or not."""
        return f"{self.host if self.host not in EVERYWHERE else '127.0.0.1'}:{self.port}"

    @property
    def local_host(self) -> str:
        """The Host by which the API is asked for at `local_address`."""
        return f"127.0.0.1:{self.port}" if self.https else self.place

    @property
    def local_url(self) -> str:
        """As who asks at `local_address` names the API."""
        return f"http://{self.local_host}"

    @property
    def _scheme(self) -> str:
        if self.public_url:
            return self.public_url.partition("://")[0]
        return "https" if self.https else "http"


EVERYWHERE = ("0.0.0.0", "[::]", "*")
"""Hosts of `listen` that stand for all addresses of the machine."""


def default_home(environ: Mapping[str, str] = os.environ) -> Path:
    """VIBED_HOME, else /var/lib/vibed for root, else ~/.local/share/vibed."""
    if given := environ.get("VIBED_HOME"):
        return Path(given).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/vibed")
    return Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "vibed"


def load(environ: Mapping[str, str] = os.environ) -> Config:
    """Read `VIBED_CONFIG` or `<home>/vibed.toml`, then `VIBED_*`; the environment wins.

    Raises `InvalidConfiguration`.
    """
    home = default_home(environ)
    path = Path(environ["VIBED_CONFIG"]) if "VIBED_CONFIG" in environ else home / "vibed.toml"
    settings: dict[str, Any] = {}
    if "VIBED_CONFIG" in environ or path.exists():
        try:
            settings = tomllib.loads(path.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidConfiguration(f"{path} cannot be read: {error}") from error
    known = {f.name: f for f in fields(Config) if f.name != "home"}
    for name in settings:
        if name not in known:
            raise InvalidConfiguration(f"{path} has an unknown key {name!r}", hint=f"known keys: {', '.join(known)}")
    for name in known:
        value = environ.get(f"VIBED_{name.upper()}")
        if value is not None and value != "":
            settings[name] = _from_text(name, value)
    if settings.get("dns_provider"):
        settings.setdefault("listen", LISTEN_WITH_CERTIFICATES)
    return _validated(replace(Config(home), **{name: _coerced(name, value) for name, value in settings.items()}))


_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _from_text(name: str, text: str) -> Any:
    kind = _kind(name)
    try:
        if kind == "bool":
            return _BOOLEANS[text.lower()]
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        if kind == "list":
            return [part.strip() for part in text.split(",") if part.strip()]
        if kind == "table":
            return tomllib.loads(text)
        if kind == "map":
            return {key.strip(): int(n) for key, _, n in (part.partition("=") for part in text.split(",")) if key}
    except (ValueError, KeyError) as error:  # a TOMLDecodeError is a ValueError
        raise InvalidConfiguration(f"VIBED_{name.upper()}={text!r} is not a valid {kind}") from error
    return text


def _kind(name: str) -> str:
    annotation = str(next(f.type for f in fields(Config) if f.name == name))
    for prefix, kind in (
        ("bool", "bool"),
        ("int", "int"),
        ("float", "float"),
        ("tuple", "list"),
        ("Mapping[str, object]", "table"),
        ("Mapping", "map"),
        ("Path", "path"),
    ):
        if annotation.startswith(prefix):
            return kind
    return "str"


_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "list": (list,),
    "map": (dict,),
    "table": (dict,),
    "path": (str,),
    "str": (str,),
}


def _coerced(name: str, value: Any) -> Any:
    kind = _kind(name)
    right: bool = isinstance(value, _TYPES[kind]) and (kind == "bool" or not isinstance(value, bool))
    if not right:
        raise InvalidConfiguration(f"{name} must be a {kind}, not {value!r}")
    if kind == "list":
        return tuple(str(item) for item in value)
    if kind == "path":
        return Path(value).expanduser().absolute()
    if kind == "map" and not all(isinstance(item, int) and not isinstance(item, bool) for item in value.values()):
        raise InvalidConfiguration(f"{name} maps names to whole numbers, not {value!r}")
    return float(value) if kind == "float" else value


_REGISTRIES = {
    "pypi": "an address, or a list of them",
    "npm": "an address",
    "npm_scopes": "a table of addresses by scope",
    "go": "a GOPROXY list",
    "sumdb": "a GOSUMDB value",
    "binaries": "a table of addresses, or `off`, by source",
    "credentials": "a table of `file:PATH` or `env:NAME` by address",
}


_SANDBOX_PODS = {"node_selector": dict, "tolerations": list, "pull_secrets": list}


def _check_sandbox_pods(table: Mapping[str, object]) -> None:
    for name, value in table.items():
        if name not in _SANDBOX_PODS:
            raise InvalidConfiguration(
                f"[sandbox_pods] has no key {name!r}", hint=f"it knows {', '.join(_SANDBOX_PODS)}"
            )
        if not isinstance(value, _SANDBOX_PODS[name]):
            raise InvalidConfiguration(f"[sandbox_pods] {name} must be as a pod has it, not {value!r}")


def _check_registries(table: Mapping[str, object]) -> None:
    for name, value in table.items():
        if name not in _REGISTRIES:
            raise InvalidConfiguration(
                f"[registries] has an unknown key {name!r}", hint=f"known keys: {', '.join(_REGISTRIES)}"
            )
        if name in ("npm_scopes", "binaries", "credentials"):
            right = isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
        else:
            items = value if name == "pypi" and isinstance(value, list) else [value]
            right = all(isinstance(item, str) for item in items)
        if right and name == "credentials" and isinstance(value, dict):
            right = all(item.startswith(("file:", "env:")) for item in value.values())
        if not right:
            raise InvalidConfiguration(f"[registries] {name} must be {_REGISTRIES[name]}")


_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_PREFIX = re.compile(r"([A-Za-z0-9!_.*'()-]+/)*")


def _check_s3(config: Config) -> None:
    if not config.s3_bucket:
        raise InvalidConfiguration("source_store is s3, and s3_bucket is not set", hint="name a bucket that is there")
    if not _BUCKET.fullmatch(config.s3_bucket):
        raise InvalidConfiguration(f"s3_bucket is no name of a bucket: {config.s3_bucket!r}")
    if config.s3_endpoint:
        url = urlsplit(config.s3_endpoint)
        try:
            sound = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
        except ValueError:
            sound = False
        if not sound or url.path not in ("", "/") or url.query or url.fragment or "@" in url.netloc:
            raise InvalidConfiguration(
                "s3_endpoint must be http://host[:port] or https://host[:port], without the bucket and without a key",
                hint="the key is AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
            )
    if not _REGION.fullmatch(config.s3_region):
        raise InvalidConfiguration(f"s3_region is no name of a region: {config.s3_region!r}", hint="e.g. us-east-1")
    if not _PREFIX.fullmatch(config.s3_prefix) or ".." in config.s3_prefix:
        raise InvalidConfiguration(f"s3_prefix must be empty or end with a slash, not {config.s3_prefix!r}")
    if config.substrate == "kubernetes" and config.source_cache_mb < 4 * config.max_source_mb:
        # who fetches waits for room there, and would wait for every other one
        raise InvalidConfiguration(
            f"source_cache_mb must be at least four times max_source_mb ({4 * config.max_source_mb}), not"
            f" {config.source_cache_mb}",
            hint="raise source_cache_mb, of which the chart makes the volume, or lower max_source_mb",
        )


_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_WORD = re.compile(r"[a-z0-9_]{1,40}")
"""Names of Caddy's modules, and of their settings."""
_SERVER = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?")


def _check_address(name: str, value: str, example: str) -> None:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise InvalidConfiguration(f"{name} must be host:port, not {value!r}", hint=f"e.g. {example}")


def _check_certificates(config: Config) -> None:
    """What is written into Caddy's configuration cannot say anything else there."""
    if not _DOMAIN.fullmatch(config.domain) or len(config.domain) > 180:
        raise InvalidConfiguration(
            f"domain must be a name in lower-case ASCII, not {config.domain!r}", hint="e.g. apps.example.com"
        )
    if config.public_url and not re.fullmatch(
        rf"https?://{re.escape(config.domain)}(:\d{{1,5}})?/?", config.public_url
    ):
        raise InvalidConfiguration(
            f"public_url must be http:// or https://, the domain {config.domain!r} and perhaps a port,"
            f" not {config.public_url!r}"
        )
    if not config.https:
        return
    if "." not in config.domain:
        asked = f"dns_provider is {config.dns_provider!r}" if config.dns_provider else "there is a certificate"
        raise InvalidConfiguration(
            f"{asked}, but domain is {config.domain!r}",
            hint="set domain to the one below which apps shall be, such as apps.example.com",
        )
    if config.certificate is not None:
        if config.dns_provider:
            raise InvalidConfiguration("certificate and dns_provider are two ways to the same", hint="leave one out")
        if config.substrate != "kubernetes":
            raise InvalidConfiguration("certificate is for vibeD on Kubernetes", hint="here, dns_provider gets one")
        if not re.fullmatch(r"/[A-Za-z0-9._/-]*", str(config.certificate)):
            raise InvalidConfiguration(f"certificate must be a folder's plain path, not {str(config.certificate)!r}")
    elif not _WORD.fullmatch(config.dns_provider):
        raise InvalidConfiguration(f"dns_provider must be the name of a module of Caddy, not {config.dns_provider!r}")
    if config.listen_https:
        _check_address("listen_https", config.listen_https, "0.0.0.0:443")
    if config.https_port == config.port:
        raise InvalidConfiguration("listen and listen_https must be two ports", hint="e.g. 0.0.0.0:80 and 0.0.0.0:443")
    if not re.fullmatch(r"https://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/%-]*)?", config.acme_ca):
        raise InvalidConfiguration(f"acme_ca must be an https address, not {config.acme_ca!r}")
    if config.acme_email and not re.fullmatch(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+", config.acme_email):
        raise InvalidConfiguration(f"acme_email must be an address, not {config.acme_email!r}")
    for server in config.dns_resolvers:
        if not _SERVER.fullmatch(server):
            raise InvalidConfiguration(f"dns_resolvers must be host:port each, not {server!r}", hint="e.g. 9.9.9.9:53")


def _validated(config: Config) -> Config:
    _check_registries(config.registries)
    _check_sandbox_pods(config.sandbox_pods)
    _check_address("listen", config.listen, DEFAULT_LISTEN)
    _check_certificates(config)
    choices = {
        "general_driver": ("gvisor", "process"),
        "least_general": ("process", "kernel", "vm-emulated", "vm"),
        "least_fast": ("isolate", "process", "kernel", "vm-emulated", "vm"),
        "log_level": ("debug", "info", "warning", "error"),
        "substrate": ("machine", "kubernetes"),
        "image_pull_policy": ("Always", "IfNotPresent", "Never"),
        "source_store": ("served", "s3"),
        "s3_addressing": ("path", "virtual"),
    }
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise InvalidConfiguration(f"{name} must be one of {', '.join(allowed)}, not {getattr(config, name)!r}")
    for name in (
        "max_source_mb",
        "max_expanded_mb",
        "max_files",
        "owner_storage_mb",
        "refill_concurrency",
        "source_cache_mb",
        "copied_logs_mb",
        "sites_per_pod",
        "site_pod_mb",
    ):
        if getattr(config, name) < 1:
            raise InvalidConfiguration(f"{name} must be at least 1")
    if config.prefetch_from_apps < 0:
        raise InvalidConfiguration("prefetch_from_apps must be at least 1, or 0 for no layers ahead")
    if config.start_concurrency < 0:
        raise InvalidConfiguration("start_concurrency must be at least 1, or 0 for what fits the machine")
    for name in ("deploy_wait_s", "start_timeout_s", "build_timeout_s", "drain_s"):
        if not 0 <= getattr(config, name) <= 3_600:
            raise InvalidConfiguration(f"{name} must be between 0 and 3600 seconds")
    if config.source_store == "s3":
        _check_s3(config)
    if any(size < 0 for size in config.pools.values()):
        raise InvalidConfiguration("pools: a size cannot be negative")
    if config.uid_base is not None and not 1_000 < config.uid_base < 2**32 - 131_072:
        raise InvalidConfiguration("uid_base must leave room for 65,536 uids above 1,000")
    return config
