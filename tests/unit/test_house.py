"""The house as docs/explanation/architecture.md draws it: which room may import from which, and no circles.

Imports count as they are written, also those inside functions and under TYPE_CHECKING. There is no list of exceptions:
what does not fit needs a port beside who needs it, another room, or the putting together at the top.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "src"
PAGE = (REPOSITORY / "docs/explanation/architecture.md").read_text()
MAP = (REPOSITORY / "CONTRIBUTING.md").read_text()
GROUND = "ground"
"""The modules that stand directly in the package: no room, and below every one but `apps`."""


@dataclass(frozen=True)
class Import:
    """One module that another one names, and where."""

    importer: str
    imported: str
    where: str
    """file:line."""


def levels(page: str) -> list[list[str]]:
    """The order of the rooms, top first, as the page has it; rooms of one level stand side by side."""
    line = next(line for line in page.splitlines() if "▸" in line and line.startswith("cli"))
    return [[room.strip() for room in level.split(",")] for level in line.split("▸")]


@cache
def imports(source: Path) -> tuple[Import, ...]:
    """Every import of vibeD's modules below `source`, which holds the folder `vibed`."""
    return tuple(_imports(source))


def _imports(source: Path) -> Iterator[Import]:
    files = {_name(source, path): path for path in sorted((source / "vibed").rglob("*.py"))}
    for module, path in files.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text())):
            for name in _named(node, package):
                # of `from a import b`, b is a module, or something that a holds
                target = name if name in files else name.rpartition(".")[0]
                if target in files and target != module:
                    line = getattr(node, "lineno", 0)
                    yield Import(module, target, f"{path.relative_to(source.parent)}:{line}")


def _name(source: Path, path: Path) -> str:
    return ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")


def _named(node: ast.AST, package: str) -> Iterable[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*parents, *([node.module] if node.module else [])])
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        return [node.args[0].value] if node.args and _is_text(node.args[0]) else []  # type: ignore[attr-defined]
    return []


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def room(source: Path, module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (source / "vibed" / parts[1]).is_dir() else GROUND


def against_the_order(source: Path, order: list[list[str]]) -> list[str]:
    """Each import that does not lead to a lower level, told with its place."""
    height = {name: depth for depth, level in enumerate(order) for name in level}
    found = []
    for one in imports(source):
        here, there = room(source, one.importer), room(source, one.imported)
        if here != there and not height[here] < height[there]:
            found.append(f"{one.where}: {one.importer} imports {one.imported}, but {here} is not above {there}")
    return found


def circle(source: Path) -> list[str]:
    """The imports of one circle of modules, each with its place; empty when there is none."""
    edges: dict[str, dict[str, str]] = {}
    for one in imports(source):
        if not one.importer.startswith(f"{one.imported}."):  # a package is not run by what it holds
            edges.setdefault(one.importer, {}).setdefault(one.imported, one.where)
    graph: Mapping[str, Iterable[str]] = edges
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        way = list(reversed(error.args[1]))
        return [f"{edges[a][b]}: {a} imports {b}" for a, b in pairwise(way)]
    return []


def test_imports_lead_from_a_room_to_one_below_it() -> None:
    assert against_the_order(SOURCE, levels(PAGE)) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(SOURCE) == []


def test_every_room_that_is_there_has_its_place_in_the_order_the_table_and_the_map() -> None:
    built = {path.name for path in (SOURCE / "vibed").iterdir() if any(path.glob("*.py"))}
    placed = {name for level in levels(PAGE) for name in level}
    assert built | {GROUND} <= placed
    assert built <= set(re.findall(r"`vibed\.(\w+)`", PAGE)), "architecture.md, The parts"
    assert built <= set(re.findall(r"^  (\w+)/ ", MAP, re.MULTILINE)), "CONTRIBUTING.md, A map of the house"


def test_the_modules_of_the_ground_are_named_on_the_page() -> None:
    ground = {path.stem for path in (SOURCE / "vibed").glob("*.py")} - {"__init__"}
    assert ground <= set(re.findall(r"`(\w+)`", PAGE))


@pytest.mark.parametrize(
    "line",
    [
        "from vibed.top import thing",
        "import vibed.top.thing",
        "def later():\n    from vibed.top.thing import one",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vibed.top import thing",
        "from ..top import thing",
        "import importlib\nimportlib.import_module('vibed.top.thing')",
        "from vibed.beside import thing",
    ],
)
def test_an_import_that_leads_up_or_aside_is_found_wherever_it_stands(tmp_path: Path, line: str) -> None:
    for name in ("top", "beside", "low"):
        folder = tmp_path / "src" / "vibed" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "thing.py").touch()
    (tmp_path / "src/vibed/low/uses.py").write_text(line)
    told = against_the_order(tmp_path / "src", [["top"], ["beside", "low"], [GROUND]])
    assert len(told) == 1
    assert told[0].startswith(f"src/vibed/low/uses.py:{len(line.splitlines())}: ")


def test_a_circle_is_told_with_the_lines_that_close_it(tmp_path: Path) -> None:
    folder = tmp_path / "src" / "vibed" / "room"
    folder.mkdir(parents=True)
    for name, imported in (("a", "b"), ("b", "c"), ("c", "a")):
        (folder / f"{name}.py").write_text(f"def later():\n    from vibed.room import {imported}\n")
    told = circle(tmp_path / "src")
    assert {line.partition(": ")[0] for line in told} == {f"src/vibed/room/{name}.py:2" for name in "abc"}
