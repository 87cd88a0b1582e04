"""Which packages of a tree are there for development alone, which can be done without, and which nobody asks for: as
npm finds out (arborist's calc-dep-flags.js). Each begins with every mark, and loses what somebody who wants it has not.
"""

from __future__ import annotations

from collections.abc import Mapping

from vibed.runtimes.layers.npm_tree.graph import Edge, Graph, above

_ALL = frozenset({"extraneous", "dev", "optional", "devOptional", "peer"})


def of(graph: Graph) -> Mapping[str, frozenset[str]]:
    """The marks of each folder: `extraneous` (nobody asks for it), `dev`, `optional`, `devOptional` (both, for
    different reasons) and `peer`.
    """
    marks = {at: set(_ALL) if at else set() for at in graph.packages}
    waiting = [""]
    while waiting:
        at = waiting.pop()
        if "extraneous" not in marks[at]:
            home = above(at)
            while home and "extraneous" in marks[home]:
                marks[home].discard("extraneous")
                home = above(home)
        for edge in graph.wants[at]:
            to = graph.found(edge)
            if to is not None and (lost := _lost(edge, marks[at], marks[to])):
                marks[to] -= lost
                waiting.append(to)
    for mine in marks.values():
        if mine & {"dev", "optional"}:
            mine.discard("devOptional")
    return {at: frozenset(mine) for at, mine in marks.items()}


def _lost(edge: Edge, by: set[str], to: set[str]) -> set[str]:
    """What the wanted one is not, since the one that wants it is not, nor the way in which it does."""
    dev, optional = edge.kind == "devDependencies", edge.optional
    lost = set()
    if "extraneous" not in by and not edge.spared:
        lost.add("extraneous")
    if "dev" not in by and not dev:
        lost.add("dev")
    if "optional" not in by and not optional:
        lost.add("optional")
    if not by & {"devOptional", "dev", "optional"} and not dev and not optional:
        lost.add("devOptional")
    if "peer" not in by and not edge.peer:
        lost.add("peer")
    return lost & to
