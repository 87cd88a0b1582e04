"""Some files of a source changed or taken away, and files of a source shown."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources_tar import archive, member

from vibed.sources.contents import contents
from vibed.sources.errors import EmptyArchive
from vibed.sources.extraction import iter_files
from vibed.sources.limits import DEFAULT_LIMITS
from vibed.sources.overlay import NoSuchFile, no_such_file, overlay, without
from vibed.sources.pack import pack_files
from vibed.sources.reader import read_table

NAMES = st.sampled_from(["a", "b.txt", "d/a", "d/e/f", "z", "d.txt"])
CONTENTS = st.binary(max_size=50).filter(lambda content: not content.startswith((b"#!", b"\x7fELF")))
"""Not of programs: what was one keeps its old permissions."""
FILES = st.dictionaries(NAMES, CONTENTS, max_size=5)


def merged(
    folder: Path, base: bytes, patch: dict[str, bytes], removed: list[str], *, strip: str = ""
) -> tuple[bytes, dict[str, bytes]]:
    (folder / "base").write_bytes(base)
    if patch:
        (folder / "patch").write_bytes(pack_files(patch))
    out = io.BytesIO()
    overlay(out, folder / "base", folder / "patch" if patch else None, removed, strip=strip, limits=DEFAULT_LIMITS)
    (folder / "out").write_bytes(out.getvalue())
    return out.getvalue(), dict(iter_files(folder / "out", read_table(folder / "out")))


@given(base=FILES.filter(bool), patch=FILES, data=st.data())
def test_a_source_with_changes_is_the_source_with_those_changes(
    tmp_path_factory: pytest.TempPathFactory, base: dict[str, bytes], patch: dict[str, bytes], data: st.DataObject
) -> None:
    gone = data.draw(st.sets(st.sampled_from(sorted(base)))) - set(patch)
    wanted = {path: content for path, content in {**base, **patch}.items() if path not in gone}
    if not wanted:
        return
    made, files = merged(tmp_path_factory.mktemp("o"), pack_files(base), patch, sorted(gone))
    assert files == wanted
    assert made == pack_files(wanted), "byte by byte, so that what is the same is known as the same"


def test_programs_stay_programs(tmp_path: Path) -> None:
    base = archive(member("run.sh", b"#!/bin/sh\n", mode=b"0000755\0"), member("app.py", b"x", mode=b"0000644\0"))
    made, _ = merged(tmp_path, base, {"app.py": b"y"}, [])
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        assert {member.name: oct(member.mode) for member in tar} == {"run.sh": "0o755", "app.py": "0o644"}


def test_what_becomes_a_program_may_be_run(tmp_path: Path) -> None:
    base = pack_files({"app.py": "x", "run.sh": "echo\n"})
    made, _ = merged(tmp_path, base, {"run.sh": b"#!/bin/sh\necho\n"}, [])
    assert made == pack_files({"app.py": "x", "run.sh": "#!/bin/sh\necho\n"})


def test_a_wrapping_folder_is_looked_through(tmp_path: Path) -> None:
    base = pack_files({"shop/app.py": b"1", "shop/old.py": b"2"})
    _, files = merged(tmp_path, base, {"app.py": b"3", "new/x.py": b"4"}, ["old.py"], strip="shop/")
    assert files == {"shop/app.py": b"3", "shop/new/x.py": b"4"}
    shown = contents(tmp_path / "out", ["app.py"], strip="shop/", budget=1_000, most=10, limits=DEFAULT_LIMITS)
    assert [(file.path, file.text) for file in shown.files] == [("app.py", "3")]


@pytest.mark.parametrize("removed", [["nothing"], ["d/x"], ["/"], ["."], [""]])
def test_what_is_not_there_cannot_be_taken_away(tmp_path: Path, removed: list[str]) -> None:
    with pytest.raises(NoSuchFile):
        merged(tmp_path, pack_files({"a": b"1", "d/e": b"2"}), {}, removed)


def test_a_file_is_not_changed_and_removed_at_once_and_something_is_left(tmp_path: Path) -> None:
    base = pack_files({"a": b"1", "d/e": b"2"})
    with pytest.raises(NoSuchFile):
        merged(tmp_path, base, {"d/e": b"3"}, ["d"])
    with pytest.raises(EmptyArchive):
        merged(tmp_path, base, {}, ["a", "d"])


def test_a_folder_takes_what_is_in_it_and_nothing_that_is_called_alike(tmp_path: Path) -> None:
    base = dict.fromkeys(["d", "d-x/a", "d.txt", "d0", "dd/a", "e/f", "e/g/h", "e/ü", "e.x"], b"1")
    for removed, left in (["d"], base.keys() - {"d"}), (["./e/"], base.keys() - {"e/f", "e/g/h", "e/ü"}):
        assert merged(tmp_path, pack_files(base), {}, removed)[1].keys() == left


def test_many_names_of_many_files_are_found_in_one_step_each() -> None:
    present = {f"{n % 100}/{n}" for n in range(20_000)}
    # each name against each file took seconds, in which nobody else is answered
    gone = [f"{n % 100}/{n}" for n in range(900)] + [str(n) for n in range(5)]
    assert without(present, gone) == {
        path for path in present if path in set(gone) or path.split("/")[0] in set("01234")
    }


def test_what_is_shown_is_bounded_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(pack_files({"a": b"x" * 60, "b": b"y" * 50, "c.png": b"\x89\0", "d": b"z" * 200}))
    shown = contents(tmp_path / "s", ["."], strip="", budget=120, most=10, limits=DEFAULT_LIMITS)
    assert [(file.path, file.text is None) for file in shown.files] == [("a", False), ("b", False), ("c.png", True)]
    assert (shown.total, shown.left_out) == (4, ("d",))
    listed = contents(tmp_path / "s", None, strip="", budget=0, most=2, limits=DEFAULT_LIMITS)
    assert ([file.path for file in listed.files], listed.total) == (["a", "b"], 4)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("src/page.html", ["web/page.html"]), ("web/pages.html", ["web/page.html"]), ("x" * 4096, [])],
)
def test_a_name_that_is_not_there_is_answered_with_the_nearest(tmp_path: Path, name: str, nearest: list[str]) -> None:
    with pytest.raises(NoSuchFile) as caught:
        merged(tmp_path, pack_files({"web/page.html": b"1", "README": b"2"}), {}, [name])
    assert caught.value.extra["nearest"] == nearest


def test_the_nearest_name_is_looked_for_among_few(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def note(word: str, among: list[str], *_: object) -> list[str]:
        compared.extend([word, *among])
        return []

    monkeypatch.setattr("difflib.get_close_matches", note)
    deep = {f"{'a' * 150}/{n}" for n in range(1_000)}
    no_such_file("b" * 4096, {"near.txt", *(f"d/{n}" for n in range(1_000)), *deep})
    assert compared[1] == "near.txt"
    assert len(compared) <= 201 and max(map(len, compared)) <= 100
