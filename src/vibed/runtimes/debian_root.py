"""Debian packages unpacked into a folder, with what they depend on; none of their code runs."""

from __future__ import annotations

import os
import shlex
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from vibed.runtimes import commands, debian_packages


async def unpack(packages: Sequence[str], suite: str, root: Path, *, log: Path, deadline_s: float) -> dict[str, str]:
    """`root`, which is not there yet, gets the packages of Debian's `suite`; returns the version of each.

    apt verifies what it fetches by Debian's signatures. Maintainer scripts do not run (`--variant=extract`). Raises
    CommandFailed, OSError, ValueError.
    """
    versions = root.with_name(f"{root.name}.versions")
    # a PID namespace, since mmdebstrap's processes would otherwise go on to the end when it and vibeD are killed
    argv = ["unshare", "--pid", "--fork", "--kill-child"]
    if os.geteuid() != 0:
        # without root, a user namespace in which the caller is root is all that unpacking needs
        argv += ["--map-root-user"]
    argv += [
        "mmdebstrap",
        "--variant=extract",
        "--mode=root",
        "--skip=chroot/mount,output/dev",
        "--format=directory",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Sandbox::User "root"',
        *(f"--aptopt={setting}" for setting in await debian_packages.apt_settings()),
        # maintainer scripts do not run, so the only trace of the versions is the names of the archives
        f'--extract-hook=ls "$1/var/cache/apt/archives" > {shlex.quote(str(versions))}',
        f"--include={','.join(packages)}",
        suite,
        str(root),
    ]
    await commands.run(argv, log=log, deadline_s=deadline_s)
    resolved = dict(debs(versions.read_text()))
    versions.unlink()
    if not resolved:
        raise ValueError("mmdebstrap unpacked no package")
    return resolved


def debs(listing: str) -> list[tuple[str, str]]:
    """(package, version) of each line that names a .deb archive as apt does (`:` in versions is escaped)."""
    names = (line.strip().removesuffix(".deb").split("_") for line in listing.splitlines() if line.endswith(".deb"))
    return [(parts[0], urllib.parse.unquote(parts[1])) for parts in names if len(parts) == 3]
