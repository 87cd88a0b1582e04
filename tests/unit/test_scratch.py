"""What a controller has in its temporary folder ends with it, though the folder is a volume that stays."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from vibed.cli.pods import take_scratch


def test_what_a_killed_process_left_is_gone_and_others_keep_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for home in ("one", "other", "one"):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        take_scratch(tmp_path / home)
        assert list(Path(tempfile.gettempdir()).iterdir()) == []
        (Path(tempfile.mkdtemp()) / "half").write_text("packed")
    assert len(list(tmp_path.rglob("half"))) == 2
