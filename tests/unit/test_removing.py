"""`vibed clean` and `vibed down` on a machine that does not let go of everything."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vibed.cli import down as module
from vibed.cli.removing import remove, remove_but_last
from vibed.layout import Layout, Uids


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("state", "sites", "venv"):
        (tmp_path / "home" / name).mkdir(parents=True)
        (tmp_path / "home" / name / "file").write_text("x")
    return tmp_path / "home"


@pytest.fixture
def read_only(home: Path) -> Iterator[Path]:
    """A home on a file system that is read-only by now."""
    subprocess.run(["mount", "--bind", home, home], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", home], check=True)
    yield home
    subprocess.run(["umount", "-l", home], check=True)


@pytest.fixture
def layout(home: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    layout = Layout(home, home.parent / "run", Uids(os.geteuid(), rootless=True))
    layout.runtime.mkdir()
    monkeypatch.setenv("VIBED_HOME", str(home))
    monkeypatch.setattr(module.Layout, "of", lambda *_, **__: layout)
    monkeypatch.setattr(module.debian_packages, "remove", lambda home: "")
    return layout


def test_what_can_be_removed_is_and_nothing_is_told(home: Path) -> None:
    assert remove([home, home / "never"]) == []
    assert not home.exists()


@pytest.mark.root
def test_what_stays_is_told_with_the_reason(read_only: Path) -> None:
    (told,) = remove([read_only])
    assert told.startswith(f"{read_only}: Read-only file system")


@pytest.mark.root
def test_clean_of_a_home_that_is_read_only_says_what_stays_and_fails(
    read_only: Path, layout: Layout, capfd: pytest.CaptureFixture[str]
) -> None:
    assert module.clean(yes=True) == 1
    said = capfd.readouterr()
    assert f"removed {layout.runtime}" in said.out and str(read_only) not in said.out
    assert f"not removed: {read_only}: Read-only file system" in said.err
    assert said.err.count("not removed") == 1, "one line a place, however much is in it"


@pytest.mark.root
def test_clean_of_a_home_with_a_mount_in_it_names_the_mount(
    home: Path, layout: Layout, capfd: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", home / "sites"], check=True)
    try:
        assert module.clean(yes=True) == 1
        assert f"not removed: {home}: Device or resource busy (sites)" in capfd.readouterr().err
    finally:
        subprocess.run(["umount", "-l", home / "sites"], check=True)
    assert module.clean(yes=True) == 0, "what was in the way is gone"
    assert not home.exists()


def test_clean_of_everything_says_so(home: Path, layout: Layout, capfd: pytest.CaptureFixture[str]) -> None:
    assert module.clean(yes=True) == 0
    assert capfd.readouterr().out == f"removed {home} and {layout.runtime}\n"


def test_down_names_a_sandbox_that_did_not_end(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stuck = layout.sandboxes / "sabc"
    stuck.mkdir(parents=True)

    async def nothing_ends(layout: Layout, programs: object) -> int:
        return 0

    monkeypatch.setattr("vibed.drivers.teardown.end_all", nothing_ends)
    assert module.down() == 1
    assert f"not removed: {stuck}: the sandbox could not be ended" in capfd.readouterr().err


def test_the_program_that_removes_goes_last(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []
    real = shutil.rmtree

    def noting(path: Path, **options: bool) -> None:
        gone.append(Path(path).name)
        real(path, **options)

    monkeypatch.setattr("vibed.cli.removing.shutil.rmtree", noting)
    assert remove_but_last(home, "venv") == []
    assert (sorted(gone[:-1]), gone[-1]) == (["sites", "state"], "home")
