"""Caddy's whole configuration, from the `Caddyfile` beside this: one wildcard route, written once, never reloaded for an app.

A request for `<id>.<domain>` is for the app's site, if it has one, and otherwise for its socket (`vibed.router.markers`).
When that cannot be dialled, because there is none or nobody listens, the activator is asked (a bodiless GET that it
holds until the app is there): 204 means "look again", anything else is the answer. So a request with a body is forwarded
once, by Caddy, and one that has reached an app is never replayed; one for a file of a site is, since vibeD's own reader
answers it. While vibeD is down the fallback site answers 503 with Retry-After. The second look is Caddy's handling of an
error, whose status it would give to a file that it serves then: a site is therefore served with an explicit 200, and
whole. A socket that cannot be dialled is nothing to report (any name that is no app's is one), so Caddy's log of failed
requests is off: who answers instead has a log of its own.

The proxy is transparent: what Caddy would change unasked is switched off here, and what it changes all the same is
listed in docs/reference/proxy.md, whose table `tests/e2e/test_proxy_conformance.py` holds.
"""

from __future__ import annotations

import json
from pathlib import Path

from vibed.config import Config
from vibed.drivers.media_types import TYPES, UNKNOWN
from vibed.layout import Layout

HEAD = "64KiB"
"""The largest head of a request. Apps' own limits are below it (Node 16 KiB), the ingress' above."""


def _error(code: str, message: str, hint: str = "", *, retryable: bool = False) -> str:
    """The body of an error, as the API has them."""
    details: dict[str, object] = {"retryable": retryable}
    if hint:
        details["hint"] = hint
    return json.dumps({"code": code, "message": message, "details": details})


def caddyfile(config: Config, layout: Layout) -> str:
    """The Caddyfile of one vibeD."""
    hosts = [config.domain, "127.0.0.1", "[::1]"]
    largest = 2 * config.max_source_mb * 1_000_000  # what is somewhat too large the API itself refuses, by its route
    place = f"{config.domain}:{config.port}"
    values = {
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
        "UNREACHABLE": _error("AppUnreachable", "the connection to the app broke before it answered"),
        "UNKNOWN_HOST": _error(
            "UnknownHost", "nothing is served under this name", f"apps are at <id>.{place}, the API at {place}"
        ),
        "APPS": str(layout.apps),
        "ACTIVATOR": str(layout.activator_socket),
        "FALLBACK": str(layout.fallback_socket),
        "FRONT": str(layout.front_socket),
        "SERVE": str(layout.serve_socket),
        "API_HOSTS": " ".join(f"http://{host}:{config.port}" for host in hosts),
        "BIND": config.host.strip("[]"),
        "DOMAIN": config.domain,
        "PORT": str(config.port),
        "LABEL": str(len(config.domain.split("."))),
        "SITES": str(layout.sites_socket),
        "TYPES": "\n\t\t".join(
            f'.{end} "{kind}"' for ending, kind in TYPES.items() for end in (ending, ending.upper())
        ),
        "UNKNOWN": UNKNOWN,
    }
    text = Path(__file__).with_name("Caddyfile").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
