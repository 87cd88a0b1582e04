"""The packages of a lock of npm's and what each wants, as npm finds it from where it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vibed.runtimes.layers.npm_tree.ranges import takes

_FOLDER = "node_modules/"


@dataclass(frozen=True, slots=True)
class Edge:
    """What the package at `by` wants."""

    by: str
    name: str
    spec: str
    kind: str
    """That of the table in its package.json: `dependencies`, …"""
    spared: bool = False
    """Whether it is a peer that may be lacking."""

    @property
    def optional(self) -> bool:
        """Whether it does without."""
        return self.kind == "optionalDependencies" or self.spared

    @property
    def peer(self) -> bool:
        """Whether it is for whoever wants `by` to have it."""
        return self.kind == "peerDependencies"


@dataclass(frozen=True, slots=True)
class Graph:
    """See the module's docstring; packages by their folders, the project itself at ""."""

    packages: Mapping[str, Mapping[str, Any]]
    wants: Mapping[str, tuple[Edge, ...]] = field(init=False)
    wanted: Mapping[str, tuple[Edge, ...]] = field(init=False)
    """Who wants what is at a folder."""

    def __post_init__(self) -> None:
        wants = {at: tuple(_edges(at, entry)) for at, entry in self.packages.items()}
        wanted: dict[str, list[Edge]] = {at: [] for at in self.packages}
        for edges in wants.values():
            for edge in edges:
                if (to := self.found(edge)) is not None:
                    wanted[to].append(edge)
        object.__setattr__(self, "wants", wants)
        object.__setattr__(self, "wanted", {at: tuple(edges) for at, edges in wanted.items()})

    def found(self, edge: Edge) -> str | None:
        """Where what is wanted lies: in the nearest node_modules from there on upwards."""
        at = edge.by
        while True:
            place = f"{at}/{_FOLDER}{edge.name}" if at else f"{_FOLDER}{edge.name}"
            if place in self.packages:
                return place
            if not at:
                return None
            at = above(at)

    def reached(self) -> set[str]:
        """What the project wants, directly or not."""
        seen, waiting = {""}, [""]
        while waiting:
            for edge in self.wants[waiting.pop()]:
                if (to := self.found(edge)) is not None and to not in seen:
                    seen.add(to)
                    waiting.append(to)
        return seen

    def fits(self, edge: Edge) -> bool:
        """Whether what is found is what is wanted, or may be lacking. Raises Unreadable of a spec that is no range."""
        if edge.by and edge.name in _names(self.packages[edge.by].get("bundleDependencies")):
            return True  # its tarball brings along what it will
        to = self.found(edge)
        if to is None:
            return edge.optional
        if edge.peer and edge.by and to == f"{edge.by}/{_FOLDER}{edge.name}":
            return False  # it would be its alone
        entry, spec = self.packages[to], edge.spec
        if spec.startswith("npm:"):
            name, at, spec = spec.removeprefix("npm:").rpartition("@")
            if not at or not name:
                name, spec = name + at + spec, "*"
            if name_of(to, entry) != name:
                return False
        # else what lies there under that name counts, whatever its own is
        return spec.strip() in ("", "*", "latest") or takes(spec, str(entry.get("version", "")))

    def without(self, gone: Iterable[str], cannot: Callable[[str], bool]) -> set[str]:
        """What goes with optional packages that cannot be had, as in npm's optional-set.js: those that cannot do
        without them, and what is then wanted by nobody. `gone`: what has gone already.
        """
        out = set(gone)
        for at in self.packages:
            if at and at not in out and self.packages[at].get("optional") and cannot(at):
                out |= self._set(at, out)
        return out

    def _set(self, at: str, out: set[str]) -> set[str]:
        stuck, waiting = {at}, [at]
        while waiting:
            for edge in self.wanted[waiting.pop()]:
                if not edge.optional and edge.by not in stuck:
                    stuck.add(edge.by)
                    waiting.append(edge.by)
        together, waiting = set(stuck), list(stuck)
        while waiting:
            for edge in self.wants[waiting.pop()]:
                to = self.found(edge)
                if to is not None and to not in together and edge.by not in out:
                    together.add(to)
                    waiting.append(to)
        changed = True
        while changed:
            kept = {
                one
                for one in together - stuck
                if any(edge.by not in together and edge.by not in out for edge in self.wanted[one])
            }
            together -= kept
            changed = bool(kept)
        return together


def above(at: str) -> str:
    """The package in whose node_modules one lies; the project's for those at the top."""
    return at.rpartition(_FOLDER)[0].removesuffix("/")


def name_of(at: str, entry: Mapping[str, Any]) -> str:
    """A package's own name, whatever it is called where it lies."""
    return str(entry.get("name") or at.rpartition(_FOLDER)[2])


def _edges(at: str, entry: Mapping[str, Any]) -> Iterator[Edge]:
    spared = {name for name, said in _table(entry.get("peerDependenciesMeta")).items() if _table(said).get("optional")}
    found: dict[str, Edge] = {}
    for kind in ("peerDependencies", "dependencies", "optionalDependencies", *(() if at else ("devDependencies",))):
        for name, spec in _table(entry.get(kind)).items():
            # the last one counts
            found[name] = Edge(at, name, str(spec), kind, spared=kind == "peerDependencies" and name in spared)
    yield from found.values()


def _names(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
