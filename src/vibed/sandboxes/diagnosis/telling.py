"""What went wrong with an app, told so that its author (often an AI agent) knows what to change.

A pure function of the error and of the app's last lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vibed.sandboxes.diagnosis.fault import plain
from vibed.sandboxes.driver import Exit, Run, RunFailed

_MISSING = (
    # Python: the top-level package decides; a module of the app's own that is missing has its name in the message too
    re.compile(r"(?:ModuleNotFoundError|ImportError): No module named '?([A-Za-z_][\w.]*)'?"),
    # Node: require() and import
    re.compile(r"Cannot find (?:module|package) '([^'./][^']*)'"),
    # Go
    re.compile(r"no required module provides package ([^\s;:]+)"),
    re.compile(r"cannot find module providing package ([^\s;:]+)"),
    re.compile(r": cannot find package \"?([\w./-]+)\"?"),
    # esbuild
    re.compile(r"Could not resolve \"([^\"./][^\"]*)\""),
    # workerd
    re.compile(r"No such module \"(?!node:|cloudflare:)([^\"]+)\""),
)
_OWN_FILE = re.compile(r"(?:Cannot find module '|Could not resolve \")(\.{1,2}/[^'\"]+|/app/[^'\"]+)['\"]")
_VARIABLE = re.compile(r"KeyError: '([A-Z][A-Z0-9_]*)'")
_ENVIRON = re.compile(r"os\.environ|<frozen os>|getenv|/os\.py")
_NO_FILE = re.compile(r"can't open file '([^']+)'|No such file or directory: '([^']+)'")
_NO_NETWORK = re.compile(
    r"Temporary failure in name resolution|Name or service not known|Failed to resolve"
    r"|getaddrinfo (?:ENOTFOUND|EAI_AGAIN)|Network is unreachable|ENETUNREACH|dial tcp: lookup|lookup \S+ on \S+: "
    r"|Could not resolve host"
)
_HOST = re.compile(
    r"(?:Failed to resolve '|ENOTFOUND |EAI_AGAIN |lookup |resolve host: ?|host=')((?:[\w-]+\.)+[a-z]{2,})",
    re.IGNORECASE,
)
_PYTHON_FRAME = re.compile(r'File "/app/([^"]+)", line (\d+)')
_OFFLINE = "let it start without the answer (catch the error), or do without the call"
_LISTEN = "a web app has to keep running and listen on the port in PORT (8080); bind 0.0.0.0 or 127.0.0.1"


def exit_of(wire: Mapping[str, Any] | None) -> Exit | None:
    """The `exit` object of docs/reference/supervisor.md."""
    if not wire:
        return None
    return Exit(
        code=wire.get("code"),
        signal=wire.get("signal") or None,
        oom=bool(wire.get("oom", False)),
        at=float(wire.get("at") or 0.0),
        tail=tuple(str(line) for line in wire.get("tail") or ()),
    )


def missing_module(lines: Sequence[str]) -> str | None:
    """The module or package that the lines say is not there; the last one, when there are several."""
    for line in reversed(lines):
        for pattern in _MISSING:
            if match := pattern.search(line):
                return match[1]
    return None


def called_out(lines: Sequence[str]) -> str | None:
    """What the app did on the network, when that is what it ended with."""
    for line in reversed(lines[-12:]):
        if _NO_NETWORK.search(line):
            host = _HOST.search(line)
            return f"called {host[1]}" if host else "called another machine"
    return None


def missing_variable(lines: Sequence[str]) -> str | None:
    """The environment variable whose absence ended a Python app."""
    for at in range(len(lines) - 1, -1, -1):
        if (match := _VARIABLE.search(lines[at])) and _ENVIRON.search("\n".join(lines[max(0, at - 8) : at])):
            return match[1]
    return None


def diagnose(code: str, message: str, details: Mapping[str, Any], run: Run) -> RunFailed:
    """The error that a failed `run` becomes: its code, what happened in one sentence, the cure, the last lines."""
    ended = exit_of(details.get("exit"))
    log = details.get("log") or ()
    text = log.splitlines() if isinstance(log, str) else [str(line) for line in log]
    lines = [plain(line) for line in (*(ended.tail if ended else text), *message.splitlines())]
    runtime = run.runtime
    if module := missing_module(lines):
        what = {"python": "Python module", "node": "npm package", "worker": "npm package", "go": "Go package"}
        return RunFailed(
            f"the app needs the {what.get(runtime.kind, 'module')} {module!r}, which template {runtime.template} "
            f"does not have and the source does not bring",
            code="DependenciesMissing",
            exit=ended,
            hint=_dependency_hint(runtime.kind),
        )
    if variable := missing_variable(lines):
        return _failed(
            code,
            f"the app needs the environment variable {variable}",
            ended,
            f"deploy again with it: `--env {variable}=…`, or `env` in the metadata",
        )
    if called := called_out(lines):
        return _failed(code, f"the app {called} when it started, and apps have no network here", ended, _OFFLINE)
    for line in reversed(lines):
        if match := _OWN_FILE.search(line):
            return _failed(code, f"{match[1]} is imported but is not in the source", ended, "add the file, or fix it")
        if (match := _NO_FILE.search(line)) and (ended is None or ended.code):
            return _failed(code, f"{match[1] or match[2]} is not there", ended, "check the path; the app runs in /app")
    if code == "StartTimeout":
        told = f"the app did not listen on a port within {run.start_timeout_s:g} s"
        return _failed(code, told + _last(text), ended, _LISTEN)
    if code == "DiskFull":
        return _failed(
            code, f"the app does not fit in its {run.limits.disk_mb} MB of disk", ended, "make the source smaller"
        )
    if code == "BuildFailed" and ended is not None:
        return _failed(code, f"{message}{_last(ended.tail)}", ended, "`vibed logs` has all that the build printed")
    if code == "StartFailed" and ended is not None:
        if ended.code == 0:
            return _failed(code, "the app ended at once, without an error and without listening", ended, _LISTEN)
        told = f"the app did not start: {ended.describe()}{_last(ended.tail)}{_where(lines)}"
        return _failed(code, told, ended, None)
    if code == "WorkerRejected":
        return _failed(code, f"the worker does not start: {message}", ended, None)
    return RunFailed(message or code, code=code, exit=ended)


def _failed(code: str, message: str, ended: Exit | None, hint: str | None) -> RunFailed:
    return RunFailed(message, code=code, exit=ended, hint=hint)


def _last(lines: Sequence[str]) -> str:
    line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {plain(line)[:300]}" if line else ""


def _where(lines: Sequence[str]) -> str:
    """The line of the app's own that a Python traceback ends in."""
    frames = [match for line in lines if (match := _PYTHON_FRAME.search(line))]
    return f" ({frames[-1][1]}, line {frames[-1][2]})" if frames else ""


def _dependency_hint(kind: str) -> str:
    if kind == "python":
        return "use what the template has (vibed templates lists it), or bring the package's folder in the source"
    if kind == "go":
        return "run `go mod vendor` and deploy the vendor folder with the source"
    return "use what the template has (vibed templates lists it), or bundle the package into the source"
