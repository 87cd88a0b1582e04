"""Which packages of a layer the next one may take over: those whose files nobody else could have had a hand in."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from vibed.runtimes.shipped import shipped

TINY, OTHER = "tiny==1.0 --hash=sha256:1", "Other_Name==2.0 --hash=sha256:2"
WHEELS: Mapping[str, Mapping[str, str]] = {
    "tiny": {
        "tiny.py": "WORD = 1",
        "tiny_lib/data.txt": "data",
        "tiny-1.0.dist-info/METADATA": "tiny",
        "tiny-1.0.dist-info/entry_points.txt": "[console_scripts]\ntiny = tiny:main\n",
        "tiny-1.0.data/scripts/tinyctl": "#!python",
        "tiny-1.0.data/data/share/tiny.txt": "share",
    },
    "other": {
        "other.py": "WORD = 2",
        "other_name-2.0.dist-info/METADATA": "other",
    },
}
PLACED = {
    TINY: {
        "lib/{python}/site-packages/tiny.py",
        "lib/{python}/site-packages/tiny_lib/data.txt",
        "lib/{python}/site-packages/tiny-1.0.dist-info/METADATA",
        "lib/{python}/site-packages/tiny-1.0.dist-info/entry_points.txt",
        "lib/{python}/site-packages/tiny-1.0.dist-info/INSTALLER",
        "bin/tiny",
        "bin/tinyctl",
        "share/tiny.txt",
    },
    OTHER: {
        "lib/{python}/site-packages/other.py",
        "lib/{python}/site-packages/other_name-2.0.dist-info/METADATA",
        "lib/{python}/site-packages/other_name-2.0.dist-info/INSTALLER",
    },
}
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def pieces() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pieces", shipped("templates") / "_builder" / "pieces.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def laid_out(folder: Path, wheels: Mapping[str, Mapping[str, str]], more: Mapping[str, str]) -> tuple[str, str]:
    """A layer and the installer's cache, as they are after the wheels were installed; `more` is only in the layer."""
    layer, cache = folder / "layer", folder / "cache"
    for name, files in wheels.items():
        for path, text in files.items():
            _write(cache / "archive-v0" / name / path, text)
    for path in {path.format(python=PYTHON) for paths in PLACED.values() for path in paths} | set(more):
        _write(layer / path, more.get(path, path))
    return str(layer), str(cache)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_every_file_is_somebodys(tmp_path: Path, pieces: ModuleType) -> None:
    layer, cache = laid_out(tmp_path, WHEELS, {})
    whose = pieces.found(layer, cache, [TINY, OTHER])
    assert {pin: set(paths) for pin, paths in whose.items()} == {
        pin: {path.format(python=PYTHON) for path in paths} for pin, paths in PLACED.items()
    }


@pytest.mark.parametrize(
    "brought",
    {
        "tiny.py": "another's module",
        "other_name-2.0.data/purelib/tiny.py": "the same by another way",
        "__pycache__/tiny.cpython-313.pyc": "another's bytecode",
        "tiny_lib/__pycache__/x.pyc": "bytecode in another's folder",
        "tiny-1.0.dist-info/RECORD": "what stands for another package",
        "other_name-2.0.data/purelib/tiny-1.0.dist-info/METADATA": "and by another way",
        "other_name-2.0.data/scripts/tiny": "another's program",
        "other_name-2.0.data/data/bin/tinyctl": "and by another way",
        "other_name-2.0.data/data/.packages.json": "what vibeD writes down",
    },
)
def test_nothing_is_anybodys_where_a_wheel_brings_what_could_be_anothers(
    tmp_path: Path, pieces: ModuleType, brought: str
) -> None:
    wheels = {**WHEELS, "other": {**WHEELS["other"]}}
    layer, cache = laid_out(tmp_path, wheels, {})
    _write(tmp_path / "cache/archive-v0/other" / brought, "evil")
    assert pieces.found(layer, cache, [TINY, OTHER]) == {}


def test_nothing_is_anybodys_where_two_wheels_bring_a_program_of_one_name(tmp_path: Path, pieces: ModuleType) -> None:
    entry_points = "[gui_scripts]\ntiny = other:main\n"
    other = {**WHEELS["other"], "other_name-2.0.dist-info/entry_points.txt": entry_points}
    layer, cache = laid_out(tmp_path, {**WHEELS, "other": other}, {})
    assert pieces.found(layer, cache, [TINY, OTHER]) == {}


def test_nothing_is_anybodys_where_a_file_or_a_wheel_is_not_accounted_for(tmp_path: Path, pieces: ModuleType) -> None:
    layer, cache = laid_out(tmp_path, WHEELS, {})
    assert pieces.found(layer, cache, [TINY, OTHER, "more==1"]) == {}, "one that was not unpacked"
    assert pieces.found(layer, cache, [TINY]) == {}, "one that was not asked for"
    assert pieces.found(layer, cache, [TINY, OTHER.replace("2.0", "2.1")]) == {}, "another version"
    _write(Path(layer) / "lib" / PYTHON / "site-packages/stray.py", "")
    assert pieces.found(layer, cache, [TINY, OTHER]) == {}, "a file that is nobody's"


def test_a_link_is_nobodys(tmp_path: Path, pieces: ModuleType) -> None:
    layer, cache = laid_out(tmp_path, WHEELS, {})
    module = Path(layer) / "lib" / PYTHON / "site-packages/other.py"
    module.unlink()
    module.symlink_to("tiny.py")
    assert pieces.found(layer, cache, [TINY, OTHER]) == {}


def test_what_is_written_down_has_the_bytecode_of_each_and_of_nobody_else(tmp_path: Path, pieces: ModuleType) -> None:
    layer, cache = laid_out(tmp_path, WHEELS, {})
    whose = pieces.found(layer, cache, [TINY, OTHER])
    site = f"lib/{PYTHON}/site-packages"
    tag = sys.implementation.cache_tag
    for name in (f"tiny.{tag}", f"stray.{tag}", "other.cpython-20"):
        _write(Path(layer) / site / f"__pycache__/{name}.pyc", "compiled")
    before = {pin: set(paths) for pin, paths in whose.items()}
    pieces.keep(layer, whose)
    written = {pin: set(paths) for pin, paths in json.loads((Path(layer) / ".packages.json").read_text()).items()}
    assert written == {TINY: before[TINY] | {f"{site}/__pycache__/tiny.{tag}.pyc"}, OTHER: before[OTHER]}
