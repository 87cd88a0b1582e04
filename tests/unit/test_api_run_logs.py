"""Reading an app's log across runs and rotations, and coming back to where one was."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibed.supervision.runlogs import BadPosition, LogReader, Position


class Log:
    """Writes one run's log as a supervisor does."""

    def __init__(self, root: Path, run: int) -> None:
        self.run = run
        self.folder = root / f"{run:010d}"
        self.folder.mkdir(parents=True)
        self.seq = 0

    def line(self, text: str, at: float, *, end: str = "\n") -> None:
        self.seq += 1
        item = {"seq": self.seq, "ts": at, "stream": "stdout", "text": text}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(item) + end)

    def rotate(self) -> None:
        (self.folder / "log.jsonl").rename(self.folder / "log.1.jsonl")


def texts(reader: LogReader, limit: int = 1_000) -> list[str]:
    return [line.text for line, _ in reader.read(limit)]


def test_an_app_without_a_log_has_no_lines(tmp_path: Path) -> None:
    reader = LogReader(tmp_path / "nothing")
    assert texts(reader) == []
    reader.seek_tail(5)
    assert texts(reader) == []


def test_lines_come_in_order_and_each_once(tmp_path: Path) -> None:
    log = Log(tmp_path, 1)
    reader = LogReader(tmp_path)
    log.line("a", 1)
    log.line("b", 2)
    assert texts(reader) == ["a", "b"]
    assert texts(reader) == []
    log.line("c", 3)
    assert texts(reader) == ["c"]


def test_a_line_that_is_half_written_waits_for_its_end(tmp_path: Path) -> None:
    log = Log(tmp_path, 1)
    reader = LogReader(tmp_path)
    log.line("whole", 1)
    log.line("half", 2, end="")
    assert texts(reader) == ["whole"]
    with (log.folder / "log.jsonl").open("a") as file:
        file.write("\n")
    assert texts(reader) == ["half"]


def test_a_rotation_loses_and_repeats_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path, 1)
    reader = LogReader(tmp_path)
    log.line("a", 1)
    assert texts(reader) == ["a"]
    log.line("b", 2)
    log.rotate()
    log.line("c", 3)
    assert texts(reader) == ["b", "c"]
    assert texts(LogReader(tmp_path)) == ["a", "b", "c"]


def test_a_line_that_comes_between_the_last_look_and_a_rotation_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path, 1)
    reader = LogReader(tmp_path)
    log.line("a", 1)
    pread = os.pread

    def at_the_end(descriptor: int, count: int, offset: int) -> bytes:
        found = pread(descriptor, count, offset)
        if not found and log.seq == 1:
            log.line("b", 2)
            log.rotate()
            log.line("c", 3)
        return found

    monkeypatch.setattr(os, "pread", at_the_end)
    assert texts(reader) == ["a", "b", "c"]


def test_a_rotation_while_a_log_is_opened_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(tmp_path, 1)
    reader = LogReader(tmp_path)
    log.line("a", 1)
    opened = os.open

    def between(path: Path, flags: int) -> int:
        try:
            return opened(path, flags)
        finally:
            if log.seq == 1:
                log.rotate()
                log.line("b", 2)

    monkeypatch.setattr(os, "open", between)
    assert texts(reader) == ["a", "b"]


def test_what_rotation_removed_is_told_as_a_gap(tmp_path: Path) -> None:
    log = Log(tmp_path, 1)
    for n in range(1, 4):
        log.line(f"one {n}", n)
    log.rotate()
    log.line("two", 4)
    (log.folder / "log.1.jsonl").unlink()
    lines = LogReader(tmp_path, Position.parse("1-1")).read(10)
    assert [(line.missing, line.seq) for line, _ in lines] == [(2, 3), (0, 4)]
    assert lines[0][0].stream == "system"


def test_two_rotations_between_two_looks_tell_their_gap(tmp_path: Path) -> None:
    log = Log(tmp_path, 1)
    reader = LogReader(tmp_path)
    log.line("a", 1)
    assert texts(reader) == ["a"]
    log.rotate()
    log.line("b", 2)
    log.rotate()
    log.line("c", 3)
    assert texts(reader) == ["b", "c"]


def test_runs_that_write_at_the_same_time_are_merged_by_time(tmp_path: Path) -> None:
    old, new = Log(tmp_path, 6), Log(tmp_path, 7)
    old.line("old 1", 1)
    new.line("new 1", 2)
    old.line("old 2", 3)
    reader = LogReader(tmp_path)
    lines = reader.read(10)
    assert [line.text for line, _ in lines] == ["old 1", "new 1", "old 2"]
    assert [place for _, place in lines] == ["6-1,7-0", "6-1,7-1", "6-2,7-1"]
    old.line("old 3, while it drains", 4)
    new.line("new 2", 5)
    assert texts(reader) == ["old 3, while it drains", "new 2"]


def test_a_run_whose_first_line_comes_after_the_next_runs_is_not_lost(tmp_path: Path) -> None:
    old, new = Log(tmp_path, 1), Log(tmp_path, 2)
    new.line("new", 1)
    lines = LogReader(tmp_path).read(10)
    old.line("late", 2)
    assert texts(LogReader(tmp_path, Position.parse(lines[-1][1]))) == ["late"]


def test_a_plain_position_means_that_earlier_runs_are_done(tmp_path: Path) -> None:
    one, two = Log(tmp_path, 1), Log(tmp_path, 2)
    one.line("one", 1)
    two.line("two a", 2)
    two.line("two b", 3)
    assert texts(LogReader(tmp_path, Position.parse("2-1"))) == ["two b"]
    three = Log(tmp_path, 3)
    three.line("three", 4)
    assert texts(LogReader(tmp_path, Position.parse("2-1"))) == ["two b", "three"]


def test_coming_back_after_any_line_goes_on_behind_it(tmp_path: Path) -> None:
    for run in range(1, 8):
        log = Log(tmp_path, run)
        for n in range(4):
            log.line(f"{run}.{n}", run * 10 + n * 4)
    whole = LogReader(tmp_path).read(1_000)
    assert len(whole) == 28
    for at, (_, place) in enumerate(whole):
        rest = LogReader(tmp_path, Position.parse(place)).read(1_000)
        assert [line.text for line, _ in rest] == [line.text for line, _ in whole[at + 1 :]]


def test_a_tail_is_the_last_lines_and_reading_goes_on(tmp_path: Path) -> None:
    for run in range(1, 6):
        log = Log(tmp_path, run)
        for n in range(3):
            log.line(f"{run}.{n}", run * 10 + n)
    whole = [line.text for line, _ in LogReader(tmp_path).read(1_000)]
    for count in (0, 1, 2, 5, 9, 10, 14, 15, 99):
        reader = LogReader(tmp_path)
        reader.seek_tail(count)
        assert texts(reader) == (whole[-count:] if count else []), count
    log.line("later", 99)
    assert texts(reader) == ["later"]


def test_pages_join_without_a_seam(tmp_path: Path) -> None:
    one, two = Log(tmp_path, 1), Log(tmp_path, 2)
    for n in range(10):
        one.line(f"one {n}", n)
        two.line(f"two {n}", n + 0.5)
    whole = texts(LogReader(tmp_path))
    reader = LogReader(tmp_path)
    joined: list[str] = []
    while page := texts(reader, 3):
        joined += page
    assert joined == whole


def test_a_line_that_is_not_json_is_passed(tmp_path: Path) -> None:
    log = Log(tmp_path, 1)
    log.line("a", 1)
    with (log.folder / "log.jsonl").open("ab") as file:
        file.write(b"\xff\xfe broken\n" + b"x" * 400_000 + b"\n")
    log.line("b", 2)
    assert texts(LogReader(tmp_path)) == ["a", "b"]


def test_a_link_in_place_of_a_log_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "0000000001"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({"seq": 1, "ts": 1, "stream": "stdout", "text": "secret"}) + "\n")
    (folder / "log.jsonl").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        LogReader(tmp_path).read(10)


@pytest.mark.parametrize("text", ["", "1", "a-b", "1-", "-1", "1-2;3-4", "1-2,", "٣-1", "1" * 50 + "-1"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(BadPosition):
        Position.parse(text)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("line"), st.integers(0, 2)),
            st.tuples(st.just("rotate"), st.integers(0, 2)),
            st.tuples(st.just("run"), st.just(0)),
            st.tuples(st.just("read"), st.integers(1, 5)),
            st.tuples(st.just("reconnect"), st.just(0)),
        ),
        max_size=60,
    )
)
def test_however_it_is_written_and_read_no_line_is_lost_or_repeated(
    steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("logs")
    logs = [Log(root, 1)]
    rotated_unread: set[int] = set()
    written: list[tuple[int, int]] = []
    seen: list[tuple[int, int]] = []
    reader, place, at = LogReader(root), "", 0.0

    def read(limit: int) -> bool:
        nonlocal place
        lines = reader.read(limit)
        for line, position in lines:
            assert not line.missing
            seen.append((line.run, line.seq))
            place = position
        return bool(lines)

    for what, number in steps:
        log = logs[max(0, len(logs) - 1 - number)]
        if what == "line":
            at += 1
            log.line("x", at)
            written.append((log.run, log.seq))
        elif what == "rotate" and log.run not in rotated_unread and (log.folder / "log.jsonl").exists():
            # Two rotations without a reading in between may lose lines: that is the gap of other tests.
            while read(100):
                pass
            log.rotate()
        elif what == "run":
            logs.append(Log(root, len(logs) + 1))
        elif what == "read":
            read(number)
        elif what == "reconnect" and place:
            reader.close()
            reader = LogReader(root, Position.parse(place))
    while read(100):
        pass
    reader.close()
    assert sorted(seen) == sorted(written)
    assert len(seen) == len(set(seen))
