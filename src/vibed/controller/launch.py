"""One run on its way up: a sandbox is claimed, takes the version, listens, and the app's name leads to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from vibed.apps.app import App
from vibed.controller.building import Material
from vibed.controller.ending import account, how_it_ended
from vibed.controller.means import Means
from vibed.controller.name import Name
from vibed.controller.placement import Placement
from vibed.controller.run import LiveRun, app_key
from vibed.sandboxes.driver import HeirUnreachable, Run, RunFailed, SandboxLost


async def launch(
    means: Means,
    app: App,
    run: LiveRun,
    material: Material,
    placement: Placement,
    name: Name,
    *,
    on_step: Callable[[], None],
) -> Mapping[str, float]:
    """Bring a run up; returns milliseconds by step. `on_step` is called when a slow one has got further.

    Raises `RunFailed`, with the code `Stopped` when the run was told to leave meanwhile, and other `VibedError`s when
    its sandbox failed.
    """

    def on_stage(stage: str) -> None:
        following = {"claimed": "injecting", "injected": "starting"}.get(stage)
        if following is not None:
            run.enter(following)
        if time.monotonic() - run.begun > means.quiet_s:
            on_step()

    _unless_leaving(run, "it was stopped before it started")
    run.enter("claiming")
    began = time.perf_counter()
    sandbox = run.sandbox = await means.pools.claim(placement.driver, placement.template)
    _unless_leaving(run)
    claimed = time.perf_counter()
    started = await sandbox.run(
        _order(means, app, run, material, placement),
        socket=Path() if placement.driver == "static" else means.names.room(app.app_id, run.number, run.version),
        log_dir=means.layout.run_log(app.app_id, run.number),
        on_stage=on_stage,
    )
    run.note = started.note
    listening = time.perf_counter()
    _unless_leaving(run)
    run.enter("switching")
    try:
        await name.switch_to(run, started.endpoint)
    except HeirUnreachable:
        # it listened, and was gone before anybody was sent to it
        ended = await how_it_ended(sandbox)
        message, _ = account(ended)
        if ended.known:
            raise RunFailed(f"it listened, and at once {message}", exit=ended) from None
        raise SandboxLost(f"nothing can be handed over to it: {message}") from None
    _unless_leaving(run)
    switched = time.perf_counter()
    return {
        **started.timings,
        "claim": (claimed - began) * 1000 + started.timings.get("claim", 0.0),
        "run": (listening - claimed) * 1000,
        "switch": (switched - listening) * 1000,
    }


def _unless_leaving(run: LiveRun, why: str = "it was stopped while it started") -> None:
    if run.leaving:
        raise RunFailed(why, code="Stopped")


def _order(means: Means, app: App, run: LiveRun, material: Material, placement: Placement) -> Run:
    version, layer = material.version, material.layer
    config, runtime = means.config, version.runtime
    if not config.warm_processes:
        runtime = replace(runtime, start=replace(runtime.start, warm=False))
    return Run(
        app_id=app.app_id,
        app_key=app_key(app.created_at),
        layer=layer.key if layer is not None else "",
        version=run.version,
        number=run.number,
        source=material.source,
        runtime=runtime,
        # what the owner says about a variable counts
        env={**(layer.env if layer is not None else {}), **version.env},
        limits=placement.limits,
        mounts=(layer.mount,) if layer is not None else (),
        links=layer.links if layer is not None else {},
        installed={**placement.packages, **(layer.packages if layer is not None else {})},
        least=means.placements.least(placement.template),
        served_before=run.served_before,
        start_timeout_s=config.start_timeout_s + (config.build_timeout_s if runtime.start.build else 0.0),
    )
