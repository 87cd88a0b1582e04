"""The folders of a template's images: put in their place whole, named by `current`, removed out of sight first."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from vibed.runtimes.tool import sha256_of
from vibed.runtimes.trees import remove, sync

_DYING_S = 5.0
"""How long a killed program may take to be gone."""


def publish(staging: Path, final: Path) -> None:
    """Put a finished image in its place: its content is on the disk before its name is."""
    for folder, _, files in os.walk(staging):
        for name in files:
            path = os.path.join(folder, name)
            if not Path(path).is_symlink():
                sync(path)
        sync(folder)
    if (final / "manifest.json").exists():
        # the same digest again: a sandbox may be using it, so the one that is there stays if it is whole
        manifest = json.loads((final / "manifest.json").read_text())
        image = final / "rootfs.erofs"
        if not image.exists() or (image.stat().st_size == manifest["size"] and sha256_of(image) == manifest["sha256"]):
            manifest["built_at"] = json.loads((staging / "manifest.json").read_text())["built_at"]
            replacement = final / ".manifest.json"
            replacement.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
            replacement.replace(final / "manifest.json")
            link(final)
            return
    remove(final)
    staging.rename(final)
    link(final)
    sync(final.parent)


def link(final: Path) -> None:
    """Have `current` lead to an image, which may be an earlier one: after going back to an older vibeD."""
    new = final.parent / ".current"
    new.unlink(missing_ok=True)
    new.symlink_to(final.name)
    new.replace(final.parent / "current")


def prune(place: Path, keep: Collection[str]) -> list[str]:
    """Remove the images of a template that are not to be kept; returns their names. Raises OSError."""
    removed = []
    for folder in sorted(place.iterdir()):
        if re.fullmatch("[0-9a-f]{16}", folder.name) and folder.name not in keep and not folder.is_symlink():
            # out of sight first: what is half removed must not be taken for an image
            folder.rename(tempfile.mkdtemp(dir=place, prefix=".build-"))
            removed.append(folder.name)
    for stale in place.glob(".build-*"):
        shutil.rmtree(stale)
    return removed


def clear(place: Path) -> None:
    """Remove what killed builds left; a program of theirs may be dying only now, and write until it is dead."""
    deadline = time.monotonic() + _DYING_S
    while stale := list(place.glob(".build-*")):
        for folder in stale:
            remove(folder)
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)
