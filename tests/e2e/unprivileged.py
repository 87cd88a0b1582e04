"""A vibeD of somebody who is not root, as they would have it: a home of their own, and the machine's programs."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests import prepare
from tests.e2e.instance import CHECKOUT, Instance, link, take
from vibed.layout import Layout, Uids

_OF_ROOT = ("USER", "LOGNAME", "MAIL", "PWD", "OLDPWD", "TMPDIR", "VIBED_HOME")
_CODE = ("src", "agent", "templates", "locks", "examples")
TEMPLATES = ("workerd", "python-313")
"""Those with something to copy that this user has."""
_DEVELOPMENT_ONLY = ("playwright*", "*mypy*", "hypothesis*")


def unused_uid() -> int:
    """The uid of nobody: no account has it, and no process."""
    while True:
        # beyond what any vibeD of root takes for its sandboxes (vibed.layout)
        uid = random.randrange(500_000_000, 600_000_000)
        with suppress(KeyError):
            pwd.getpwuid(uid)
            continue
        if not processes_of(uid):
            return uid


def processes_of(uid: int) -> dict[int, str]:
    """The living processes of a user, in whatever namespaces, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # not the owner of the folder: of a process that is not dumpable that is root
                facts = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines() if ":" in line)
                if str(uid) in facts["Uid"].split() and facts["State"].split()[0] not in ("Z", "X"):
                    found[int(entry.name)] = (
                        (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    )
    return found


def owners_below(*places: Path) -> dict[Path, int]:
    """Everything below the places with the uid that it belongs to; links are not followed."""
    found = {}
    for place in places:
        for folder, folders, files in os.walk(place):
            for name in (*folders, *files):
                with suppress(FileNotFoundError):  # it went meanwhile
                    found[Path(folder, name)] = os.lstat(os.path.join(folder, name)).st_uid
    return found


def run_as(
    uid: int, argv: Sequence[str], env: Mapping[str, str], **options: object
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end as a user who is in no group."""
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        argv, env=env, text=True, capture_output=True, check=False, **identity_of(uid), **options
    )


def identity_of(uid: int) -> dict[str, Any]:
    """Options of `subprocess.run` for a user who is in no group."""
    return {"user": uid, "group": uid, "extra_groups": []}


def python_for(uid: int) -> str | None:
    """The Python of the tests, or the machine's own of the same version: one that this user can run."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (str(Path(sys.executable).resolve()), shutil.which(version, path="/usr/local/bin:/usr/bin")):
        with suppress(OSError):
            if path and run_as(uid, [path, "-c", "import sqlite3, ssl"], {}, cwd="/", timeout=30).returncode == 0:
                return path
    return None


def trouble_with_namespaces(uid: int) -> str:
    """Why a user who is not root can have no namespaces here; empty when they can."""
    done = run_as(uid, ["unshare", "--map-root-user", "--mount", "--net", "--pid", "--fork", "true"], {}, cwd="/")
    return done.stderr.strip() or f"unshare ended with {done.returncode}" if done.returncode else ""


class UnprivilegedInstance(Instance):
    """`vibed` as a user with a home, whose vibeD goes where it goes by default."""

    def __init__(self, uid: int, python: str, **settings: str) -> None:
        super().__init__(**settings)
        self.uid = uid
        self.identity = identity_of(uid)
        self.folder = self.user_home
        self.python = python
        self.software = self.root / "software"
        self.home = self.user_home / ".local" / "share" / "vibed"
        self.run_dir = self.root / "run"
        self.home.parent.mkdir(parents=True)
        self.run_dir.mkdir()
        for folder in (self.user_home, self.user_home / ".local", self.home.parent, self.run_dir):
            os.chown(folder, uid, uid)
            folder.chmod(0o700)
        self.env = {name: value for name, value in self.env.items() if name not in _OF_ROOT} | {
            "XDG_RUNTIME_DIR": str(self.run_dir),
            "PYTHONPATH": f"{self.software / 'src'}:{self.software / 'packages'}",
        }
        name = Layout.of(self.home).runtime.name
        self.layout = Layout(self.home, self.run_dir / "vibed" / name, Uids(uid, rootless=True))

    def command(self, *arguments: str) -> list[str]:
        return [self.python, "-m", "vibed.cli.main", *arguments]

    def processes(self) -> dict[int, str]:
        """Every living process of this user, which nobody else has: the sandboxes' too."""
        return processes_of(self.uid)

    def _take_from_cache(self) -> None:
        """Code and packages as an administrator installed them; tools and templates as if this user had made them."""
        self.software.mkdir()
        self.software.chmod(0o755)
        for name in _CODE:
            shutil.copytree(CHECKOUT / name, self.software / name, symlinks=True, copy_function=link)
        shutil.copytree(
            sysconfig.get_path("purelib"),
            self.software / "packages",
            symlinks=True,
            copy_function=link,
            ignore=shutil.ignore_patterns(*_DEVELOPMENT_ONLY),
        )
        for part in ("tools", *(f"templates/{name}" for name in TEMPLATES)):
            if (prepare.home() / part).is_dir():
                take(prepare.home() / part, self.home / part, shutil.copy2)
        for path in (self.home, *owners_below(self.home)):
            os.chown(path, self.uid, self.uid, follow_symlinks=False)
