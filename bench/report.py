"""What a run found, as data, and how it is told: a text for people, JSON for whoever compares runs.

A verdict is an observation. Nothing here fails a build: a timing that misses its target on a busy machine is a fact to
look at, not a defect to hide by a looser number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from bench.quantiles import Quantiles

SCHEMA = 1
"""Of the JSON; raised when a field changes its meaning."""


class Outcome(StrEnum):
    """Of one target."""

    MET = "met"
    NOT_MET = "not met"
    NOT_MEASURABLE = "not measurable here"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target beside what was seen."""

    target: str
    outcome: Outcome
    seen: str
    """The figure, or why there is none."""


def at_most(target: str, seen: float, bound: float, unit: str = "ms") -> Verdict:
    """Whether `seen` is no more than `bound`."""
    return _compared(target, seen <= bound, seen, bound, unit)


def at_least(target: str, seen: float, bound: float, unit: str = "") -> Verdict:
    """Whether `seen` is no less than `bound`."""
    return _compared(target, seen >= bound, seen, bound, unit)


def none_of(target: str, counts: Mapping[str, int]) -> Verdict:
    """Whether all counts are zero; tells those that are not."""
    bad = {name: count for name, count in counts.items() if count}
    seen = ", ".join(f"{count} {name}" for name, count in bad.items()) or "none"
    return Verdict(target, Outcome.NOT_MET if bad else Outcome.MET, seen)


def not_measurable(target: str, because: str) -> Verdict:
    """There is no figure, and why."""
    return Verdict(target, Outcome.NOT_MEASURABLE, because)


def _compared(target: str, holds: bool, seen: float, bound: float, unit: str) -> Verdict:
    said = f"{number(seen)} against {number(bound)}{f' {unit}' if unit else ''}"
    return Verdict(target, Outcome.MET if holds else Outcome.NOT_MET, said)


@dataclass(slots=True)
class Row:
    """What one row of the table found."""

    name: str
    title: str
    series: dict[str, Quantiles] = field(default_factory=dict)
    """Milliseconds, by what was timed."""
    floor: str = ""
    """Which of the series is the floor."""
    compared: tuple[str, ...] = ()
    """Which series are held against it."""
    steps: dict[str, dict[str, Quantiles]] = field(default_factory=dict)
    """Where the milliseconds went, as the deploy's answers say: series, step."""
    figures: dict[str, float | int | str] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """How long the row took."""
    load: float = 0.0
    """The machine's load average (1 minute) when the row began: other work makes every figure worse."""

    def time(self, name: str, samples: Iterable[float]) -> Quantiles | None:
        """Keep a series; None when there were no samples, which is noted."""
        kept = list(samples)
        if not kept:
            self.notes.append(f"{name}: no sample")
            return None
        self.series[name] = Quantiles.of(kept)
        return self.series[name]

    def hold(self, ours: str, floor: str, bound: float) -> None:
        """Judge p50 of a series: at most `bound` times that of another."""
        target = f"{ours} ≤ {bound:g} × {floor}"
        seen, alone = self.series.get(ours), self.series.get(floor)
        if seen is None or alone is None:
            self.verdicts.append(not_measurable(target, "no sample"))
        else:
            self.verdicts.append(at_most(target, seen.p50, alone.p50 * bound))

    def time_steps(self, name: str, timings: Sequence[Mapping[str, float]]) -> None:
        """Keep the steps of many deploys, each with the ones it has."""
        names = {step: None for one in timings for step in one}
        found = {step: Quantiles.of([one[step] for one in timings if step in one]) for step in names}
        if found:
            self.steps[name] = found

    def ratio(self, name: str) -> float | None:
        """p50 of a series over that of the floor."""
        if self.floor not in self.series or name not in self.series or not self.series[self.floor].p50:
            return None
        return self.series[name].p50 / self.series[self.floor].p50


@dataclass(slots=True)
class Report:
    """One run of the harness."""

    machine: dict[str, Any] = field(default_factory=dict)
    disk: dict[str, dict[str, Quantiles]] = field(default_factory=dict)
    """`before` and `after` all rows: what one durable write costs, by kind."""
    rows: list[Row] = field(default_factory=list)
    quick: bool = False

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON types."""
        rows = []
        for row in self.rows:
            told = asdict(row)
            told["ratios"] = {name: row.ratio(name) for name in row.compared if row.ratio(name) is not None}
            rows.append(told)
        return {
            "schema": SCHEMA,
            "quick": self.quick,
            "machine": self.machine,
            "disk": {when: {kind: asdict(q) for kind, q in kinds.items()} for when, kinds in self.disk.items()},
            "rows": rows,
        }


def number(value: float) -> str:
    """A figure with three significant places or so, as people write it."""
    if isinstance(value, int) or (value == int(value) and abs(value) >= 1):
        return f"{value:,.0f}"
    magnitude = abs(value)
    return f"{value:,.0f}" if magnitude >= 1000 else f"{value:.1f}" if magnitude >= 10 else f"{value:.2f}"


def as_text(report: Report) -> str:
    """The whole report for a terminal."""
    lines = [*_machine(report), ""]
    for row in report.rows:
        lines += [*row_lines(row), ""]
    lines += summary(report.rows)
    return "\n".join(lines) + "\n"


def row_lines(row: Row) -> list[str]:
    """One row: its series beside the floor, its figures, its verdicts."""
    lines = [f"{row.name}: {row.title}", f"  took {row.seconds:.0f} s, load {row.load:.2f} when it began"]
    if row.series:
        lines += _table(row)
    for name, steps in row.steps.items():
        told = ", ".join(f"{step} {number(q.p50)}" for step, q in steps.items())
        lines.append(f"  steps of {name} (p50, ms): {told}")
    lines += [f"  {name}: {value if isinstance(value, str) else number(value)}" for name, value in row.figures.items()]
    lines += [f"  note: {note}" for note in row.notes]
    lines += [f"  [{v.outcome}] {v.target}: {v.seen}" for v in row.verdicts]
    return lines


def summary(rows: Sequence[Row]) -> list[str]:
    """How many targets were met, and which were not."""
    verdicts = [(row.name, verdict) for row in rows for verdict in row.verdicts]
    counts = {outcome: sum(v.outcome is outcome for _, v in verdicts) for outcome in Outcome}
    lines = ["targets: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items())]
    lines += [f"  {name}: {v.target}: {v.seen} ({v.outcome})" for name, v in verdicts if v.outcome is not Outcome.MET]
    return lines


_COLUMNS = ("n", "p50", "p90", "p99", "max", "ratio")


def _table(row: Row) -> list[str]:
    width = max(len(name) for name in row.series) + 8
    lines = [f"  {'ms':<{width}}" + "".join(f"{column:>9}" for column in _COLUMNS)]
    for name, q in row.series.items():
        ratio = row.ratio(name) if name in row.compared else None
        cells = [str(q.n), number(q.p50), number(q.p90), number(q.p99), number(q.most)]
        cells.append(f"{ratio:.2f}x" if ratio is not None else "floor" if name == row.floor else "")
        lines.append(f"  {name:<{width}}" + "".join(f"{cell:>9}" for cell in cells))
    return lines


def _machine(report: Report) -> list[str]:
    lines = [f"{key}: {_told(value)}" for key, value in report.machine.items()]
    for when, kinds in report.disk.items():
        told = "; ".join(f"{kind} p50 {number(q.p50)}, p99 {number(q.p99)}" for kind, q in kinds.items())
        lines.append(f"disk {when} (ms): {told}")
    if report.quick:
        lines.append("quick: few samples, so the tails mean little")
    return lines


def _told(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {told}" for name, told in value.items())
    return str(value)
