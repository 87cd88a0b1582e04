"""The Debian packages that building templates needs of this machine.

As root apt installs what is missing, and what it brought is remembered in `<home>/debian-packages.json`, so that
`vibed clean` has it removed again. Nothing that was there before is ever removed, nor what something else needs by now.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from vibed.apps.errors import VibedError
from vibed.runtimes import commands
from vibed.runtimes.exclusive import exclusive

PROGRAMS: Mapping[str, str] = {
    "mmdebstrap": "mmdebstrap",
    "mkfs.erofs": "erofs-utils",
    "fsck.erofs": "erofs-utils",
    "unshare": "util-linux",
}
"""Programs of the host that a build needs -> the Debian package that has each."""

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_DEADLINE_S = 300.0
_VALID = "Acquire::Check-Valid-Until"


class PackagesMissing(VibedError):
    """What a build needs of the machine is not there, and could not be installed."""

    code = "TemplateBuildFailed"
    retryable = True


async def apt_settings() -> list[str]:
    """What this machine's own apt was told about its mirrors and counts for ours too: whether a list of packages that
    is older than it says may be used, as of a mirror that is seldom brought up to date. Its signature counts always.
    """
    if which("apt-config") is None:
        return []
    dumped = await commands.output(["apt-config", "dump", _VALID], deadline_s=30)
    return [line.removesuffix(";") for line in dumped.splitlines() if line.startswith(f"{_VALID} ")]


async def ensure(home: Path, log: Path) -> None:
    """Have apt install what is missing. Raises `PackagesMissing` with the command to type."""
    missing = sorted(
        {package for program, package in PROGRAMS.items() if which(program) is None}
        | ({"debian-archive-keyring"} if not _KEYRING.exists() else set())
    )
    if not missing:
        return
    command = f"type: sudo apt-get install --yes --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or which("apt-get") is None:
        raise PackagesMissing(f"{', '.join(missing)} must be installed", hint=command, retryable=False)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "-o", "DPkg::Lock::Timeout=240", "install", "--yes", "--no-install-recommends", *missing]
    async with exclusive(home / "templates" / ".apt", deadline_s=_DEADLINE_S * 2):
        before = _installed()
        # first the intention: if this process is killed, apt may have gone on
        _remember(home, set(missing) - before)
        try:
            try:
                await commands.run(install, log=log, deadline_s=_DEADLINE_S, env=env)
            except commands.CommandFailed:
                # package lists that are absent or too old are the usual cause
                await commands.run(["apt-get", "update"], log=log, deadline_s=_DEADLINE_S, env=env)
                await commands.run(install, log=log, deadline_s=_DEADLINE_S, env=env)
        except commands.CommandFailed as error:
            raise PackagesMissing(str(error), hint=command) from error
        finally:
            _remember(home, _installed() - before)


def remove(home: Path) -> str:
    """Remove what `ensure` brought, all of it or nothing, and say so in a sentence; empty when there is nothing.
    Blocking.
    """
    ours = sorted(_remembered(home) & _installed())
    if not ours:
        return ""
    for mode in (["--dry-run"], []):
        try:
            # dpkg and not apt: it removes what it is told or refuses, and never decides that more has to go
            subprocess.run(
                ["dpkg", *mode, "--purge", *ours],
                env={**os.environ, "LC_ALL": "C"},
                capture_output=True,
                text=True,
                timeout=_DEADLINE_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            said = error.stderr.splitlines() if isinstance(error, subprocess.CalledProcessError) else [str(error)]
            why = next((line.strip() for line in said if "depends on" in line), said[0].strip() if said else "")
            return f"{', '.join(ours)} stay: {why}; to remove them yourself: sudo apt-get purge {shlex.join(ours)}"
    return f"removed the Debian packages {', '.join(ours)}"


def which(program: str) -> str | None:
    """Where a program is, also where only root looks."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _installed() -> set[str]:
    query = ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev} ${Package}\n"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return set()
    return {line.split()[1] for line in lines if line.startswith("ii")}


def _remembered(home: Path) -> set[str]:
    try:
        return set(json.loads((home / "debian-packages.json").read_text()))
    except (OSError, ValueError, TypeError):
        return set()


def _remember(home: Path, packages: set[str]) -> None:
    if not packages:
        return
    fresh = home / "debian-packages.json.new"
    fresh.write_text(json.dumps(sorted(packages | _remembered(home))))
    fresh.replace(home / "debian-packages.json")
