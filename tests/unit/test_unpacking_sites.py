"""A site's folder holds nothing that could be taken for what vibeD wrote there."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from vibed.drivers.site_facts import FILE
from vibed.drivers.unpacking import unpack
from vibed.sources.limits import DEFAULT_LIMITS


def test_a_folder_with_the_name_of_the_site_servers_file_is_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "source", "w:gz") as tar:
        folder = tarfile.TarInfo(FILE)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        page = tarfile.TarInfo("index.html")
        page.size = 1
        tar.addfile(page, io.BytesIO(b"x"))
    unpack(tmp_path / "source", tmp_path / "site", "", "", (os.getuid(), os.getgid()), DEFAULT_LIMITS)
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["index.html"]
