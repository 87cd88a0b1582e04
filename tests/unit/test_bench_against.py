"""The comparison with another checkout: what it takes for one, and that it finds that one's modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import sources
from bench.against import SOURCES, Checkout
from bench.rows.registry import ROWS

HERE = Path(__file__).resolve().parents[2]


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no checkout"):
        Checkout(tmp_path)


def test_the_modules_of_the_other_checkout_are_the_ones_that_are_found(tmp_path: Path) -> None:
    package = tmp_path / "src" / "vibed"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("print('the other one')")
    command = [sys.executable, "-c", "import vibed"]
    told = subprocess.run(command, env=Checkout(tmp_path).env(), cwd="/", capture_output=True, text=True, check=True)
    assert told.stdout == "the other one\n"


def test_what_is_compared_are_rows_and_their_sources() -> None:
    assert SOURCES.keys() <= ROWS.keys()
    name, mark = sources.name_and_mark()
    assert all(any(mark in text for text in source(mark).values()) for source, _ in SOURCES.values())
    assert sources.name_and_mark() != (name, mark)


def test_a_checkout_is_named_by_its_commit() -> None:
    assert Checkout(HERE).commit
