"""`deploy/bootstrap.py`: what makes `make up` install vibeD again, and what does not."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from vibed.cli import up

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", REPOSITORY / "deploy" / "bootstrap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    for name in ("pyproject.toml", "src/vibed/app.py", "examples/site/index.html", "examples/site/.vibedignore"):
        write(tmp_path / name, "one")
    return module


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    "name", ["pyproject.toml", "src/vibed/app.py", "src/vibed/new.py", "examples/site/.vibedignore"]
)
def test_a_source_that_changed_or_is_new_installs_again(bootstrap: ModuleType, tmp_path: Path, name: str) -> None:
    before = bootstrap.fingerprint(bootstrap.sources())
    write(tmp_path / name, "two")
    assert bootstrap.fingerprint(bootstrap.sources()) != before


@pytest.mark.parametrize(
    "name", ["examples/site/.vibed/link.json", "src/vibed/__pycache__/app.pyc", "src/.mypy_cache/x.json"]
)
def test_what_using_vibed_leaves_in_the_checkout_does_not(bootstrap: ModuleType, tmp_path: Path, name: str) -> None:
    before = bootstrap.fingerprint(bootstrap.sources())
    write(tmp_path / name, "made")
    assert bootstrap.fingerprint(bootstrap.sources()) == before


def test_what_apt_brought_is_remembered_and_nothing_is_shown(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    programs, home = tmp_path / "programs", tmp_path / "home"
    installed = tmp_path / "installed"
    installed.write_text("ii  libc6\n")
    for name, script in {
        "apt-get": f'echo Reading; printf "ii  %s\\n" "$6" python3-pip-whl >> {installed}',
        "dpkg-query": f"cat {installed}",
    }.items():
        write(programs / name, f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    home.mkdir()
    bootstrap.apt_install("python3.11-venv", home)
    assert json.loads((home / "debian-packages.json").read_text()) == ["python3-pip-whl", "python3.11-venv"]
    assert capfd.readouterr() == ("", "")


def test_an_environment_of_another_python_is_made_anew(bootstrap: ModuleType, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write(other, "#!/bin/sh\necho \"('3.11.2 (main)', '/usr')\"\n")
    other.chmod(0o755)
    assert bootstrap.is_ours(Path(sys.executable))
    assert not bootstrap.is_ours(other)
    assert not bootstrap.is_ours(tmp_path / "none")


def test_too_little_disk_is_told_before_anything_is_installed(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIBED_HOME", str(tmp_path / "not" / "yet" / "there"))
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda path: SimpleNamespace(free=900_000_000))
    monkeypatch.setattr(bootstrap, "environment", lambda *_, **__: pytest.fail("something was installed"))
    assert bootstrap.main(["up"]) == 1
    said = capfd.readouterr().err
    assert "a first start needs 2 GB" in said and "1.3 GB for templates" in said and "has 0.9 GB free" in said
    assert not (tmp_path / "not").exists()


def test_both_ask_for_the_same_room(bootstrap: ModuleType) -> None:
    assert (bootstrap.ROOM, bootstrap.ROOM_FOR) == (up.ROOM, up.ROOM_FOR)


def test_what_is_installed_comes_up_on_a_disk_with_little_room(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "vibed.stamp").touch()
    monkeypatch.setenv("VIBED_HOME", str(tmp_path))
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    monkeypatch.setattr(bootstrap, "environment", lambda place, *_, **__: place / "bin" / "python")
    monkeypatch.setattr(bootstrap.subprocess, "call", lambda argv, **_: 0)
    assert bootstrap.main(["up"]) == 0
