"""The ledger of an app: an annotation in which whoever makes a version keeps what its spec has no place for.

It lies in the VibedApp itself, so that a version, its number, its event and its Idempotency-Key are one write, which
succeeds for one writer or for none. The spec has only the newest version; the ledger has a line for each that is kept.
What a version is in full lies in its ControllerRevision (`vibed.cluster.revisions`), which is written afterwards and
can be written again from spec and ledger by anybody. The status is the controller's: nothing of it is here, and the
controller writes nothing here but the versions that it makes of specs that were applied by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from vibed import records
from vibed.apps.app import Event, Resources
from vibed.cluster.kinds import Object
from vibed.cluster.names import LEDGER

VERSIONS_KEPT = 50
"""Of an app. Older ones are forgotten with their sources, but for those that serve or are gone back to."""
EVENTS_WAITING = 20
"""That a status has not taken over yet; while no controller runs, older ones are lost."""
LARGEST = 200 * 1024
"""Bytes. All annotations of an object have 256 KiB (apimachinery, api/validation: TotalAnnotationSizeLimitB)."""

log = records.logger("vibed.cluster")


@dataclass(frozen=True, slots=True)
class Line:
    """One version."""

    number: int
    write: str
    """Names the write that made it: who is not told what became of it finds out by this."""
    digest: str
    size: int
    created_at: float
    created_by: str
    what: str
    """Fingerprint of what was decided upon: the spec's source and runtime (`vibed.cluster.spec`)."""
    rest: str
    """Fingerprint of what else of the spec makes a version: variables, resources, secrets, the way out."""
    resources: Resources = Resources()
    unpacked: int = 0
    kept: bool = True
    """Whether its source is."""
    rolled_back_from: int | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    key: str = ""
    """Of its Idempotency-Key, as the label has it; empty without one."""
    fingerprint: str = ""
    """Of the request that came with the key."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Of an app that has a version."""

    created_at: float
    changes: int
    """How many changes of the spec became versions: the app's generation, as vibeD counts."""
    lines: tuple[Line, ...]
    """The oldest first, at least one; the last is the version that should serve."""
    events: tuple[Event, ...] = ()
    """That come after those of the status, and may be there already."""

    @property
    def newest(self) -> Line:
        return self.lines[-1]

    def line(self, number: int) -> Line | None:
        return next((line for line in self.lines if line.number == number), None)

    def with_line(self, line: Line, event: Event) -> Ledger:
        """One version further."""
        return replace(
            self, changes=self.changes + 1, lines=(*self.lines, line), events=(*self.events, event)[-EVENTS_WAITING:]
        )

    def without_sources(self, digests: frozenset[str], *, but: int) -> Ledger:
        """With these sources forgotten, but for version `but`."""
        lines = (
            replace(line, kept=False) if line.digest in digests and line.number != but else line for line in self.lines
        )
        return replace(self, lines=tuple(lines))


def read(app: Object) -> Ledger | None:
    """The ledger of a VibedApp; None where no version was made of it yet, or what is there is not of vibeD."""
    metadata = app["metadata"]
    text = (metadata.get("annotations") or {}).get(LEDGER)
    if not text:
        return None
    try:
        said = json.loads(text)
        lines = tuple(_line(line) for line in said["lines"])
        if not lines:
            raise ValueError("it has no version")
        return Ledger(
            created_at=float(said["created_at"]),
            changes=int(said["changes"]),
            lines=lines,
            events=tuple(Event(app_id=metadata["name"], **event) for event in said.get("events", ())),
        )
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        log.warning(
            "an app's ledger cannot be read; its spec is looked at anew", app=metadata["name"], error=str(error)
        )
        return None


def written(ledger: Ledger) -> str:
    """As the annotation has it."""
    said = {
        "created_at": ledger.created_at,
        "changes": ledger.changes,
        "lines": [_said(line) for line in ledger.lines],
        "events": [{k: v for k, v in asdict(event).items() if k != "app_id"} for event in ledger.events],
    }
    return json.dumps(said, separators=(",", ":"))


def created_at(app: Object) -> float:
    """When the API server took the app, to a second: for one that has no ledger yet."""
    return datetime.fromisoformat(app["metadata"]["creationTimestamp"]).timestamp()


_DEFAULTS = Line(0, "", "", 0, 0.0, "", "", "")


def _said(line: Line) -> dict[str, Any]:
    default = asdict(_DEFAULTS)
    return {name: value for name, value in asdict(line).items() if value != default[name]}


def _line(said: Mapping[str, Any]) -> Line:
    known = {name: value for name, value in said.items() if name in Line.__slots__}
    if "resources" in known:
        known["resources"] = Resources(**known["resources"])
    line = replace(_DEFAULTS, **known)
    return replace(line, number=int(line.number), created_at=float(line.created_at))
