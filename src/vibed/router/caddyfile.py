"""Caddy's whole configuration, from the files beside this: one wildcard route, written once, never reloaded for an app.

`Caddyfile` has what is the same everywhere, `Caddyfile.machine` how apps are reached on this machine, `Caddyfile.pods`
how in pods of a cluster (`vibed.router.addressed`), `Caddyfile.http` the sites of a vibeD that serves plain HTTP, and
`Caddyfile.https` those of one with certificates (docs/how-to/use-a-domain.md).

A request for `<id>.<domain>` is for the app's site, if it has one, and otherwise for its socket (`vibed.router.markers`).
When that cannot be dialled, because there is none or nobody listens, the activator is asked (a bodiless GET that it
holds until the app is there): 204 means "look again", anything else is the answer. So a request with a body is forwarded
once, by Caddy, and one that has reached an app is never replayed; one for a file of a site is, since vibeD's own reader
answers it. While vibeD is down the fallback site answers 503 with Retry-After. The second look is Caddy's handling of an
error, whose status it would give to a file that it serves then: a site is therefore served with an explicit 200, and
whole. A socket that cannot be dialled is nothing to report (any name that is no app's is one), so Caddy's log of failed
requests is off, and its proxy's with it: who answers instead has a log of its own.

The proxy is transparent: what Caddy would change unasked is switched off here, and what it changes all the same is
listed in docs/reference/proxy.md, whose table `tests/e2e/test_proxy_conformance.py` holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from vibed.apps.domains import MOST_LABELS
from vibed.config import EVERYWHERE, Config
from vibed.drivers.media_types import TYPES, UNKNOWN
from vibed.layout import Layout

HEAD = "64KiB"
"""The largest head of a request. Apps' own limits are below it (Node 16 KiB), the ingress' above."""
HSTS_S = 30 * 86_400
"""For how long a browser asks for a name by HTTPS alone. Not longer: an operator who goes back to plain HTTP waits for
it. Never for an app's own domain, which its owner may take elsewhere."""
ASK_PATH = "/.well-known/vibed/certificate"
"""What Caddy asks itself, of this machine only, before it gets a certificate for `?domain=`: whether the name is
registered (`vibed.router.markers`). So vibeD need not be there for it."""

_LABELS = range(2, MOST_LABELS + 1)
"""How many an app's own domain may have."""


def _error(code: str, message: str, hint: str = "", *, retryable: bool = False) -> str:
    """The body of an error, as the API has them."""
    details: dict[str, object] = {"retryable": retryable}
    if hint:
        details["hint"] = hint
    return json.dumps({"code": code, "message": message, "details": details})


def caddyfile(config: Config, layout: Layout, credentials: Sequence[str] = ()) -> str:
    """The Caddyfile of one vibeD; `credentials` are the names of what the DNS provider gets, whose values are in files
    of these names in `layout.acme`.
    """
    largest = 2 * config.max_source_mb * 1_000_000  # what is somewhat too large the API itself refuses, by its route
    in_pods = config.substrate == "kubernetes"
    values = {
        "HOW_APPS_ARE_REACHED": _read("Caddyfile.pods" if in_pods else "Caddyfile.machine").rstrip(),
        "SITES_OF_ALL": _read("Caddyfile.https" if config.https else "Caddyfile.http"),
        "HEAD": HEAD,
        "LARGEST": str(largest),
        "RESTARTING": _error("VibedUnavailable", "vibeD is restarting", "try again in a few seconds", retryable=True),
        "WENT_AWAY": _error(
            "VibedUnavailable",
            "vibeD went away during the request",
            "try again in a few seconds; a deploy with an Idempotency-Key is safe to repeat",
            retryable=True,
        ),
        "TOO_LARGE": _error("BodyTooLarge", f"the body has more than {largest} bytes", "send less"),
        "MOVED": _error("AppMoved", "the app is just being moved", "try again", retryable=True),
        "UNREACHABLE": _error("AppUnreachable", "the connection to the app broke before it answered"),
        "UNKNOWN_HOST": _error(
            "UnknownHost",
            "nothing is served under this name",
            f"apps are at <id>.{config.place}, the API at {config.place}",
        ),
        "APPS": str(layout.apps),
        "ACTIVATOR": str(layout.activator_socket),
        "FALLBACK": str(layout.fallback_socket),
        "FRONT": str(layout.front_socket),
        "API": f"{config.api_host or f'vibed.{config.namespace}.svc'}:{config.api_port}"
        if in_pods
        else f"unix/{layout.serve_socket}",
        "BIND": config.host.strip("[]"),
        "DOMAIN": config.domain,
        "PORT": str(config.port),
        "LABEL": str(len(config.domain.split("."))),
        "SITES": str(layout.sites_socket),
        "TYPES": "\n\t\t".join(
            f'.{end} "{kind}"' for ending, kind in TYPES.items() for end in (ending, ending.upper())
        ),
        "UNKNOWN": UNKNOWN,
        **(_with_certificates(config, layout, credentials) if config.https else _without_certificates(config)),
    }
    text = _read("Caddyfile")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _without_certificates(config: Config) -> dict[str, str]:
    hosts = [config.domain, "127.0.0.1", "[::1]"]
    return {
        "AUTO_HTTPS": "off",
        "CERTIFICATES": "",
        "PROTOCOLS": "h1 h2c",
        "API_HOSTS": " ".join(f"http://{host}:{config.port}" for host in hosts),
    }


def _with_certificates(config: Config, layout: Layout, credentials: Sequence[str]) -> dict[str, str]:
    names = ["localhost", "127.0.0.1", "[::1]"]
    own = [] if config.host in EVERYWHERE else [config.host]
    acme = [f"dir {config.acme_ca}"]
    if config.acme_email:
        acme.append(f"email {config.acme_email}")
    if config.acme_ca_roots is not None:
        acme.append(f"trusted_roots {layout.acme_roots}")
    return {
        "AUTO_HTTPS": "disable_redirects",
        "PROTOCOLS": "h1 h2 h2c",
        "CERTIFICATES": "\n\t".join(
            (
                f"http_port {config.port}",
                f"https_port {config.https_port}",
                f"storage file_system {layout.certificates}",
                "on_demand_tls {",
                f"\task http://{config.local_address}{ASK_PATH}",
                "}",
            )
        ),
        "LOCAL_HOSTS": " ".join(f"http://{host}:{config.port}" for host in dict.fromkeys(names + own)),
        "LOCAL_ADDRESSES": " ".join(["127.0.0.0/8", "::1", *(host.strip("[]") for host in own)]),
        "ASK_PATH": ASK_PATH,
        # before what is in it
        "WILDCARD": "\n\t\t".join(_wildcard(config, layout, credentials)),
        "ACME": "\n\t\t\t".join(acme),
        "HSTS_S": str(HSTS_S),
        "HTTPS_PORT": str(config.https_port),
        "HTTPS_SUFFIX": "" if config.visited_https_port == 443 else f":{config.visited_https_port}",
        "BIND_HTTPS": config.https_host.strip("[]"),
        # in two steps, since what a regular expression leads to is taken as it is
        "OWN_LABELS": "\n\t\t".join(rf"~^[^.]+([.][^.]+){{{n - 1}}}$ {n}" for n in _LABELS),
        "OWN_NAMES": "\n\t\t".join(f"{n} {'.'.join(f'{{labels.{at}}}' for at in reversed(range(n)))}" for n in _LABELS),
    }


def _wildcard(config: Config, layout: Layout, credentials: Sequence[str]) -> Iterator[str]:
    """How the certificate of all apps is got."""
    if config.certificate is not None:
        yield f"get_certificate files {config.certificate / 'tls.crt'} {config.certificate / 'tls.key'}"
        return
    yield "issuer acme {"
    yield "\t@ACME@"
    yield f"\tdns {config.dns_provider} {{"
    yield from (f"\t\t{name} {{file.{layout.acme / name}}}" for name in credentials)
    yield "\t}"
    if config.dns_resolvers:
        yield f"\tresolvers {' '.join(config.dns_resolvers)}"
    yield "}"


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text()
