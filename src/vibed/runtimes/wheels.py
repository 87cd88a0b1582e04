"""Wheels as carriers of programs and packages: which fit this machine, and unpacking one."""

from __future__ import annotations

import platform
import re
import shutil
import zipfile
from pathlib import Path


def platform_tags(python: str | None = None) -> list[str]:
    """pip's arguments that choose wheels for this machine's architecture, for Debian 13's glibc and older."""
    machine = platform.machine()
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(41, 16, -1)] + [f"manylinux2014_{machine}"]
    arguments = [part for tag in tags for part in ("--platform", tag)]
    return arguments + (["--python-version", python, "--implementation", "cp"] if python else [])


def unpack_wheel(wheel: Path, into: Path) -> None:
    """Unpack a wheel with its files' modes; `*.data/scripts/` is unpacked to `into` itself, and a script that has the
    name of a package beside it (uv's) to `into/bin`.

    The content was verified by hash; members that would leave `into` are refused all the same (ValueError).
    """
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.partition("/")[0] for name in archive.namelist() if "/" in name}
        for member in archive.infolist():
            name = re.sub(r"^[^/]+\.data/scripts/", "", member.filename)
            if name != member.filename and name in folders:
                name = f"bin/{name}"
            target = into / name
            if ".." in Path(name).parts or Path(name).is_absolute():
                raise ValueError(f"{wheel.name} has a member {member.filename!r}")
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            target.chmod(0o755 if (member.external_attr >> 16) & 0o111 else 0o644)
