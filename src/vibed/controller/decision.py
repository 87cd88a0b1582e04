"""What to do next for one app: a pure function of what is wanted and what is there.

No clock, no I/O, no memory: `decide` is the whole policy of the controller and its tests need nothing else. A keeper
(`vibed.controller.keeper`) performs what it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vibed.apps.app import Phase

HEALTHY_AFTER_S = 60.0
"""A run that has served this long clears the count of crashes."""
MAX_BACKOFF_S = 60.0
LOST_ATTEMPTS = 5
"""How often a version that was never Ready is tried again when its sandbox (not the app) failed."""


class Stage(StrEnum):
    """Of one run, as the controller sees it."""

    STARTING = "starting"
    SWITCHING = "switching"
    """The app's name is being led to it: what serves until now is told to hand over. From here on it is drained like
    any that served, whatever else was deployed meanwhile."""
    SERVING = "serving"
    DRAINING = "draining"
    """It finishes its requests, then it is over."""
    STOPPING = "stopping"
    """Nothing is to be done about it."""


@dataclass(frozen=True, slots=True)
class RunView:
    """A run that is not over."""

    number: int
    version: int
    stage: Stage
    step: str = ""
    """Of a starting run: `claiming`, `injecting`, `starting`."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """How the latest attempts of one version failed."""

    reason: str
    message: str
    count: int = 1
    retry_at: float = 0.0
    app_fault: bool = True
    """Whether the app (not its sandbox) failed: a version that never served is then not tried again."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """From the app's spec."""

    version: int
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """What is there."""

    now: float
    runs: tuple[RunView, ...] = ()
    troubles: Mapping[int, Trouble] = field(default_factory=dict)
    """By version."""
    last_good: int | None = None
    """The newest version that was ever Ready."""
    blocked: tuple[str, str] | None = None
    """(reason, message) why the wanted version cannot start yet: its template is being built."""
    refused: tuple[str, str] | None = None
    """(reason, message) why the wanted version can never start here: no driver at the least isolation."""


@dataclass(frozen=True, slots=True)
class Start:
    """Begin a run of a version."""

    version: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Let a run that serves finish its requests, then end it."""

    run: int


@dataclass(frozen=True, slots=True)
class Stop:
    """End a run now."""

    run: int


@dataclass(frozen=True, slots=True)
class Purge:
    """Nothing of a deleted app is left: forget it."""


COMING = (Stage.STARTING, Stage.SWITCHING)
"""The stages of a run that is on its way to serve."""

Action = Start | Drain | Stop | Purge


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, what to say, and when to look again at the latest."""

    actions: tuple[Action, ...]
    phase: Phase
    reason: str
    message: str
    serving_version: int | None = None
    look_again_at: float | None = None


def backoff(crashes: int) -> float:
    """Seconds until the next attempt after so many failures in a row: 0, 1, 2, 4 … 60."""
    return 0.0 if crashes <= 1 else min(MAX_BACKOFF_S, 2.0 ** (crashes - 2))


def decide(wanted: Wanted, seen: Observed) -> Plan:
    """The plan for one app."""
    if wanted.deleted:
        return _delete(seen)
    serving = max((run for run in seen.runs if run.stage is Stage.SERVING), key=lambda run: run.number, default=None)
    if serving is not None and serving.version == wanted.version:
        return _settled(serving, seen)
    return _bring_up(wanted, seen, serving)


def _delete(seen: Observed) -> Plan:
    stops = tuple(Stop(run.number) for run in seen.runs if run.stage is not Stage.STOPPING)
    actions: tuple[Action, ...] = stops if seen.runs else (Purge(),)
    return Plan(actions, Phase.PENDING, "Deleting", "the app is being deleted")


def _settled(serving: RunView, seen: Observed) -> Plan:
    actions: list[Action] = []
    for run in seen.runs:
        if run is not serving and run.stage is Stage.STARTING:
            actions.append(Stop(run.number))
        elif run is not serving and run.stage is Stage.SERVING:
            actions.append(Drain(run.number))
    return Plan(
        tuple(actions), Phase.READY, "Running", f"version {serving.version} is serving", serving_version=serving.version
    )


def _bring_up(wanted: Wanted, seen: Observed, serving: RunView | None) -> Plan:
    trouble = seen.troubles.get(wanted.version)
    proven = seen.last_good is not None and seen.last_good >= wanted.version
    starting = next((run for run in seen.runs if run.stage in COMING and run.version == wanted.version), None)
    superseded = tuple(
        Stop(run.number)
        for run in seen.runs
        if run.stage is Stage.STARTING and run.version not in (wanted.version, _fallback(wanted, seen))
    )
    older = serving.version if serving is not None else None

    if seen.refused is not None:
        return _fall_back(wanted, seen, serving, superseded, *seen.refused)
    if starting is not None:
        if older is not None:
            return Plan(
                superseded,
                Phase.READY,
                "Updating",
                f"version {older} serves while version {wanted.version} starts",
                older,
            )
        phase = Phase.CLAIMING if starting.step in ("", "claiming") else Phase.STARTING
        return Plan(superseded, phase, phase.value, f"version {wanted.version}: {starting.step or 'claiming'}")
    if trouble is not None and not proven and (trouble.app_fault or trouble.count >= LOST_ATTEMPTS):
        return _fall_back(wanted, seen, serving, superseded, trouble.reason, trouble.message)
    if seen.blocked is not None:
        reason, message = seen.blocked
        if older is not None:
            return Plan(superseded, Phase.READY, reason, f"version {older} serves; {message}", older)
        return Plan(superseded, Phase.PENDING, reason, message)
    if trouble is not None and trouble.retry_at > seen.now:
        return _wait(wanted, trouble, superseded, older, proven)
    reason = "Restarting" if trouble is not None else "Starting"
    return Plan(
        (*superseded, Start(wanted.version)),
        Phase.READY if older is not None else Phase.CLAIMING,
        "Updating" if older is not None else reason,
        f"version {wanted.version} is being started",
        older,
    )


def _wait(wanted: Wanted, trouble: Trouble, superseded: tuple[Stop, ...], older: int | None, proven: bool) -> Plan:
    if older is not None:
        phase, reason = Phase.READY, "Updating"
    elif proven and trouble.count > 2:
        phase, reason = Phase.FAILED, "CrashLoop"
    else:
        phase, reason = Phase.STARTING, "Restarting"
    times = "once" if trouble.count == 1 else f"{trouble.count} times in a row"
    message = (
        f"version {wanted.version} failed {times}: {trouble.message} It is tried again by itself, every "
        f"{MAX_BACKOFF_S:g} s at the slowest; deploy a corrected version to end this sooner."
    )
    return Plan(superseded, phase, reason, message, older, look_again_at=trouble.retry_at)


def _fallback(wanted: Wanted, seen: Observed) -> int | None:
    good = seen.last_good
    return good if good is not None and good != wanted.version else None


def _fall_back(
    wanted: Wanted,
    seen: Observed,
    serving: RunView | None,
    stops: tuple[Stop, ...],
    reason: str,
    message: str,
) -> Plan:
    """The wanted version cannot serve: the last good one does, and the status says why."""
    good = _fallback(wanted, seen)
    failed = f"version {wanted.version} failed: {message}"
    if serving is not None:
        leftovers = tuple(Drain(run.number) for run in seen.runs if run.stage is Stage.SERVING and run is not serving)
        return Plan(
            (*stops, *leftovers),
            Phase.READY,
            reason,
            f"{failed} Version {serving.version} still serves.",
            serving.version,
        )
    if good is None:
        return Plan(stops, Phase.FAILED, reason, failed)
    if any(run.stage in COMING and run.version == good for run in seen.runs):
        return Plan(stops, Phase.STARTING, reason, f"{failed} Version {good} is being brought back.")
    trouble = seen.troubles.get(good)
    if trouble is not None and trouble.retry_at > seen.now:
        return Plan(
            stops,
            Phase.FAILED,
            reason,
            f"{failed} Version {good} failed too: {trouble.message}",
            None,
            trouble.retry_at,
        )
    return Plan((*stops, Start(good)), Phase.STARTING, reason, f"{failed} Version {good} is being brought back.")
