"""Frameworks that no template has: POST ▸ 200 of an app whose packages are installed and whose build is made, beside
the same start in a bare sandbox with the same layer.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from bench import frameworks, sources
from bench.bare import described
from bench.harness import Bench, tell
from bench.instance import Instance
from bench.report import Row, at_most, not_measurable
from vibed.apps.app import Runtime
from vibed.runtimes.builds.built import Built
from vibed.runtimes.builds.store import BuiltStore
from vibed.runtimes.layers.layer import Layer
from vibed.runtimes.layers.store import LayerStore

RATIO = 1.2
FLOOR = "floor: fresh process in the bare sandbox"
_MAKE_S = 600.0


@dataclass(frozen=True, slots=True)
class Kind:
    """What is measured."""

    source: sources.Source
    template: str
    mark: str = ""
    """What the page of every such app has; empty: the mark that it was deployed with. What is built has to be the same
    source each time, else the build would be measured."""


KINDS = {
    "django": Kind(frameworks.django, "python-313"),
    "streamlit": Kind(frameworks.streamlit, "python-313", "<title>Streamlit</title>"),
    "gradio": Kind(frameworks.gradio, "python-313"),
    "next": Kind(frameworks.next_app, "node-24", "mark-of-next"),
}


def row_of(name: str) -> Callable[[Bench], Row]:
    """What measures one of `KINDS`."""
    return lambda bench: _measure(bench, name, KINDS[name])


def _measure(bench: Bench, name: str, kind: Kind) -> Row:
    row = bench.begin(name, f"{name}, its packages installed: POST ▸ 200, against the same start in the bare sandbox")
    row.floor, row.compared = FLOOR, ("vibeD",)
    mark = kind.mark or f"mark-{secrets.token_hex(6)}"
    packed = sources.packed(kind.source(mark))
    floor: list[float] = []
    with bench.fresh() as instance:
        instance.wait_warm()
        bench.say(f"{name}: installing")
        with instance.connect() as api, instance.connect() as visitor:
            instance.deploy(api, visitor, f"first-{name}", packed, mark, wait_s=_MAKE_S)
        layer, built = _made(instance)
        runtime, archive = _as_run(bench.bare.runtime(packed), built, packed)
        row.notes.append(f"classified as {described(runtime)}")

        def between(number: int) -> None:
            floor.append(bench.bare.start("gvisor", archive, runtime, mark, warm=False, layer=layer).live_ms)

        samples = bench.sample(
            instance, kind.source, bench.count(15, 3), templates=(kind.template,), between=between, mark=kind.mark
        )
        row.time(FLOOR, floor)
        tell(row, "vibeD", samples)
    ratio = row.ratio("vibeD")
    target = f"{name} p50 ≤ {RATIO:g} x the same start in the bare sandbox"
    if ratio is None:
        row.verdicts.append(not_measurable(target, "no sample"))
    else:
        row.verdicts.append(at_most(target, ratio, RATIO, "x"))
    return row


def _made(instance: Instance) -> tuple[Layer | None, Built | None]:
    """What the only app of a vibeD had installed and built."""
    layers = LayerStore(instance.home)
    store = BuiltStore(instance.home, layers)
    keys = [path.stem for path in (instance.home / "built").glob("*.json") if not path.name.startswith(".")]
    built = store.find(keys[0]) if keys else None
    if built is not None and built.packages is not None:
        return built.packages, built
    listed = layers.listing()
    return (layers.find(listed[0].key) if listed else None), built


def _as_run(runtime: Runtime, built: Built | None, packed: bytes) -> tuple[Runtime, bytes]:
    if built is None:
        return runtime, packed
    return built.runtime(runtime), built.archive.read_bytes()
