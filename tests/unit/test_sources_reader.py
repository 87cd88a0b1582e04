"""Reading and extracting what is valid: the same as Python's tarfile, whatever the format."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sources_tar import archive, header, link, member, padded, pax, written

from vibed.sources.errors import ArchiveError, CorruptArchive, NotGzip, StorageFailed
from vibed.sources.extraction import extract, iter_files
from vibed.sources.limits import DEFAULT_LIMITS
from vibed.sources.reader import read_table
from vibed.sources.table import Kind
from vibed.sources.texts import Kept

PART = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="/\\\ufffe\uffff"),
    min_size=1,
    max_size=40,
).filter(lambda part: part not in (".", ".."))
FILES = st.dictionaries(
    st.lists(PART, min_size=1, max_size=5).map(tuple), st.binary(max_size=3000), min_size=1, max_size=12
).filter(lambda files: not any(other[: len(path)] == path for path in files for other in files if other != path))
FORMATS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@RELAXED
@given(FILES, FORMATS, st.booleans())
def test_reads_and_writes_what_tarfile_does(files: dict[tuple[str, ...], bytes], form: int, dotted: bool) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=form) as out:
        for parts, content in files.items():
            info = tarfile.TarInfo(("./" if dotted else "") + "/".join(parts))
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    with tempfile.TemporaryDirectory() as scratch:
        path = written(Path(scratch, "a.tar.gz"), buffer.getvalue())
        table = read_table(path)
        extract(path, table, Path(scratch, "ours"))
        with tarfile.open(path) as theirs:
            theirs.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian 12's Python 3.11.2 has none yet
            theirs.extractall(Path(scratch, "theirs"))
        assert tree(Path(scratch, "ours")) == tree(Path(scratch, "theirs"))
        assert dict(iter_files(path, table)) == {"/".join(parts): content for parts, content in files.items()}


SEEDS = [
    archive(member("index.html", b"<p>hello</p>"), member("d/", flag=b"5"), member("d/app.py", b"x" * 3000)),
    archive(
        pax({"path": "long/" * 30 + "x", "mtime": "1.5"}), member("x", b"abc"), link("l", "d/x"), member("d/x", b"")
    ),
]


@RELAXED
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=6),
    st.booleans(),
)
def test_a_mutated_archive_raises_nothing_else_and_touches_nothing_outside(
    seed: bytes, changes: list[tuple[int, int]], inside: bool
) -> None:
    data = bytearray(gzip.decompress(seed) if inside else seed)
    for at, value in changes:
        data[at % len(data)] = value
    if inside:
        # Keep checksums right, so that the changes reach the parser behind them.
        for at in range(0, len(data) - 511, 512):
            block = bytes(data[at : at + 512])
            if block[257:262] == b"ustar":
                cleared = block[:148] + b" " * 8 + block[156:]
                data[at + 148 : at + 156] = b"%06o\0 " % sum(cleared)
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "sentinel").write_text("untouched")
        path = written(Path(scratch, "a.tar.gz"), gzip.compress(data, 1) if inside else bytes(data))
        try:
            table = read_table(path)
            extract(path, table, Path(scratch, "out"))
        except ArchiveError:
            assert not Path(scratch, "out").exists()
        else:
            for found in Path(scratch, "out").rglob("*"):
                assert not found.is_symlink()
        assert Path(scratch, "sentinel").read_text() == "untouched"
        assert set(os.listdir(scratch)) <= {"sentinel", "a.tar.gz", "out"}


@RELAXED
@given(st.binary(max_size=4000), st.booleans())
def test_arbitrary_bytes_raise_archive_errors_only(data: bytes, compressed: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = written(Path(scratch, "a"), gzip.compress(data, 1) if compressed else data)
        with pytest.raises(ArchiveError):
            read_table(path)


@RELAXED
@given(st.lists(st.tuples(st.text("abcde", min_size=1, max_size=3), st.integers(0, 60)), max_size=30), st.randoms())
def test_which_texts_are_kept_does_not_depend_on_the_order(items: list[tuple[str, int]], random: object) -> None:
    unique = dict(items)
    first, second = Kept(100), Kept(100)
    order = list(unique.items())
    for path, size in order:
        first.add(path, bytes(size))
    random.shuffle(order)  # type: ignore[attr-defined]
    for path, size in order:
        second.add(path, bytes(size))
    assert first.result() == second.result()


def test_the_table_says_what_is_in_it(tmp_path: Path) -> None:
    data = archive(
        member("./", flag=b"5"),
        member("./site/", flag=b"5"),
        member("./site/app.py", b"print()", mode=b"0000755\0"),
        member("./site/logo.png", b"\x89PNG" * 100),
        link("site/copy.png", "logo.png"),
    )
    table = read_table(written(tmp_path / "a.tar.gz", data))
    assert [(e.path, e.kind, e.size, e.mode, e.target) for e in table.entries] == [
        ("site", Kind.DIRECTORY, 0, 0o644, ""),
        ("site/app.py", Kind.FILE, 7, 0o755, ""),
        ("site/logo.png", Kind.FILE, 400, 0o644, ""),
        ("site/copy.png", Kind.LINK, 400, 0o644, "site/logo.png"),
    ]
    assert table.files == 3
    assert table.expanded == 807
    assert table.texts == {"site/app.py": b"print()", "site/logo.png": b"\x89PNG" * 16}
    assert table.texts_complete


def test_a_size_in_base_256_is_read(tmp_path: Path) -> None:
    data = archive(header(b"a", size_field=b"\x80" + (3).to_bytes(11, "big")), padded(b"abc"))
    assert read_table(written(tmp_path / "a", data)).entries[0].size == 3


def test_a_checksum_of_signed_bytes_is_read(tmp_path: Path) -> None:
    block = header("é".encode())
    cleared = block[:148] + b" " * 8 + block[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in cleared)
    data = archive(block[:148] + b"%06o\0 " % signed + block[156:])
    assert read_table(written(tmp_path / "a", data)).entries[0].path == "é"


PICTURE = b"'data:image/png;base64," + b"iVBORw0KGgo+/" * 40_000 + b"'"
PAGE = b'"""' + b"<p class=a>hello (world)</p>\n" * 15_000 + b'"""'


LINES = b"'" * 3 + b"\n" + b"iVBORw0KGgo+" * 6 + (b"\n" + b"iVBORw0KGgo+" * 6) * 6000 + b"\n" + b"'" * 3


@pytest.mark.parametrize(
    "literal",
    [PICTURE, LINES, PAGE, PICTURE + b" + " + PAGE],
    ids=["a picture", "a picture in lines", "a page", "both"],
)
def test_what_a_long_literal_in_a_source_comes_before_is_kept(tmp_path: Path, literal: bytes) -> None:
    text = b"first()\nX = " + literal + b"\n" + b"x = 1\n" * 300 + b"last()\n"
    kept = read_table(written(tmp_path / "a", archive(member("app.py", text)))).texts["app.py"]
    assert len(kept) <= 256 << 10
    assert kept.startswith(b"first()")
    assert kept.endswith(b"last()\n")


def test_large_files_pass_through_in_pieces(tmp_path: Path) -> None:
    content = os.urandom(5_000_000)
    data = archive(member("a.bin", content), member("b.py", content[:400_000]), member("c.bin", content[1:]))
    path = written(tmp_path / "a", data)
    table = read_table(path)
    assert len(table.texts["b.py"]) == 256 << 10
    assert extract(path, table, tmp_path / "out") == 3
    assert (tmp_path / "out/a.bin").read_bytes() == content
    assert (tmp_path / "out/c.bin").read_bytes() == content[1:]
    assert dict(iter_files(path, table))["b.py"] == content[:400_000]


def test_extraction_takes_one_folder_and_sets_modes_and_owner(tmp_path: Path) -> None:
    data = archive(member("site/css/a.css", b"a"), member("site/index.html", b"i"), member("README", b"r"))
    path = written(tmp_path / "a", data)
    owner = (4321, 5432) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    old = os.umask(0o077)
    try:
        extract(path, read_table(path), tmp_path / "out", strip="site/", file_mode=0o640, dir_mode=0o750, owner=owner)
    finally:
        os.umask(old)
    assert tree(tmp_path / "out") == {"css/a.css": b"a", "index.html": b"i"}
    for name, mode in {"": 0o750, "css": 0o750, "css/a.css": 0o640, "index.html": 0o640}.items():
        made = (tmp_path / "out" / name).stat()
        assert (made.st_mode & 0o777, (made.st_uid, made.st_gid)) == (mode, owner), name


@pytest.mark.parametrize("strip", ["site", "site/css", "s"])
def test_only_a_whole_folder_can_be_stripped(tmp_path: Path, strip: str) -> None:
    """Of `site/a` the rest would else be `/a`, which is not below the place."""
    path = written(tmp_path / "a", archive(member("site/css/a.css", b"a")))
    table = read_table(path)
    with pytest.raises(ValueError, match="slash"):
        extract(path, table, tmp_path / "out", strip=strip)
    with pytest.raises(ValueError, match="slash"):
        list(iter_files(path, table, strip=strip))
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NotGzip, match="not a file"):
        read_table(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(written(tmp_path / "a", archive(member("index.html", b"i"))))
    with pytest.raises(OSError):
        read_table(tmp_path / "link")


def test_extraction_refuses_a_place_that_exists_and_leaves_it_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "a", SEEDS[0])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    with pytest.raises(FileExistsError):
        extract(path, read_table(path), tmp_path / "out")
    assert tree(tmp_path / "out") == {"mine": b"mine"}


def test_extraction_leaves_nothing_when_the_archive_was_exchanged(tmp_path: Path) -> None:
    path = written(tmp_path / "a", archive(member("index.html", b"old " * 500)))
    table = read_table(path)
    changed = bytearray(path.read_bytes())
    changed[-6] ^= 1
    written(path, bytes(changed))
    with pytest.raises(CorruptArchive):
        extract(path, table, tmp_path / "out")
    written(path, bytes(changed) + b"\0")
    with pytest.raises(CorruptArchive):
        extract(path, table, tmp_path / "out")
    assert os.listdir(tmp_path) == ["a"]


def test_extraction_leaves_nothing_when_the_disk_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a", SEEDS[0])
    table = read_table(path)

    def broken(fd: int, data: bytes) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("vibed.sources.extraction.os.write", broken)
    with pytest.raises(StorageFailed):
        extract(path, table, tmp_path / "out")
    assert os.listdir(tmp_path) == ["a"]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    path = written(tmp_path / "a", SEEDS[0])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        table = read_table(path)
        list(iter_files(path, table))
        next(iter_files(path, table))
        with pytest.raises(ArchiveError):
            read_table(written(tmp_path / "b", b"x"))
    assert len(os.listdir("/proc/self/fd")) == before
    assert DEFAULT_LIMITS.files == 20_000
