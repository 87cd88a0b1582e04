"""The second start of a version: what is tried once where its first one ends before it serves, and what is told of it.

It runs in a sandbox of its own, since the first may have left anything behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from vibed.apps.app import App, Runtime
from vibed.controller.building import Material
from vibed.controller.launch import launch
from vibed.controller.means import Means, destroy
from vibed.controller.name import Name
from vibed.controller.placement import Placement
from vibed.controller.run import LiveRun
from vibed.sandboxes.diagnosis import error_in
from vibed.sandboxes.driver import RunFailed
from vibed.sources.errors import quoted
from vibed.supervision.logs import append_system_line

_OTHER_FAULTS = frozenset({"InjectFailed", "BuildFailed", "DiskFull", "StartTimeout", "Stopped", "WorkerRejected"})
"""What another start would not mend."""


async def launch_either(
    means: Means,
    app: App,
    run: LiveRun,
    material: Material,
    placement: Placement,
    name: Name,
    *,
    on_step: Callable[[], None],
) -> Mapping[str, float]:
    """Bring a run up by its version's first start, or else by its second; as `launch`."""
    try:
        return await launch(means, app, run, material, placement, name, on_step=on_step)
    except RunFailed as failed:
        first, second = material.version.runtime, second_start(material.version.runtime, failed)
        if second is None or run.leaving or run.sandbox is None:
            raise
        await destroy(run.sandbox)
        told = f"it ended before it served: it is started by {quoted(second.entrypoint)} now"
        await asyncio.to_thread(append_system_line, means.layout.run_log(app.app_id, run.number), told)
        other = replace(material, version=replace(material.version, runtime=second))
        try:
            timings = await launch(means, app, run, other, placement, name, on_step=on_step)
        except RunFailed as again:
            raise failed_both(first, second, failed, again) from again
        note = served_instead(first, second, failed)
        run.note = f"{note}; it {run.note}" if run.note else note
        return timings


def second_start(runtime: Runtime, failed: RunFailed) -> Runtime | None:
    """What to try after a start that failed so: it ended by itself before it served, neither for lack of memory nor for
    want of another version of its language.
    """
    ended = failed.exit is not None and not failed.exit.oom and failed.error_code not in _OTHER_FAULTS
    return runtime.otherwise if ended and not failed.unmet else None


def served_instead(first: Runtime, second: Runtime, failed: RunFailed) -> str:
    """The note of a run that serves by its second start: the rest of a sentence."""
    return f"was started by {quoted(second.entrypoint)}, since by {quoted(first.entrypoint)} {failed.message}"


def failed_both(first: Runtime, second: Runtime, failed: RunFailed, again: RunFailed) -> RunFailed:
    """The error of a version for which neither start works; it says both, unless the app fails in the same way."""
    if again.message == failed.message or (_error(failed) and _error(failed) == _error(again)):
        return failed
    return _both(f"by {quoted(first.entrypoint)}", f"by {quoted(second.entrypoint)}", failed, again)


def failed_on_both(first: str, second: str, failed: RunFailed, again: RunFailed) -> RunFailed:
    """The error of a version that works on neither of two templates."""
    return (
        again
        if again.error_code == "Stopped" or again.may_retry
        else _both(f"on {first}", f"on {second}", failed, again)
    )


def _both(one: str, other: str, failed: RunFailed, again: RunFailed) -> RunFailed:
    message = f"{one} {failed.message}; {other}, which was tried next, {again.message}"
    hints = dict.fromkeys(hint for hint in (failed.hint, again.hint) if hint)
    return RunFailed(message, code=failed.error_code, exit=failed.exit, hint="; or ".join(hints) or None)


def _error(failed: RunFailed) -> str:
    """The app's own error, empty where its last lines have none."""
    return (error_in(failed.exit.tail) or "") if failed.exit is not None else ""
