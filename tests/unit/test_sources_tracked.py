"""What git tracks is sent whatever `.gitignore` names: indexes of the real git, in every version that it writes."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest

from vibed.sources.limits import DEFAULT_LIMITS
from vibed.sources.pack import Why, _Walk, pack_directory
from vibed.sources.tracked import tracked

FILES = {
    ".gitignore": "server\n.env\n*.db\nnode_modules\n",
    "cmd/server/main.go": "package main",
    "cmd/server/local.db": "untracked, in a folder that is ignored",
    "go.mod": "module x",
    ".env": "TITLE=x",
    "notes/" + "a" * 130 + "é.txt": "a long name",
    "node_modules/x/index.js": "",
}
TRACKED = {".gitignore", "cmd/server/main.go", "go.mod", ".env", "notes/" + "a" * 130 + "é.txt"}


def git(folder: Path, *words: str) -> None:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    who = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True, env=env)


def repository(root: Path, *options: str) -> Path:
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "-q", *options)
    git(root, "add", "-f", *sorted(TRACKED))
    return root


def sent(root: Path) -> tuple[set[str], dict[str, Why]]:
    walk = _Walk(root.resolve(), DEFAULT_LIMITS)
    walk.directory("", [])
    pack_directory(root, io.BytesIO())
    return set(walk.found), walk.skipped


@pytest.mark.parametrize("version", [2, 4])
def test_what_is_tracked_is_sent_although_gitignore_names_it(tmp_path: Path, version: int) -> None:
    root = repository(tmp_path)
    git(root, "update-index", "--index-version", str(version))
    assert tracked(root) == TRACKED
    found, left = sent(root)
    assert found == TRACKED
    assert left["cmd/server/local.db"] is Why.GITIGNORE


def test_an_index_with_more_flags_is_read_too(tmp_path: Path) -> None:
    root = repository(tmp_path)
    (root / "later.txt").write_text("")
    git(root, "add", "--intent-to-add", "later.txt")
    assert tracked(root) == TRACKED | {"later.txt"}


def test_it_may_be_a_folder_of_a_repository_or_of_another_worktree(tmp_path: Path) -> None:
    root = repository(tmp_path / "whole")
    assert tracked(root / "cmd") == {"server/main.go"}
    git(root, "commit", "-qm", "x")
    git(root, "worktree", "add", "-q", str(tmp_path / "other"))
    assert tracked(tmp_path / "other") == TRACKED


def test_longer_hashes_are_no_hindrance(tmp_path: Path) -> None:
    assert tracked(repository(tmp_path, "--object-format=sha256")) == TRACKED


def test_vibedignore_still_leaves_out_what_is_tracked(tmp_path: Path) -> None:
    root = repository(tmp_path)
    (root / ".vibedignore").write_text(".env\ncmd/\n")
    found, left = sent(root)
    assert found == TRACKED - {".env", "cmd/server/main.go"} | {".vibedignore"}
    assert left["cmd/"] is Why.VIBEDIGNORE


@pytest.mark.parametrize("damage", [b"", b"DIRC", b"DIRC\0\0\0\x09\0\0\0\x01", b"DIRC\0\0\0\x02\0\0\0\x05" + b"x" * 90])
def test_where_the_index_cannot_be_read_gitignore_alone_decides(tmp_path: Path, damage: bytes) -> None:
    root = repository(tmp_path)
    (root / ".git/index").write_bytes(damage)
    assert tracked(root) == frozenset()
    assert sent(root)[0] == TRACKED - {"cmd/server/main.go", ".env"}


def test_no_repository_tracks_nothing(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: nowhere\n")
    assert tracked(tmp_path) == frozenset()
