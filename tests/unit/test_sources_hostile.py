"""Every archive that is refused, written byte by byte, with the code it is refused with."""

from __future__ import annotations

import gzip
import os
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from sources_tar import END, archive, hard_link, header, link, long_name, member, pax, written

import vibed.sources.errors as errors
from vibed.apps.errors import VibedError
from vibed.sources.errors import ArchiveError
from vibed.sources.extraction import extract
from vibed.sources.limits import DEFAULT_LIMITS
from vibed.sources.reader import read_table

OK = member("index.html", b"<p>hello</p>")
NOISE = os.urandom(4096)
SMALL = replace(
    DEFAULT_LIMITS, compressed=600_000, expanded=3_000_000, file=2_000_000, files=50, ratio=20, ratio_free=1_000_000
)

HOSTILE: list[tuple[str, str, bytes]] = [
    # what, code, bytes
    ("a plain tar", "NotGzip", OK + END),
    ("a zip", "NotGzip", b"PK\x03\x04" + NOISE),
    ("a page", "NotGzip", b"<!doctype html>"),
    ("one byte", "NotGzip", b"x"),
    ("no bytes", "NotGzip", b""),
    ("gzip of nothing", "EmptyArchive", gzip.compress(b"")),
    ("only an end mark", "EmptyArchive", archive()),
    ("only folders", "EmptyArchive", archive(member("a/", flag=b"5"))),
    ("gzip of a page", "NotTar", gzip.compress(b"<!doctype html>" * 200)),
    ("gzip of a short text", "NotTar", gzip.compress(b"hello")),
    ("cut in the gzip header", "TruncatedArchive", archive(OK)[:6]),
    ("cut in the gzip data", "TruncatedArchive", archive(member("a", NOISE))[:2000]),
    ("cut in the gzip trailer", "TruncatedArchive", archive(OK)[:-3]),
    ("no end mark", "TruncatedArchive", archive(OK, end=b"")),
    ("cut in a header", "TruncatedArchive", archive(OK, header(b"b")[:300], end=b"")),
    ("cut in a file", "TruncatedArchive", archive(header(b"a", 5000), NOISE[:1000], end=b"")),
    ("cut in a kept text", "TruncatedArchive", archive(header(b"app.py", 5000), NOISE[:1000], end=b"")),
    ("wrong checksum of the gzip data", "CorruptArchive", archive(OK)[:-8] + b"\1\2\3\4" + archive(OK)[-4:]),
    ("damaged deflate data", "CorruptArchive", archive(OK)[:12] + b"\xff" * 40 + archive(OK)[52:]),
    ("damaged header", "CorruptArchive", archive(OK, b"\x41" * 512)),
    ("changed header", "CorruptArchive", archive(OK, header(b"b").replace(b"b", b"c", 1))),
    ("negative size", "CorruptArchive", archive(header(b"a", size_field=b"\xff" * 12))),
    ("size that is not octal", "CorruptArchive", archive(header(b"a", size_field=b"0000000009a\0"))),
    ("size with an underscore", "CorruptArchive", archive(header(b"a", size_field=b"000000000_1\0"))),
    ("signed size", "CorruptArchive", archive(header(b"a", size_field=b"+0000000001\0"))),
    ("folder with content", "CorruptArchive", archive(header(b"a/", 5, b"5"), bytes(512), OK)),
    ("link with content", "CorruptArchive", archive(OK, header(b"a", 5, b"2", link=b"index.html"), bytes(512))),
    ("malformed pax", "CorruptArchive", archive(member("pax", b"99 path=x\n", b"x"), OK)),
    ("pax without a length", "CorruptArchive", archive(member("pax", b"path=x\n", b"x"), OK)),
    ("pax size that is not a number", "CorruptArchive", archive(pax({"size": "1e3"}), OK)),
    ("two pax headers", "CorruptArchive", archive(pax({"path": "a"}), pax({"path": "b"}), OK)),
    ("two long names", "CorruptArchive", archive(long_name(b"a"), long_name(b"b"), OK)),
    ("pax and GNU name", "CorruptArchive", archive(long_name(b"a"), pax({"path": "b"}), OK)),
    ("pax header at the end", "CorruptArchive", archive(OK, pax({"path": "b"}))),
    ("huge pax header", "CorruptArchive", archive(member("pax", b"x" * 70_000, b"x"), OK)),
    ("two gzip members", "TrailingData", archive(OK) + archive(OK)),
    ("garbage after gzip", "TrailingData", archive(OK) + b"garbage"),
    ("garbage far after gzip", "TrailingData", archive(OK) + bytes(300_000) + b"x"),
    ("tar after tar", "TrailingData", archive(OK, END, member("b", b"x"))),
    ("member after one zero block", "TrailingData", archive(OK, bytes(512), member("b", b"x"))),
    ("byte after the end mark", "TrailingData", archive(OK, END, b"x")),
    ("..", "PathTraversal", archive(member("../x"))),
    (".. alone", "PathTraversal", archive(member(".."))),
    (".. within", "PathTraversal", archive(member("a/../../x"))),
    (".. at the end", "PathTraversal", archive(OK, member("a/..", flag=b"5"))),
    (".. after ./", "PathTraversal", archive(member("./../x"))),
    (".. in pax", "PathTraversal", archive(pax({"path": "../x"}), OK)),
    (".. in a GNU long name", "PathTraversal", archive(long_name(b"../" * 50 + b"x"), OK)),
    (".. in the prefix", "PathTraversal", archive(member("x", prefix=b"..")),),
    ("absolute", "AbsolutePath", archive(member("/etc/passwd"))),
    ("absolute folder", "AbsolutePath", archive(OK, member("/", flag=b"5"))),
    ("absolute after ./", "AbsolutePath", archive(member(".//etc/passwd"))),
    ("absolute in pax", "AbsolutePath", archive(pax({"path": "/etc/passwd"}), OK)),
    ("control character", "BadName", archive(member("a\nb"))),
    ("escape sequence", "BadName", archive(member("a\x1b[2Jb"))),
    ("delete", "BadName", archive(member("a\x7f"))),
    ("C1 control character", "BadName", archive(member("a\u0085b"))),
    ("NUL in pax", "BadName", archive(pax({"path": b"a\0b"}), OK)),
    ("NUL in a GNU long name", "BadName", archive(long_name(b"a\0b"), OK)),
    ("backslash", "BadName", archive(member("a\\b"))),
    ("drive with backslash", "BadName", archive(member("C:\\x"))),
    ("Latin-1", "BadName", archive(member(b"caf\xe9.html"))),
    ("overlong UTF-8", "BadName", archive(member(b"a\xc0\xafb"))),
    ("surrogate", "BadName", archive(member(b"a\xed\xa0\x80"))),
    ("empty part", "BadName", archive(member("a//b"))),
    ("dot part", "BadName", archive(member("a/./b"))),
    ("no name", "BadName", archive(member(""))),
    ("empty name in pax", "BadName", archive(pax({"path": ""}), OK)),
    ("file named like the root", "BadName", archive(member("./", b"x"))),
    ("file named .", "BadName", archive(member(".", b"x"))),
    ("link named .", "BadName", archive(OK, link(".", "index.html"))),
    ("file whose name ends with /", "BadName", archive(member("a/", b"x"))),
    ("long name", "PathTooLong", archive(long_name(b"a/" * 300 + b"x"), OK)),
    ("long part", "PathTooLong", archive(long_name(b"a" * 256), OK)),
    ("long part in UTF-8", "PathTooLong", archive(pax({"path": "é" * 128}), OK)),
    ("deep", "PathTooLong", archive(member("a/" * 33 + "x"))),
    ("same file twice", "DuplicateName", archive(OK, OK)),
    ("same file with and without ./", "DuplicateName", archive(OK, member("./index.html", b"x"))),
    ("file and folder", "DuplicateName", archive(OK, member("index.html/", flag=b"5"))),
    ("folder and file", "DuplicateName", archive(member("a/", flag=b"5"), member("a", b"x"))),
    ("file below a file", "DuplicateName", archive(OK, member("index.html/x", b"x"))),
    ("file where a folder is implied", "DuplicateName", archive(member("a/b", b"x"), member("a", b"x"))),
    ("file below a link", "DuplicateName", archive(OK, link("a", "index.html"), member("a/x", b"x"))),
    ("file over a link", "DuplicateName", archive(OK, link("a", "index.html"), member("a", b"x"))),
    ("link over a file", "DuplicateName", archive(OK, link("index.html", "b"), member("b", b"x"))),
    ("link to an absolute path", "LinkOutside", archive(OK, link("a", "/etc/passwd"))),
    ("link out with ..", "LinkOutside", archive(OK, link("a", "../../etc/passwd"))),
    ("link out and back", "LinkOutside", archive(OK, link("a", "../x/index.html"))),
    ("link out of a folder", "LinkOutside", archive(OK, link("b/a", "../../x"))),
    ("link whose name hides its way out", "LinkOutside", archive(OK, link("a", "x/../../y"))),
    ("link out in pax", "LinkOutside", archive(OK, pax({"linkpath": "/etc/passwd"}), link("a", "index.html"))),
    ("link out in a GNU long link", "LinkOutside", archive(OK, long_name(b"/etc/passwd", b"K"), link("a", "x"))),
    ("hard link out", "LinkOutside", archive(OK, hard_link("a", "../etc/passwd"))),
    ("hard link to an absolute path", "LinkOutside", archive(OK, hard_link("a", "/etc/passwd"))),
    ("link to nothing", "DanglingLink", archive(OK, link("a", "b"))),
    ("empty link", "DanglingLink", archive(OK, link("a", ""))),
    ("link to itself", "DanglingLink", archive(OK, link("a", "a"))),
    ("links in a circle", "DanglingLink", archive(OK, link("a", "b"), link("b", "a"))),
    ("hard link to nothing", "DanglingLink", archive(OK, hard_link("a", "b"))),
    ("link to a folder", "DirectoryLink", archive(member("d/x", b"x"), link("a", "d"))),
    ("link to the root", "DirectoryLink", archive(OK, link("a", "."))),
    ("link to the root from below", "DirectoryLink", archive(OK, link("d/a", ".."))),
    ("link whose target is not UTF-8", "BadName", archive(OK, link("a", b"\xff"))),
    ("character device", "DeviceFile", archive(OK, member("null", flag=b"3"))),
    ("block device", "DeviceFile", archive(OK, member("sda", flag=b"4"))),
    ("named pipe", "DeviceFile", archive(OK, member("pipe", flag=b"6"))),
    ("GNU sparse", "SparseFile", archive(OK, member("s", flag=b"S"))),
    ("pax sparse", "SparseFile", archive(pax({"GNU.sparse.major": "1"}), OK)),
    ("volume label", "UnsupportedMember", archive(member("v", flag=b"V"), OK)),
    ("piece of a volume", "UnsupportedMember", archive(member("m", flag=b"M"), OK)),
    ("dump folder", "UnsupportedMember", archive(member("d", flag=b"D"), OK)),
    ("unknown kind", "UnsupportedMember", archive(member("d", flag=b"!"), OK)),
    ("global path", "UnsupportedMember", archive(pax({"path": "x"}, b"g"), OK)),
    ("global size", "UnsupportedMember", archive(pax({"size": "1"}, b"g"), OK)),
    ("more files than the limit", "TooManyFiles", archive(*[member(f"f{i}") for i in range(51)])),
    ("more implied folders than the limit", "TooManyFiles", archive(*[member(f"{i}/a/b/c/f") for i in range(20)])),
    ("the same folder again and again", "TooManyFiles", archive(OK, *[member("d/", flag=b"5")] * 300)),
    ("headers without members", "TooManyFiles", archive(*[pax({"comment": "x"}, b"g")] * 300, OK)),
    ("large upload", "TooLarge", archive(member("a", os.urandom(620_000)))),
    ("large file", "FileTooLarge", archive(header(b"a", 2_000_001))),
    ("size beyond 8 GB", "FileTooLarge", archive(header(b"a", size_field=b"\x80" + b"\xff" * 11))),
    ("large file by pax", "FileTooLarge", archive(pax({"size": "999999999999"}), OK)),
    ("large in all", "ExpandedTooLarge",
     archive(member("n", os.urandom(200_000)), *[member(f"f{i}", bytes(400_000)) for i in range(10)])),
    ("large by its links", "ExpandedTooLarge",
     archive(member("a", bytes(900_000)), *[link(f"{i}", "a") for i in range(4)])),
    ("bomb", "CompressionRatio", archive(member("a", bytes(1_900_000)))),
    ("bomb of zeros after the end", "CompressionRatio", archive(OK, END, bytes(2_000_000))),
]  # fmt: skip


@pytest.mark.parametrize(("code", "data"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_is_refused_with_its_own_code(tmp_path: Path, code: str, data: bytes) -> None:
    with pytest.raises(ArchiveError) as caught:
        read_table(written(tmp_path / "a.tar.gz", data), SMALL)
    assert caught.value.error_code == code
    assert caught.value.http_status in (400, 413)
    assert not caught.value.may_retry
    assert len(caught.value.message) < 400
    assert caught.value.message.isprintable()


def test_every_refusal_is_in_the_battery() -> None:
    codes = {
        cls.code
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, ArchiveError) and cls is not ArchiveError
    }
    assert codes == {row[1] for row in HOSTILE}


def test_a_bomb_is_refused_before_it_is_expanded(tmp_path: Path) -> None:
    # 280 MB of zeros in 280 kB: one compressed piece again and again. Its checksum is never reached.
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(header(b"zeros", 280_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    path = written(tmp_path / "bomb.tar.gz", start + piece * 280)
    tracemalloc.start()
    try:
        with pytest.raises(errors.CompressionRatio):
            read_table(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        archive(OK, END),
        archive(OK, END, bytes(10_240)),
        archive(OK, end=bytes(512)),
        archive(OK) + bytes(700),
        archive(member("./", flag=b"5"), member("./index.html", b"x")),
        archive(member("d/", flag=b"5"), member("d/", flag=b"5"), member("d/index.html", b"x")),
        archive(pax({"comment": "0123456789abcdef"}, b"g"), OK),
        archive(header(b"old", 2, b"\0", magic=bytes(8)), b"hi" + bytes(510)),
        archive(OK, link("a", "b"), link("b", "./d/../index.html"), member("d/x")),
    ],
    ids=[
        "twice the end",
        "records",
        "one zero block",
        "zeros after gzip",
        "./",
        "folder twice",
        "git archive",
        "v7",
        "links",
    ],
)
def test_what_programs_really_write_is_accepted(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path / "a.tar.gz", data)
    table = read_table(path)
    assert extract(path, table, tmp_path / "out") == table.files


def test_a_link_becomes_a_copy(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar.gz", archive(link("d/a", "../index.html"), OK, hard_link("h", "index.html")))
    table = read_table(path)
    extract(path, table, tmp_path / "out")
    for name in ("d/a", "h", "index.html"):
        out = tmp_path / "out" / name
        assert not out.is_symlink()
        assert out.stat().st_nlink == 1
        assert out.read_bytes() == b"<p>hello</p>"


TOOL_LINKS = {
    ".venv/bin/python": "/usr/bin/python3",
    "my-env/bin/python3.13": "python",
    "my-env/lib64": "lib",
    ".claude/skills": "../.agents/skills",
    "node_modules/express": "/root/.local/share/pnpm/store/express",
    "web/node_modules/shop": "../../packages/shop",
    ".pixi/envs/default/lib/x": "/opt/conda/lib/x",
    "web/.agents/rules.md": "../../../rules.md",
    "node_modules/.bin/vite": "../vite/bin/vite.js",
}


@pytest.mark.parametrize(("name", "target"), TOOL_LINKS.items())
def test_a_link_of_a_tool_that_cannot_be_carried_over_is_left_out(tmp_path: Path, name: str, target: str) -> None:
    data = archive(OK, member("my-env/lib/x", b""), member(".agents/skills/x", b""), link(name, target))
    path = written(tmp_path / "a.tar.gz", data)
    table = read_table(path)
    assert table.passed_over == (name,)
    assert all(entry.path != name for entry in table.entries)
    assert extract(path, table, tmp_path / "out") == 3


def test_a_link_to_a_package_of_the_apps_own_is_not_left_out_in_silence(tmp_path: Path) -> None:
    data = archive(OK, member("packages/shop/index.js", b""), link("node_modules/shop", "../packages/shop"))
    with pytest.raises(errors.DirectoryLink, match="points at the folder"):
        read_table(written(tmp_path / "a.tar.gz", data))


def test_a_link_of_a_tool_to_a_file_of_the_archive_becomes_a_copy(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar.gz", archive(OK, link(".claude/page.html", "../index.html")))
    assert read_table(path).passed_over == ()
    assert extract(path, read_table(path), tmp_path / "out") == 2


def test_a_link_out_of_the_folder_that_is_stripped_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar.gz", archive(link("d/a", "../index.html"), OK))
    with pytest.raises(errors.LinkOutside):
        extract(path, read_table(path), tmp_path / "out", strip="d/")
    assert not (tmp_path / "out").exists()


def test_set_uid_and_writing_by_others_are_dropped(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.tar.gz", archive(member("run", b"x", mode=b"0006777\0"), member("x", mode=b"0000000\0"))
    )
    extract(path, read_table(path), tmp_path / "out")
    assert (tmp_path / "out/run").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "out/x").stat().st_mode & 0o7777 == 0o400


def test_a_hostile_name_is_quoted_and_short(tmp_path: Path) -> None:
    data = archive(long_name(b"\x1b]0;owned\x07<script>" + b"a" * 400), OK)
    with pytest.raises(errors.BadName) as caught:
        read_table(written(tmp_path / "a.tar.gz", data))
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 200


def test_the_documentation_has_every_code() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/archives.md").read_text()
    for cls in vars(errors).values():
        if (
            isinstance(cls, type)
            and issubclass(cls, VibedError)
            and cls.__module__ == errors.__name__
            and cls is not ArchiveError
        ):
            assert f"| `{cls.code}` | {cls.status} |" in text
