"""What is read of a worker's source, without a worker."""

from __future__ import annotations

import stat
import tarfile
from pathlib import Path

from vibed.apps.app import Runtime
from vibed.drivers.workerd.source import lay_out
from vibed.sandboxes.driver import Limits, Run
from vibed.sources.limits import DEFAULT_LIMITS


def test_assets_are_laid_out_by_who_has_no_root_in_folders_that_it_can_fill(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with tarfile.open(source, "w:gz") as tar:
        for name in ("public/index.html", "public/deep/page.html"):
            tar.addfile(tarfile.TarInfo(name))
    run = Run("a", 1, 1, source, Runtime("fast", "workerd", "worker", "", ""), {}, Limits())
    etags, _ = lay_out(run, "public/", tmp_path / "site", None, DEFAULT_LIMITS)
    assert set(etags) == {"index.html", "deep/page.html"}
    for folder in (tmp_path / "site", tmp_path / "site/deep"):
        assert stat.S_IMODE(folder.stat().st_mode) & stat.S_IRWXU == stat.S_IRWXU
