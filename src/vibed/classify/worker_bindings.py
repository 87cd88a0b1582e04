"""What wrangler's file binds to a worker: services of Cloudflare's, by kind.

None of them is here. A worker has an object in the place of each all the same, which fails with its name when it is
used (`drivers/workerd/shim/bindings.js`, which has the same kinds): what a worker answers without it is answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_KEPT = "keep the data in the worker's memory, or write the app for Node with node:sqlite"
_OUTSIDE = "no service elsewhere can be reached from here: have the worker do without"


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of service."""

    name: str
    """As the shim's table has it."""
    called: str
    """For a person, before a binding's name: `KV namespace`."""
    instead: str
    """What to do without it."""


KINDS: Mapping[str, Kind] = {
    "kv_namespaces": Kind("kv", "KV namespace", _KEPT),
    "d1_databases": Kind("d1", "D1 database", _KEPT),
    "r2_buckets": Kind("r2", "R2 bucket", _KEPT),
    "durable_objects": Kind("durable_object", "Durable Object namespace", _KEPT),
    "queues": Kind("queue", "queue", "do the work when it is asked for (ctx.waitUntil)"),
    "workflows": Kind("workflow", "workflow", "do the work when it is asked for (ctx.waitUntil)"),
    "services": Kind("service", "service", "put its code into this worker, or deploy it as an app of its own"),
    "dispatch_namespaces": Kind("dispatch", "dispatch namespace", "deploy each worker as an app of its own"),
    "hyperdrive": Kind("hyperdrive", "Hyperdrive configuration", _KEPT),
    "vectorize": Kind("vectorize", "Vectorize index", _KEPT),
    "analytics_engine_datasets": Kind("analytics", "Analytics Engine dataset", "write to the log (console.log)"),
    "ratelimits": Kind("rate_limit", "rate limit", "count in the worker's memory"),
    "ai": Kind("ai", "Workers AI", _OUTSIDE),
    "browser": Kind("browser", "Browser Rendering", _OUTSIDE),
    "images": Kind("images", "Images", _OUTSIDE),
    "media": Kind("media", "Media Transformations", _OUTSIDE),
    "send_email": Kind("email", "email sending", _OUTSIDE),
    "pipelines": Kind("pipeline", "pipeline", _OUTSIDE),
    "mtls_certificates": Kind("mtls", "mTLS certificate", _OUTSIDE),
    "vpc_services": Kind("vpc", "VPC service", _OUTSIDE),
    "secrets_store_secrets": Kind("secret", "Secrets Store secret", "give it to the app as an environment variable"),
    "unsafe": Kind("unsafe", "unsafe binding", _OUTSIDE),
    "wasm_modules": Kind("file", "WebAssembly module", "import it (import module from './x.wasm')"),
    "text_blobs": Kind("file", "text blob", "import it (import text from './x.txt')"),
    "data_blobs": Kind("file", "data blob", "import it (import data from './x.bin')"),
}
"""By the keys of wrangler's file."""

_MOST = 100
_LONGEST = 100


@dataclass(frozen=True, slots=True)
class Binding:
    """One of a worker's."""

    name: str
    """In `env`."""
    kind: Kind

    def data(self) -> dict[str, str]:
        """As the version keeps it and the shim is told it."""
        kind = self.kind
        return {"name": self.name, "kind": kind.name, "called": kind.called, "instead": kind.instead}


def declared(settings: Mapping[str, Any]) -> tuple[Binding, ...]:
    """Those that wrangler's file declares, each name once."""
    found: dict[str, Binding] = {}
    for key, kind in KINDS.items():
        for name in _names(settings.get(key), key):
            if len(found) < _MOST and name and len(name) <= _LONGEST:
                found.setdefault(name, Binding(name, kind))
    return tuple(found.values())


def note(bindings: tuple[Binding, ...]) -> str:
    """What a worker's owner is told; empty where there are none."""
    if not bindings:
        return ""
    named = [f"{one.kind.called} {one.name}" for one in bindings]
    shown = ", ".join(named[:8]) + (f" and {len(named) - 8} more" if len(named) > 8 else "")
    it = "it is not there, and a request that uses it" if len(named) == 1 else "none is there, and what uses one"
    instead = "; ".join(dict.fromkeys(one.kind.instead for one in bindings[:8]))
    return f"the worker binds {shown}: {it} fails with its name ({instead})"


def _names(value: Any, key: str) -> Iterator[str]:
    if key in ("wasm_modules", "text_blobs", "data_blobs"):
        yield from (str(name) for name in value) if isinstance(value, Mapping) else ()
        return
    if isinstance(value, Mapping):
        inner = value.get("bindings") or value.get("producers")
        if isinstance(inner, list):
            yield from _names(inner, key)
            return
        name = value.get("binding") or value.get("name")
        if isinstance(name, str):
            yield name
    elif isinstance(value, list):
        for item in value[:_MOST]:
            if isinstance(item, Mapping):
                yield from _names(item, key)
