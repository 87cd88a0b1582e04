# ruff: noqa: E501 (tables of inputs)
"""Packing a folder: what is left out, and that the same files give the same bytes."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibed.apps.errors import VibedError
from vibed.sources.extraction import iter_files
from vibed.sources.limits import ArchiveLimits
from vibed.sources.pack import Packed, Why, pack_directory, pack_files
from vibed.sources.reader import read_table


def make(root: Path, *names: str, **contents: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    for name, content in contents.items():
        (root / name).write_text(content)


def packed(root: Path) -> tuple[list[str], Packed]:
    out = io.BytesIO()
    report = pack_directory(root, out)
    return sorted(contents(out.getvalue())), report


def contents(data: bytes) -> dict[str, bytes]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return dict(iter_files(Path(file.name), read_table(Path(file.name))))


def test_dependencies_caches_and_git_are_left_out(tmp_path: Path) -> None:
    make(
        tmp_path, "app.py", "src/a.js", ".env", ".git/config", ".gitmodules", "node_modules/x/y.js", "sub/node_modules/z.js",
        "venv/pyvenv.cfg", "venv/bin/python", "my-env/pyvenv.cfg", "__pycache__/app.pyc", "src/__pycache__/b.pyc", ".DS_Store",
        ".vibed/link.json", "._app.py",
    )  # fmt: skip
    names, report = packed(tmp_path)
    assert names == [".env", ".gitmodules", "app.py", "src/a.js"]
    assert report.files == 4
    assert "node_modules/" in report.skipped
    assert "venv/" in report.skipped
    assert ".git" in report.skipped


def test_gitignore_is_read_as_git_does(tmp_path: Path) -> None:
    make(
        tmp_path,
        "a.log",
        "keep.log",
        "dist/x",
        "src/dist/y",
        "sub/a.txt",
        "sub/b.txt",
        "sub/deep/b.txt",
        "build",
        "src/only/z",
    )
    (tmp_path / ".gitignore").write_text("*.log\n!keep.log\n/dist/\n# comment\n\nbuild\n")
    (tmp_path / "sub/.gitignore").write_text("*.txt\n!b.txt\n/deep\n")
    names, _ = packed(tmp_path)
    assert names == [".gitignore", "keep.log", "src/dist/y", "src/only/z", "sub/.gitignore", "sub/b.txt"]


def test_vibedignore_wins_over_gitignore_and_the_defaults(tmp_path: Path) -> None:
    make(tmp_path, "dist/index.html", "notes.txt", "node_modules/x.js", "sub/a")
    (tmp_path / ".gitignore").write_text("dist/\n")
    (tmp_path / "sub/.gitignore").write_text("!a\n")
    (tmp_path / ".vibedignore").write_text("!dist/\n!node_modules/\nnotes.txt\n.*ignore\nsub/a\n")
    names, _ = packed(tmp_path)
    assert names == ["dist/index.html", "node_modules/x.js"]


def test_why_something_was_left_out_is_told(tmp_path: Path) -> None:
    make(
        tmp_path, "app.py", "notes.txt", ".env", "dist/x", "node_modules/x.js", "venv/pyvenv.cfg", ".git/config", "a.pyc", ".aws/config",
    )  # fmt: skip
    (tmp_path / ".gitignore").write_text(".env\ndist/\nnode_modules/\nvenv/\n*.pyc\n")
    (tmp_path / ".vibedignore").write_text("notes.txt\n")
    assert packed(tmp_path)[1].skipped == {
        ".aws/": Why.SECRET,
        ".env": Why.GITIGNORE,
        ".git": Why.NEVER,
        "a.pyc": Why.NEVER,
        "dist/": Why.GITIGNORE,
        "node_modules/": Why.PACKAGES,
        "notes.txt": Why.VIBEDIGNORE,
        "venv/": Why.PACKAGES,
    }


def test_private_keys_and_credentials_stay_even_when_they_are_asked_for(tmp_path: Path) -> None:
    secret = [
        ".ssh/config",
        "sub/.gnupg/x",
        ".config/gcloud/token",
        "sub/id_rsa",
        "key.pem",
        "certs/SERVER.KEY",
        "putty.ppk",
    ]
    make(tmp_path, "app.py", "ca.pem", "talk.key", "id_rsa.pub", ".config/app.toml", *secret)
    (tmp_path / "key.pem").write_text("-----BEGIN CERTIFICATE-----\nx\n-----BEGIN RSA PRIVATE KEY-----\nx\n")
    (tmp_path / "certs/SERVER.KEY").write_text("-----BEGIN PRIVATE KEY-----\n")
    (tmp_path / "putty.ppk").write_text("PuTTY-User-Key-File-3: ssh-ed25519\n")
    (tmp_path / ".vibedignore").write_text("!*\n!.ssh/\n!key.pem\n")
    names, report = packed(tmp_path)
    assert names == [".config/app.toml", ".vibedignore", "app.py", "ca.pem", "id_rsa.pub", "talk.key"]
    assert report.left_out(Why.SECRET) == [
        ".config/gcloud/", ".ssh/", "certs/SERVER.KEY", "key.pem", "putty.ppk", "sub/.gnupg/", "sub/id_rsa",
    ]  # fmt: skip
    (tmp_path / ".vibedignore").write_text("key.pem\n")
    assert packed(tmp_path)[1].skipped["key.pem"] is Why.VIBEDIGNORE, "who has said so need not be told"


def test_packing_ends_when_the_source_becomes_too_large(tmp_path: Path) -> None:
    asked = []

    def pack(limit: int | None) -> int:
        def ask() -> int | None:
            asked.append(limit)
            return limit

        out = io.BytesIO()
        try:
            return pack_directory(tmp_path, out, ArchiveLimits(compressed=100_000), ask_limit=ask).compressed
        finally:
            assert out.tell() <= (limit or 1_000_000)

    make(tmp_path, "small.txt")
    pack(None)
    assert asked == [], "only who comes near it asks"
    (tmp_path / "a").mkdir()
    (tmp_path / "a/large.bin").write_bytes(os.urandom(500_000))
    assert pack(1_000_000) > 500_000
    assert pack(None) > 500_000, "where nobody knows the limit, it may be larger than usual"
    with pytest.raises(VibedError) as caught:
        pack(200_000)
    assert caught.value.error_code == "TooLarge"
    assert "0.2 MB" in caught.value.message
    assert caught.value.hint is not None and "‘a/large.bin’ (500 kB)" in caught.value.hint
    (tmp_path / "b").write_bytes(os.urandom(600_000))
    with pytest.raises(VibedError, match="more than 1 MB"):
        pack(None)
    assert asked == [1_000_000, None, 200_000, None]


def test_the_heaviest_are_where_the_bytes_lie(tmp_path: Path) -> None:
    make(tmp_path, "app.py", "static/style.css")
    for name, size in (("static/media/a.mp4", 9_000), ("static/media/b.mp4", 5_000), ("static/fonts/x", 1_000)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    assert packed(tmp_path)[1].heaviest == (("static/media/a.mp4", 9_000), ("static/media/b.mp4", 5_000))
    (tmp_path / "b.csv").write_bytes(b"x" * 4_000)
    assert packed(tmp_path)[1].heaviest[:2] == (("static/", 15_016), ("b.csv", 4_000))


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    make(first, "z.txt", "d/y.txt", "run.sh")
    (first / "run.sh").chmod(0o777)
    shutil.copytree(first, second)
    for path in second.rglob("*"):
        os.utime(path, (1, 1))
    (second / "z.txt").chmod(0o600)
    (second / "run.sh").chmod(0o700)
    outs = [io.BytesIO(), io.BytesIO()]
    reports = [pack_directory(root, out) for root, out in zip((first, second), outs, strict=True)]
    assert outs[0].getvalue() == outs[1].getvalue()
    assert reports[0].compressed == len(outs[0].getvalue())
    assert reports[0].expanded == sum(len(name) for name in ("z.txt", "d/y.txt", "run.sh"))


def test_only_the_owners_right_to_execute_is_kept(tmp_path: Path) -> None:
    make(tmp_path, "run.sh", "a.txt")
    (tmp_path / "run.sh").chmod(0o4755)
    (tmp_path / "a.txt").chmod(0o666)
    out = tmp_path.parent / "out.tar.gz"
    with out.open("wb") as file:
        pack_directory(tmp_path, file)
    assert {entry.path: entry.mode for entry in read_table(out).entries} == {"run.sh": 0o755, "a.txt": 0o644}


def test_links_inside_become_copies(tmp_path: Path) -> None:
    make(tmp_path, "d/real.txt")
    (tmp_path / "link.txt").symlink_to("d/real.txt")
    out = io.BytesIO()
    pack_directory(tmp_path, out)
    assert contents(out.getvalue())["link.txt"] == b"d/real.txt"


@pytest.mark.parametrize(
    ("target", "code"),
    [("/etc/passwd", "LinkOutside"), ("..", "LinkOutside"), ("folder", "DirectoryLink"), ("nothing", "DanglingLink"), ("self", "DanglingLink")],
)  # fmt: skip
def test_other_links_are_refused_unless_ignored(tmp_path: Path, target: str, code: str) -> None:
    root = tmp_path / "root"
    make(root, "a.txt", "folder/x")
    (root / "self").symlink_to(target)
    with pytest.raises(VibedError) as caught:
        packed(root)
    assert caught.value.error_code == code
    (root / ".vibedignore").write_text("self\n")
    assert packed(root)[0] == [".vibedignore", "a.txt", "folder/x"]


def test_links_of_tools_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make(root, "a.txt", ".agents/skills/x", ".claude/x")
    (root / ".claude/skills").symlink_to("../.agents/skills")
    (root / ".claude/mine").symlink_to("/etc/passwd")
    assert packed(root)[0] == [".agents/skills/x", ".claude/x", "a.txt"]


def test_what_cannot_be_packed_says_so(tmp_path: Path) -> None:
    with pytest.raises(VibedError, match="not a folder"):
        packed(tmp_path / "nothing")
    with pytest.raises(VibedError) as empty:
        packed(tmp_path)
    assert empty.value.error_code == "EmptyArchive"
    make(tmp_path, "a\nb")
    with pytest.raises(VibedError) as bad:
        packed(tmp_path)
    assert bad.value.error_code == "BadName"
    (tmp_path / "a\nb").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(VibedError, match="not a regular file"):
            packed(tmp_path)
    (tmp_path / "s").unlink()
    make(tmp_path, "a", "b", "c")
    with pytest.raises(VibedError) as many:
        pack_directory(tmp_path, io.BytesIO(), ArchiveLimits(files=2))
    assert many.value.error_code == "TooManyFiles"


def test_a_line_that_git_would_not_read_is_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "b.txt")
    (tmp_path / ".gitignore").write_bytes(b"!\n\xff\xfe\n[\nb.txt\n")
    assert packed(tmp_path)[0] == [".gitignore", "a.txt"]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(["*.log", "!a.log", "/x", "x/", "**/y", "x/*", "!x/a.log", "y/**", "a*", "?.txt", "!b.txt", "x/**/b.txt"]), max_size=5),
    st.lists(st.sampled_from(["*.log", "!*.log", "b.txt", "!b.txt", "/y", "*"]), max_size=3),
)  # fmt: skip
def test_git_itself_agrees(root_rules: list[str], inner_rules: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        make(root, *[f"{folder}{name}" for folder in ("", "x/", "x/y/", "y/") for name in ("a.log", "b.txt", "c.html")])
        (root / ".gitignore").write_text("\n".join(root_rules) + "\n")
        (root / "x/.gitignore").write_text("\n".join(inner_rules) + "\n")
        git = ["git", "-C", scratch, "-c", "core.excludesFile=/dev/null"]
        subprocess.run([*git, "init", "-q"], check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"})
        listed = subprocess.run(
            [*git, "ls-files", "-z", "--others", "--exclude-standard"], check=True, capture_output=True, text=True
        ).stdout.split("\0")
        try:
            names = packed(root)[0]
        except VibedError as error:
            assert error.error_code == "EmptyArchive"
            names = []
        assert names == sorted(filter(None, listed))


def test_files_in_memory(tmp_path: Path) -> None:
    data = pack_files({"./b/app.py": "print('é')", "a.bin": b"\0\1", "run.sh": "#!/bin/sh\n"})
    assert contents(data) == {"b/app.py": "print('é')".encode(), "a.bin": b"\0\1", "run.sh": b"#!/bin/sh\n"}
    assert data == pack_files({"run.sh": "#!/bin/sh\n", "a.bin": b"\0\1", "b/app.py": "print('é')"})
    path = tmp_path / "a"
    path.write_bytes(data)
    assert {entry.path: entry.mode for entry in read_table(path).entries}["run.sh"] == 0o755


@pytest.mark.parametrize(
    ("name", "code"),
    [("../x", "PathTraversal"), ("/x", "AbsolutePath"), ("a\\b", "BadName"), ("", "BadName"), (".", "BadName"), ("a/" * 40, "BadName"), ("\ud800", "BadName")],
)  # fmt: skip
def test_files_in_memory_have_good_names(name: str, code: str) -> None:
    with pytest.raises(VibedError) as caught:
        pack_files({name: "x"})
    assert caught.value.error_code == code


def test_no_files_in_memory_are_refused() -> None:
    with pytest.raises(VibedError) as caught:
        pack_files({})
    assert caught.value.error_code == "EmptyArchive"
    with pytest.raises(VibedError, match="twice"):
        pack_files({"a": "x", "./a": "y"})
    with pytest.raises(VibedError, match="not valid text"):
        pack_files({"a": "\ud800"})


def test_two_stars_at_the_end_mean_what_is_in_the_folder_and_not_the_folder(tmp_path: Path) -> None:
    make(tmp_path, "y/a.log", "y/b.log", "y/z/c.txt")
    (tmp_path / ".gitignore").write_text("y/**\n!a.log\n")
    assert packed(tmp_path)[0] == [".gitignore", "y/a.log"]
