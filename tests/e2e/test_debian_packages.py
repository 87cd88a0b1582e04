"""What a build needs of the machine: installed by the real apt, remembered, and removed by `vibed clean`."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vibed.runtimes import debian_packages

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]


@pytest.fixture
def hello(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A small package that nothing needs, instead of what builds need: that must stay for other tests."""
    assert debian_packages.which("hello") is None, "the Debian package hello has to be absent on a machine of tests"
    monkeypatch.setattr(debian_packages, "PROGRAMS", {"hello": "hello", "unshare": "util-linux"})
    yield
    subprocess.run(["apt-get", "--yes", "purge", "hello"], capture_output=True, check=False)


async def test_apt_brings_what_is_missing_and_clean_removes_that_and_nothing_else(hello: None, home: Path) -> None:
    await debian_packages.ensure(home, home / "log")
    assert debian_packages.which("hello") is not None
    assert json.loads((home / "debian-packages.json").read_text()) == ["hello"], "util-linux was there before"
    await debian_packages.ensure(home, home / "log")
    assert debian_packages.remove(home) == "removed the Debian packages hello"
    assert debian_packages.which("hello") is None
    assert debian_packages.which("unshare") is not None
    assert debian_packages.remove(home) == ""


async def test_what_apt_did_not_bring_is_never_removed(hello: None, home: Path, tmp_path: Path) -> None:
    await debian_packages.ensure(home, home / "log")
    second = tmp_path / "second"
    second.mkdir()
    await debian_packages.ensure(second, second / "log")
    assert debian_packages.remove(second) == ""
    assert debian_packages.which("hello") is not None


def test_all_stay_when_something_else_needs_one_of_them_by_now(hello: None, home: Path) -> None:
    asyncio.run(debian_packages.ensure(home, home / "log"))
    (home / "debian-packages.json").write_text('["hello", "openssl"]')
    told = debian_packages.remove(home)
    assert told.startswith("hello, openssl stay: ")
    assert "depends on openssl" in told
    assert told.endswith("sudo apt-get purge hello openssl")
    assert debian_packages.which("openssl") is not None
    assert debian_packages.which("hello") is not None


def test_a_record_that_cannot_be_read_removes_nothing(home: Path) -> None:
    assert debian_packages.remove(home) == ""
    (home / "debian-packages.json").write_text("{")
    assert debian_packages.remove(home) == ""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made
