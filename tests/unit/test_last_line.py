"""The line that a controller adds to a run's log when the supervisor that wrote it was killed."""

from __future__ import annotations

import json
from pathlib import Path

from vibed.supervision.logs import append_system_line


def record(seq: int, text: str = "x") -> bytes:
    return json.dumps({"seq": seq, "ts": 1.0, "stream": "stdout", "text": text}).encode() + b"\n"


def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_bytes().splitlines() if line.endswith(b"}")]


def test_its_number_follows_the_last_one(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(record(1) + record(2))
    append_system_line(tmp_path, "killed")
    assert [r["seq"] for r in records(tmp_path)] == [1, 2, 3]
    assert records(tmp_path)[-1]["text"] == "killed"


def test_a_line_of_the_greatest_length_is_the_last_one_too(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(record(6, "\x01" * (16 << 10)))
    append_system_line(tmp_path, "killed")
    assert records(tmp_path)[-1]["seq"] == 7


def test_a_half_written_line_is_left_alone_and_the_next_one_is_readable(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(record(1) + record(2)[:-20])
    append_system_line(tmp_path, "killed")
    assert [r["seq"] for r in records(tmp_path)] == [1, 2]


def test_a_log_that_was_just_rotated_goes_on(tmp_path: Path) -> None:
    (tmp_path / "log.1.jsonl").write_bytes(record(41))
    append_system_line(tmp_path, "killed")
    assert [r["seq"] for r in records(tmp_path)] == [42]
