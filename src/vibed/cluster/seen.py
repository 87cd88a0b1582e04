"""The status of a VibedApp: what the controller saw, as `kubectl` shows it and waits for it.

`Status.observed_generation` counts as vibeD does (`Ledger.changes`, and one for a deletion); `observedGeneration` is
Kubernetes' own, and follows when all of the spec has been looked at: `kubectl wait` counts on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from vibed.apps.app import App, Crash, Event, Phase, Result, Route, Status, Version
from vibed.apps.standing import of_app
from vibed.apps.store import NewEvent, VersionOutcome, VersionResult
from vibed.cluster import spec
from vibed.cluster.kinds import Object
from vibed.cluster.ledger import Ledger, Line, created_at

EVENTS_KEPT = 100
"""Of an app: its status is one object, written whole each time."""
_LONGEST_EVENT = 2_000
"""Characters; the message of the status has all of it."""


def read(app: Object, ledger: Ledger | None) -> Status:
    """What the controller last saw; as of an app that was just made where it saw nothing yet."""
    said = app.get("status") or {}
    crash = said.get("lastCrash")
    return Status(
        phase=_phase(said.get("phase")),
        reason=said.get("reason", "Accepted"),
        message=said.get("message", ""),
        serving_version=said.get("servingVersion"),
        observed_generation=said.get("observed", 0),
        isolation=said.get("isolation", ""),
        driver=said.get("driver", ""),
        sandbox=said.get("sandboxRef", ""),
        restarts=said.get("restarts", 0),
        last_crash=Crash(**(crash | {"at": _seconds(crash["at"])})) if crash else None,
        route=route(app),
        updated_at=_seconds(said["updatedAt"])
        if said.get("updatedAt")
        else (ledger.created_at if ledger is not None else created_at(app)),
        revision=said.get("revision", 0),
    )


def route(app: Object) -> Route | None:
    """Where its name leads."""
    said = (app.get("status") or {}).get("route")
    return Route(said["run"], said["version"], said["address"]) if said else None


def result(app: Object, line: Line) -> Result:
    """How the deploy of a version went so far."""
    said = _outcomes(app).get(line.number)
    return (
        Result() if said is None else Result(_phase(said.get("phase")), said.get("reason", ""), said.get("message", ""))
    )


def result_of(app: Object, line: Line) -> VersionResult:
    """The same, with what it took."""
    became = result(app, line)
    timings = (_outcomes(app).get(line.number) or {}).get("timings") or {}
    return VersionResult(
        line.number, line.created_at, became.phase, became.reason, became.message, {**line.timings, **timings}
    )


def with_outcome(version: Version, app: Object, ledger: Ledger) -> Version:
    """The version with what became of it and of its source."""
    line = ledger.line(version.number)
    if line is None:
        return version
    became = result(app, line)
    timings = (_outcomes(app).get(version.number) or {}).get("timings") or {}
    return replace(
        version, phase=became.phase, reason=became.reason, message=became.message,
        timings={**version.timings, **timings}, source_kept=line.kept,
    )  # fmt: skip


def runs(app: Object) -> int:
    """The number of the newest run that anything was told of."""
    return int((app.get("status") or {}).get("runs", 0))


def events(app: Object, ledger: Ledger) -> list[Event]:
    """What happened, the oldest first: what the status has, and what the ledger has beside it."""
    name = app["metadata"]["name"]
    kept = [
        Event(
            app_id=name, seq=said["seq"], at=_seconds(said["at"]), kind=said["kind"], reason=said["reason"],
            message=said.get("message", ""), version=said.get("version"),
        )
        for said in (app.get("status") or {}).get("events") or ()
    ]  # fmt: skip
    last = kept[-1].seq if kept else 0
    return [*kept, *(event for event in ledger.events if event.seq > last)]


def next_event(app: Object, ledger: Ledger | None, new: NewEvent, at: float, *, after: int = 0) -> Event:
    """An event with its number; `after`: the least number that it may not have."""
    last = 0
    if ledger is not None and (there := events(app, ledger)):
        last = there[-1].seq
    return Event(app["metadata"]["name"], max(last, after) + 1, at, new.kind, new.reason, new.message, new.version)


def written(
    app: Object,
    ledger: Ledger,
    view: App,
    status: Status | None,
    *,
    outcomes: Sequence[VersionOutcome],
    new_events: Sequence[NewEvent],
    begun: int,
    now: float,
    url: Callable[[str], str],
) -> dict[str, Any]:
    """The status after a record. `view`: the app before it; `begun`: runs so far. What is not ours in it stays."""
    said: dict[str, Any] = dict(app.get("status") or {})
    old = read(app, ledger)
    told = {} if status is None else _told(status)
    for name in _told(old) if status is not None else ():
        said.pop(name, None)
    said |= told
    by_number = _outcomes(app)
    for outcome in outcomes:
        before = by_number.get(outcome.number) or {}
        by_number[outcome.number] = {
            "number": outcome.number,
            "phase": outcome.phase.value,
            "reason": outcome.reason,
            "message": outcome.message,
            "timings": {**(before.get("timings") or {}), **outcome.timings},
        }
    kept = {line.number for line in ledger.lines}
    said["versions"] = [by_number[number] for number in sorted(by_number, reverse=True) if number in kept]
    happened = events(app, ledger)
    for new in new_events:
        seq = happened[-1].seq + 1 if happened else 1
        happened.append(Event(view.app_id, seq, now, new.kind, new.reason, new.message, new.version))
    said["events"] = [event_said(event) for event in happened[-EVENTS_KEPT:]]
    newest = ledger.newest
    said |= {
        "url": url(view.app_id),
        "template": view.runtime.template,
        "version": newest.number,
        "lastDeployedAt": _time(newest.created_at),
        "runs": max(begun, runs(app)),
    }
    if status is not None:
        said |= {"revision": old.revision + 1, "updatedAt": _time(now)}
        if status.observed_generation == view.generation and (view.deleted or spec.is_decided(app, ledger)):
            said["observedGeneration"] = app["metadata"]["generation"]
    became = Result()
    if said["versions"] and said["versions"][0]["number"] == newest.number:
        last = said["versions"][0]
        became = Result(_phase(last["phase"]), last.get("reason", ""), last.get("message", ""))
    standing = of_app(replace(view, status=old if status is None else status, result=became))
    ready(said, standing.phase is Phase.READY, standing.reason, standing.message, now)
    return said


def ready(said: dict[str, Any], is_ready: bool, reason: str, message: str, now: float) -> None:
    """Say in a status whether the newest version serves."""
    before = {condition["type"]: condition for condition in said.get("conditions") or ()}
    value = "True" if is_ready else "False"
    was = before.get("Ready") or {}
    since = was.get("lastTransitionTime") if was.get("status") == value else None
    before["Ready"] = {
        "type": "Ready",
        "status": value,
        "reason": reason or "Unknown",
        "message": message[:32_000],
        "lastTransitionTime": since or _time(now),
        **({"observedGeneration": said["observedGeneration"]} if "observedGeneration" in said else {}),
    }
    said["conditions"] = list(before.values())


def _told(status: Status) -> dict[str, Any]:
    crash, route = status.last_crash, status.route
    told: dict[str, Any] = {
        "phase": status.phase.value,
        "reason": status.reason,
        "message": status.message,
        "servingVersion": status.serving_version,
        "observed": status.observed_generation,
        "isolation": status.isolation,
        "driver": status.driver,
        "sandboxRef": status.sandbox,
        "restarts": status.restarts,
        "lastCrash": None,
        "route": None,
        "routeTarget": None,
        "podIP": None,
    }
    if crash is not None:
        told["lastCrash"] = {
            "at": _time(crash.at), "version": crash.version, "message": crash.message, "oom": crash.oom,
            "error": crash.error,
        }  # fmt: skip
    if route is not None:
        told |= {
            "route": {"run": route.run, "version": route.version, "address": route.address},
            "routeTarget": route.address,
            "podIP": route.address.rpartition(":")[0].strip("[]"),
        }
    return {name: value for name, value in told.items() if value is not None}


def event_said(event: Event) -> dict[str, Any]:
    """As the status has it."""
    said: dict[str, Any] = {
        "seq": event.seq,
        "at": _time(event.at),
        "kind": event.kind,
        "reason": event.reason,
        "message": event.message[:_LONGEST_EVENT],
    }
    return said if event.version is None else {**said, "version": event.version}


def _outcomes(app: Object) -> dict[int, Mapping[str, Any]]:
    return {said["number"]: said for said in (app.get("status") or {}).get("versions") or ()}


def _phase(text: str | None) -> Phase:
    try:
        return Phase(text or "")
    except ValueError:
        return Phase.PENDING


def _time(seconds: float) -> str:
    """RFC 3339, with as many digits as a float has: what is read is what was written, or each status would differ."""
    whole = math.floor(seconds)
    fraction = f"{seconds - whole:.9f}"[1:].rstrip("0").rstrip(".")
    return f"{datetime.fromtimestamp(whole, UTC).isoformat().removesuffix('+00:00')}{fraction}Z"


def _seconds(text: str) -> float:
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return float(f"{round(datetime.fromisoformat(f'{whole}+00:00').timestamp())}.{fraction or 0}")
