"""A run that has failed, as its supervisor tells it (docs/reference/supervisor.md, `run`), whatever stands between."""

from __future__ import annotations

from typing import Any

from vibed.sandboxes.diagnosis import diagnose, exit_of
from vibed.sandboxes.driver import Exit, Run, RunFailed
from vibed.wire import WireError

FAULT_OF_APP = frozenset(
    {"InjectFailed", "StartFailed", "StartTimeout", "DiskFull", "WorkerRejected", "BuildFailed", "BundleFailed"}
)
"""Codes that are the app's fault: others are its sandbox's."""
EXIT_TOLD_S = 15.0
"""How long it may take a supervisor to tell how what has failed has ended, with its last words: on a busy machine it
waits for these itself, twice, and then for what is left (agent/supervise: wordsPatience and its neighbours).
"""
STAGES = frozenset({"claimed", "injected", "started"})
"""Of a run, as events tell them."""


def as_told(error: WireError, ended: Exit | None, run: Run) -> RunFailed:
    """What the error of a run means; `ended` is how its sandbox has ended, with the app's last lines, where that is
    known.
    """
    told: dict[str, Any] = dict(error.extra)
    if ended is not None:
        if said := told.get("exit"):
            told["exit"] = {"oom": ended.oom, "at": ended.at, **said, "tail": ended.tail}
        told = {"log": ended.tail, **told}
    if run.runtime.start.job:
        # what an installer's words mean, who gave it the job knows better than what knows apps
        return RunFailed(error.message, code=error.error_code, exit=exit_of(told.get("exit")))
    return diagnose(error.error_code, error.message, told, run)
