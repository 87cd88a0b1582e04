"""What to do next for one app: a pure function of what is wanted and what is there.

No clock, no I/O, no memory: `decide` is the whole policy of the controller and its tests need nothing else. A keeper
(`vibed.controller.keeper`) performs what it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vibed.apps.app import Phase
from vibed.controller.trouble import (
    AGAIN,
    PROVING_S,
    RUNS_AGAIN,
    SOUND_AFTER_S,
    Trouble,
    failed_so_far,
    gives_way,
    loops,
)

BLOCKED_S = 5.0
"""How often it is looked how what a version waits for stands, should nobody tell."""
SLOW = ("TemplateBuilding", "MemoryShort")
"""Reasons for which a version waits and that may last: nobody is kept waiting for its end."""


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
    """Of a starting run: `preparing`, `building`, `claiming`, `injecting`, `starting`."""
    waits_for: str = ""
    """For whom or what, while it has no turn to start yet."""
    served_s: float = 0.0
    """How long it has served."""
    note: str = ""
    """Of a serving run: what its owner should know of how it is served; the rest of a sentence."""
    building: str = ""
    """What of it is installed or built, while it waits for that; the rest of a sentence."""
    moving: bool = False
    """Of a serving run: whether another of its version is to take over, since its place is to be given up."""

    @property
    def told(self) -> str:
        """Of a serving run, in words."""
        return f"version {self.version} is serving{f'; it {self.note}' if self.note else ''}"


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
    good: frozenset[int] = frozenset()
    """Versions that were Ready and did not turn out bad since."""
    sound: bool = False
    """Whether a run of the wanted version ever served for `SOUND_AFTER_S`."""
    blocked: tuple[str, str] | None = None
    """(reason, message) why the wanted version cannot start yet: its template is being built, memory is short."""
    short: str | None = None
    """Why no older version can be brought back yet, where memory is short."""
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
    heir = next((run for run in seen.runs if run.stage in COMING and run.version == serving.version), None)
    if not serving.moving:
        heir = None
    actions: list[Action] = [Stop(run.number) for run in seen.runs if run.stage is Stage.STARTING and run is not heir]
    drains, kept = _let_go(serving, seen)
    actions += drains
    again = [seen.now + PROVING_S - serving.served_s] if kept else []
    phase, reason, message = Phase.READY, "Running", serving.told
    trouble = seen.troubles.get(serving.version)
    if serving.moving and heir is None and seen.blocked is None and seen.refused is None:
        if trouble is None or trouble.retry_at <= seen.now:
            actions.append(Start(serving.version))
        else:
            again.append(trouble.retry_at)
    if trouble is not None and loops(trouble) and serving.served_s < SOUND_AFTER_S:
        phase, reason = Phase.FAILED, "CrashLoop"
        message = failed_so_far(serving.version, trouble, RUNS_AGAIN)
        again.append(seen.now + SOUND_AFTER_S - serving.served_s)
    return Plan(tuple(actions), phase, reason, message, serving.version, min(again, default=None))


def _let_go(serving: RunView | None, seen: Observed) -> tuple[tuple[Drain, ...], bool]:
    """What serves besides the newest and is of no more use; and whether one is kept at hand."""
    others = [run for run in seen.runs if run.stage is Stage.SERVING and run is not serving]
    newest = max(others, key=lambda run: run.number, default=None)
    kept = serving is not None and newest is not None and _at_hand(newest, serving, seen)
    return tuple(Drain(run.number) for run in others if not (kept and run is newest)), kept


def _at_hand(older: RunView, serving: RunView, seen: Observed) -> bool:
    """Whether an older version is kept, so that going back to it costs no visitor anything."""
    return (
        serving.served_s < PROVING_S
        and not seen.sound
        and older.version in seen.good
        and older.version < serving.version
    )


def _bring_up(wanted: Wanted, seen: Observed, serving: RunView | None) -> Plan:
    trouble = seen.troubles.get(wanted.version)
    lived = wanted.version in seen.good or (trouble is not None and trouble.served_s is not None)
    starting = next((run for run in seen.runs if run.stage in COMING and run.version == wanted.version), None)
    superseded: tuple[Action, ...] = tuple(
        Stop(run.number)
        for run in seen.runs
        if run.stage is Stage.STARTING and run.version not in (wanted.version, _fallback(wanted, seen))
    )
    if not any(run.stage is Stage.SWITCHING for run in seen.runs):
        # until the name leads to that one it may lead to any of these
        superseded += _let_go(serving, seen)[0]
    older = serving.version if serving is not None else None

    if seen.refused is not None:
        return _fall_back(wanted, seen, serving, superseded, *seen.refused)
    if starting is not None:
        again = seen.now + BLOCKED_S if starting.waits_for or starting.building else None
        return _meanwhile(older, superseded, *_on_its_way(starting, trouble, lived=lived), look_again_at=again)
    if trouble is not None and gives_way(trouble, sound=seen.sound, lived=lived, older=_fallback(wanted, seen)):
        return _fall_back(wanted, seen, serving, superseded, trouble.reason, trouble.message)
    if seen.blocked is not None:
        return _meanwhile(older, superseded, Phase.PENDING, *seen.blocked, look_again_at=seen.now + BLOCKED_S)
    if trouble is not None and trouble.retry_at > seen.now:
        phase, reason = _down(trouble, lived=lived)
        message = failed_so_far(wanted.version, trouble, AGAIN)
        return _meanwhile(older, superseded, phase, reason, message, look_again_at=trouble.retry_at)
    phase, reason = _down(trouble, lived=lived) if trouble is not None else (Phase.CLAIMING, "Starting")
    message = f"version {wanted.version} is being started"
    if reason == "CrashLoop" and trouble is not None:
        message = failed_so_far(wanted.version, trouble, "It is being started again.")
    return _meanwhile(older, (*superseded, Start(wanted.version)), phase, reason, message)


def _on_its_way(starting: RunView, trouble: Trouble | None, *, lived: bool) -> tuple[Phase, str, str]:
    """Phase, reason and message of a version that is starting."""
    who = f"version {starting.version}"
    if trouble is not None and lived and loops(trouble):
        return Phase.FAILED, "CrashLoop", failed_so_far(starting.version, trouble, "It is being started again.")
    if starting.building:
        message = f"{who} waits for {starting.building}; it becomes Ready by itself"
        reason = "TemplateBuilding" if starting.step == "preparing" else "BuildingDependencies"
        return Phase.PENDING, reason, message
    if starting.waits_for:
        return Phase.PENDING, "WaitingForTurn", f"{who} waits for its turn: {starting.waits_for}"
    phase = Phase.CLAIMING if starting.step in ("", "claiming") else Phase.STARTING
    return phase, phase.value, f"{who}: {starting.step or 'claiming'}"


def _meanwhile(
    older: int | None,
    actions: tuple[Action, ...],
    phase: Phase,
    reason: str,
    message: str,
    *,
    look_again_at: float | None = None,
) -> Plan:
    """How the app stands while the wanted version is in `phase`: an older one that serves makes it Ready."""
    if older is None:
        return Plan(actions, phase, reason, message, None, look_again_at)
    reason = "Updating" if phase is not Phase.PENDING else reason
    return Plan(actions, Phase.READY, reason, f"version {older} serves; {message}", older, look_again_at)


def _down(trouble: Trouble, *, lived: bool) -> tuple[Phase, str]:
    """Phase and reason of a version that has failed and is tried again."""
    return (Phase.FAILED, "CrashLoop") if lived and loops(trouble) else (Phase.STARTING, "Restarting")


def _fallback(wanted: Wanted, seen: Observed) -> int | None:
    """The newest good version besides the wanted one, and rather one that does not fail again and again either."""
    others = [number for number in seen.good if number != wanted.version]
    lasting = [number for number in others if (trouble := seen.troubles.get(number)) is None or not loops(trouble)]
    return max(lasting or others, default=None)


def _fall_back(
    wanted: Wanted,
    seen: Observed,
    serving: RunView | None,
    stops: tuple[Action, ...],
    reason: str,
    message: str,
) -> Plan:
    """The wanted version cannot serve: the last good one does, and the status says why."""
    good = _fallback(wanted, seen)
    failed = f"version {wanted.version} failed: {message}"
    if serving is not None:
        return Plan(
            stops,
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
    if seen.short is not None:
        waits = f"{failed} Version {good} is to be brought back, but {seen.short}"
        return Plan(stops, Phase.FAILED, reason, waits, None, seen.now + BLOCKED_S)
    return Plan((*stops, Start(good)), Phase.STARTING, reason, f"{failed} Version {good} is being brought back.")
