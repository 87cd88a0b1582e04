"""The error that a run becomes: what happened in a sentence, what to change, and whether trying again helps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vibed.sandboxes.diagnosis.about import About, Cause
from vibed.sandboxes.diagnosis.causes import cause
from vibed.sandboxes.diagnosis.fault import Fault, one_line
from vibed.sandboxes.diagnosis.finding import fault_in, find, written_before
from vibed.sandboxes.diagnosis.variables import listed
from vibed.sandboxes.driver import Exit, Run, RunFailed

_LISTEN = "a web app has to keep running and listen on the port in PORT (8080); bind 0.0.0.0 or 127.0.0.1"
_SERVE = "it, or each of its workers, is still busy with something before it serves: do less at import, or do it later"
_MEND = "mend it and deploy again: the same again ends the same. The app's log has all that it wrote"
_CRASHED = {
    "SIGSEGV": "code of a native library crashed",
    "SIGABRT": "it ended itself after an error of its runtime",
    "SIGILL": "it runs an instruction that this processor does not have",
    "SIGBUS": "code of a native library crashed",
    "SIGFPE": "code of a native library crashed",
    "SIGSYS": "it made a system call that a sandbox does not allow",
    "SIGKILL": "something killed it; most often that is too little memory",
}
_STATUSES = {
    126: "what the start command names cannot be executed",
    127: "a program of the start command is not there",
    134: "it ended itself after an error of its runtime",
    137: "it was killed; most often that is too little memory",
    139: "code of a native library crashed",
}


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


def why_it_ended(ended: Exit, about: About) -> tuple[str, str]:
    """A sentence without its full stop on how an app ended and why; what to change, empty where not known."""
    fault, found = _explained(ended.tail, about) if not ended.oom else (None, None)
    if ended.oom:
        bound = f" ({about.memory_mb} MB)" if about.memory_mb else ""
        return (
            f"it used more memory than its limit{bound} and was killed",
            "have it load less at once, or deploy it with more memory (`resources`)",
        )
    return f"{ended.describe()}{_why(fault, found)}{_meant(ended, fault)}", found.hint if found else ""


def why_it_answered_so(lines: Iterable[str], about: About) -> str | None:
    """The app's own error in what it printed when it answered with 5xx, and what to change where that is known."""
    if (fault := fault_in(lines)) is None:
        return None
    found = cause(fault, about)
    if found is None:
        return str(fault)
    told = f"{fault}; it {found.told}" if found.told else str(fault)
    return f"{told}. {found.hint[0].upper()}{found.hint[1:]}" if found.hint else told


def diagnose(code: str, message: str, details: Mapping[str, Any], run: Run) -> RunFailed:
    """The error that a failed `run` becomes: its code, what happened in one sentence, the cure, how it ended."""
    ended = exit_of(details.get("exit"))
    log = details.get("log") or ()
    text = log.splitlines() if isinstance(log, str) else [str(line) for line in log]
    limits = run.limits
    about = About.of(run.runtime, run.env, memory_mb=limits.memory_mb, disk_mb=limits.disk_mb, installed=run.installed)
    said = ended.tail if ended else text
    said = [*said, *message.splitlines()] if code not in ("StartTimeout", "StartFailed") else said
    fault, found = _explained(said, about)
    if fault is None and ": run " in message:
        # what the agent says of a program that it could not start stands in the message alone
        fault, found = _explained(message.splitlines(), about)
    found = None if ended and ended.oom else found
    if code == "DiskFull":
        return _failed(code, f"the app does not fit in its {run.limits.disk_mb} MB of disk", ended, "send less")
    if code in ("InjectFailed", "BundleFailed") and (found is None or found.code != "DependenciesMissing"):
        return RunFailed(message or code, code=code, exit=ended)
    if ended is not None and ended.oom:
        told, hint = why_it_ended(ended, about)
        return _failed(code, f"the app did not start: {told}", ended, hint)
    if fault is not None and found is not None and found.complete and code != "StartTimeout":
        fits = range(found.before) if found.before else None
        return _failed(found.code or code, f"the app {found.told}{_at(fault)}", ended, found.hint, fits)
    if code == "StartTimeout":
        within = f"within {run.start_timeout_s:g} s{_why(fault, found)}"
        if ports := details.get("listening"):
            opened = ", ".join(map(str, ports))
            told = f"the app listens on port {opened}, but no process of it took a connection {within}"
            return _failed(code, told, ended, found.hint if found else _SERVE)
        return _failed(code, f"the app did not listen on a port {within}", ended, found.hint if found else _LISTEN)
    if code == "BuildFailed":
        quoted = f": {fault}" if fault and str(fault) not in message else ""
        return _failed(code, f"{message}{quoted}", ended, found.hint if found else _MEND)
    if code == "StartFailed" and ended is not None:
        if ended.code == 0 and (fault is None or not fault.formal):
            told = "the app ended at once, without an error and without listening"
            return _failed(code, f"{told}{_why(fault, None)}", ended, _LISTEN)
        told, hint = why_it_ended(ended, about)
        hint = hint or (_reads(about) if fault is None else "") or _MEND
        return _failed(code, f"the app did not start: {told}", ended, _LISTEN if ended.code == 0 else hint)
    if code == "StartFailed" and fault is not None and "listening" in details:  # its workers failed, it did not end
        return _failed(code, f"{message}{_why(fault, found)}", ended, found.hint if found else _MEND)
    if code == "WorkerRejected":
        return _failed(code, f"the worker does not start: {message}", ended, found.hint if found else None)
    return RunFailed(message or code, code=code, exit=ended)


def _explained(lines: Sequence[str], about: About) -> tuple[Fault | None, Cause | None]:
    """The error in what an app wrote, and what is behind it: behind the one that was caught, where another was raised
    in its place."""
    fault = find(lines)
    found = cause(fault, about) if fault else None
    if fault is not None and found is None and (caught := written_before(lines, fault)):
        both = one_line([f"{fault.text}, after {caught.text}"])
        fault, found = replace(fault, text=both, place=fault.place or caught.place), cause(caught, about)
    return fault, found


def _failed(
    code: str, message: str, ended: Exit | None, hint: str | None, fits: Collection[int] | None = None
) -> RunFailed:
    return RunFailed(message, code=code, exit=ended, hint=hint, fits=fits)


def _reads(about: About) -> str:
    """What may be missing where an app ended without a word."""
    if not about.unset:
        return ""
    them = "variables" if len(about.unset) > 1 else "variable"
    are, it = ("are", "them") if len(about.unset) > 1 else ("is", "it")
    return (
        f"it reads the environment {them} {listed(about.unset)}, which {are} not set: deploy again with {it} among the"
        " app's environment variables if it needs them; otherwise have it say why it ends"
    )


def _why(fault: Fault | None, found: Cause | None) -> str:
    """The error and what is behind it, to follow a statement of what happened."""
    if fault is None:
        return ""
    if found is None or not found.told:
        return f": {fault}" if fault.formal else f"; its last words: {fault}"
    return f": it {found.told}{_at(fault)}" if found.complete else f": {str(fault).rstrip('.')}; it {found.told}"


def _at(fault: Fault) -> str:
    return f" ({fault.place})" if fault.place else ""


def _meant(ended: Exit, fault: Fault | None) -> str:
    """What a signal or a status says, where the app itself said nothing."""
    if fault is not None:
        return ""
    meant = _CRASHED.get(ended.signal or "") or _STATUSES.get(ended.code or 0)
    return f" ({meant})" if meant else ", and wrote nothing that says why" if not ended.tail else ""
