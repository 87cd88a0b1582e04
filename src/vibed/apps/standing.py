"""How one version stands: what every surface says of it, in the same words.

An app can serve one version while another is on its way or has failed. So a phase is always about a *version*, and
`serving_version` says what the URL shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from vibed.apps.app import App, Phase, Result

WAITS = ("BuildingDependencies", "MemoryShort", "TemplateBuilding", "WaitingForTurn")
"""Reasons with which a version is Pending: what it waits for."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One version of an app."""

    version: int
    phase: Phase
    reason: str
    message: str
    serving_version: int | None
    """What the app's URL shows now."""
    final: bool
    """Whether waiting is of no use: it serves, or it failed, or another version took its place."""

    @property
    def live(self) -> bool:
        """Whether the URL shows this version."""
        return self.serving_version == self.version


def of_app(app: App) -> Standing:
    """Of the version that the app should serve."""
    return standing(app, app.version, app.result)


def standing(app: App, number: int, result: Result) -> Standing:
    """Of version `number`, whose deploy went as `result` says."""
    phase, reason, message, final = _standing(app, number, result)
    return Standing(number, phase, reason, message, app.status.serving_version, final)


def _standing(app: App, number: int, result: Result) -> tuple[Phase, str, str, bool]:
    status = app.status
    looked = status.observed_generation == app.generation
    if status.serving_version == number:
        # one that fails again and again runs in between, and is no more Ready for that
        loops = number == app.version and status.phase is Phase.FAILED
        return Phase.FAILED if loops else Phase.READY, *_of_the_one_that_serves(app, number), True
    if result.phase is Phase.FAILED:
        return Phase.FAILED, result.reason, _failed(app, number, result), True
    if number != app.version:
        if result.phase is Phase.READY:
            return Phase.READY, "Replaced", f"version {number} served until version {app.version} was deployed", True
        if looked:
            return Phase.FAILED, "Superseded", f"version {app.version} was deployed before this one was ready", True
        return result.phase, result.reason, f"version {app.version} was deployed meanwhile", False
    if not looked:
        # what the status says is about an earlier version
        return Phase.PENDING, result.reason or "Accepted", result.message, False
    phase = status.phase
    if phase is Phase.READY:
        # another version is, and this one is on its way
        phase = Phase.PENDING if status.reason in WAITS else Phase.STARTING
    return phase, status.reason, status.message, phase in (Phase.FAILED, Phase.SUSPENDED)


def _of_the_one_that_serves(app: App, number: int) -> tuple[str, str]:
    if number == app.version:
        return app.status.reason, app.status.message
    return "Running", f"version {number} serves until version {app.version} is ready"


def _failed(app: App, number: int, result: Result) -> str:
    status = app.status
    if number == app.version and status.reason == result.reason:
        # the controller's own words tell what serves, too
        return status.message
    if status.serving_version is None:
        return result.message
    return f"{result.message} Version {status.serving_version} serves."
