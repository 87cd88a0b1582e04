"""The hint where directories are put is one: it changes nothing else, and fails nowhere."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vibed.spreading import spread


def test_a_folder_gets_the_hint_once_and_keeps_what_it_has(tmp_path: Path) -> None:
    spread(tmp_path)
    spread(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("x")
    listed = subprocess.run(["lsattr", "-d", str(tmp_path)], capture_output=True, text=True)
    # a file system without attributes has nothing to show
    assert listed.returncode != 0 or "T" in listed.stdout.split()[0]


def test_what_knows_no_hints_is_left_as_it_is(tmp_path: Path) -> None:
    for place in (Path("/proc"), Path("/sys"), Path("/dev/shm"), tmp_path / "absent"):
        spread(place)
    file = tmp_path / "file"
    file.write_text("x")
    spread(file)
    assert file.read_text() == "x"
