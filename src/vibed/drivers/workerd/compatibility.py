"""Which workerd a worker gets: its compatibility date and flags, and what of Node is there."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from vibed.sandboxes.driver import RunFailed

NEWEST_DATE = "2026-11-17"
"""The latest compatibility date that the pinned workerd knows."""
DEFAULT_DATE = "2026-11-01"
_OLDEST_DATE = "2021-11-02"
_PROCESS_ENV = "nodejs_compat_populate_process_env"
_NODE_FLAGS = (
    "nodejs_compat_v2", "enable_nodejs_process_v2", "enable_nodejs_http_modules", "enable_nodejs_http_server_modules",
    *(f"enable_nodejs_{name}_module" for name in (
        "child_process", "cluster", "console", "dgram", "domain", "fs", "http2", "inspector", "os", "perf_hooks",
        "punycode", "readline", "repl", "sqlite", "stream_wrap", "trace_events", "tty", "v8", "vm", "wasi",
        "worker_threads",
    )),
)  # fmt: skip
"""What packages for Node look for and workerd has, whatever the worker's compatibility date: Wrangler fills it in when
it bundles. Not the timers of Node, which change what `setTimeout` answers."""
NODE_MODULES = (
    "assert",
    "async_hooks",
    "buffer",
    "console",
    "constants",
    "crypto",
    "diagnostics_channel",
    "dns",
    "events",
    "fs",
    "fs/promises",
    "http",
    "https",
    "module",
    "net",
    "os",
    "path",
    "perf_hooks",
    "process",
    "punycode",
    "querystring",
    "stream",
    "stream/promises",
    "stream/web",
    "string_decoder",
    "timers",
    "timers/promises",
    "tls",
    "tty",
    "url",
    "util",
    "util/types",
    "worker_threads",
    "zlib",
    "child_process",
    "cluster",
    "http2",
    "readline",
    "vm",
    "v8",
)
"""Names under which packages import what is Node's."""


def date_of(value: object) -> str:
    """The compatibility date of wrangler's file, of those that workerd knows. Raises `RunFailed`."""
    if value is None or value == "":
        return DEFAULT_DATE
    try:
        date = datetime.date.fromisoformat(str(value))
    except ValueError:
        raise RunFailed(
            f"compatibility_date {value!r} is not a date", code="WorkerRejected", hint="write it as YYYY-MM-DD"
        ) from None
    return min(max(date.isoformat(), _OLDEST_DATE), NEWEST_DATE)


def flags_of(value: object) -> list[str]:
    """The compatibility flags of wrangler's file, and those that packages for Node need."""
    flags = [str(flag) for flag in value] if isinstance(value, Sequence) and not isinstance(value, str) else []
    flags = [flag for flag in flags if flag != "experimental"]
    if "no_nodejs_compat" not in flags:
        wanted = ("nodejs_compat", *_NODE_FLAGS)
        flags += [flag for flag in wanted if flag not in flags and not {_opposite(flag), f"no_{flag}"} & set(flags)]
    if not any("populate_process_env" in flag for flag in flags):
        flags.append(_PROCESS_ENV)
    return flags


def _opposite(flag: str) -> str:
    return flag.replace("enable_", "disable_", 1)
