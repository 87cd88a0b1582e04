"""Control groups: what bounds a sandbox's memory, CPU and processes, and what ends all of it at once.

The groups of one vibeD lie below `vibed-<name>`, outside the unit that vibeD itself runs in, so that stopping or
restarting vibeD leaves the sandboxes alone. cgroup v2 comes first (as root at the top of the tree, else in the topmost
cgroup that was delegated to this user), v1 second. What this machine cannot bound is named in `Cgroups.missing`.

Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/{memory,pids,freezer-subsystem}.rst of Linux.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("memory", "cpu", "pids")
SERVING = 100
"""Weight of a sandbox that an app runs in, or that is booted for somebody who waits; each of these has its even share
of the CPU."""
BUILDING = 30
"""Of what installs and builds: whoever waits for that waits for seconds, and lets those go first who wait for less."""
AHEAD = 20
"""Of what nobody waits for yet."""
_PERIOD_US = 100_000
_REMOVE_S = 3.0
_DELEGATED = "systemd-run --user --scope -p Delegate=yes vibed up"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a group holds its processes to. None leaves a bound as it is."""

    memory_bytes: int | None = None
    """With swap, where the kernel accounts for it: nothing is swapped out beyond it."""
    cpus: float | None = None
    pids: int | None = None
    weight: int | None = None
    """Share of the CPU where it is short: `SERVING`, `BUILDING` or `AHEAD`."""


@dataclass(frozen=True, slots=True)
class Group:
    """The group of one sandbox: one folder a hierarchy (v1), or one (v2)."""

    id: str
    folders: Mapping[str, Path]
    """By controller; under v2 every controller has the same folder, and `""` stands for no controller at all."""
    unified: bool

    @property
    def procs(self) -> tuple[Path, ...]:
        """The files that a process writes its pid to, to enter."""
        return tuple(folder / "cgroup.procs" for folder in self._distinct())

    @property
    def oom(self) -> Path | None:
        """The file whose `oom_kill` line counts what was killed for memory."""
        memory = self.folders.get("memory")
        if memory is None:
            return None
        return memory / ("memory.events" if self.unified else "memory.oom_control")

    def bound(self, bounds: Bounds) -> None:
        """Set the bounds that are given; those without a controller here are `Cgroups.missing`. Raises OSError."""
        if bounds.memory_bytes is not None and (memory := self.folders.get("memory")):
            if self.unified:
                _write(memory / "memory.max", bounds.memory_bytes)
                _write_if_there(memory / "memory.swap.max", 0)
                # the whole sandbox or nothing: half a sandbox that goes on is harder to explain than one that is gone
                _write_if_there(memory / "memory.oom.group", 1)
            else:
                _bound_memory_v1(memory, bounds.memory_bytes)
        if bounds.cpus is not None and (cpu := self.folders.get("cpu")):
            quota = max(1_000, round(bounds.cpus * _PERIOD_US))
            if self.unified:
                _write(cpu / "cpu.max", f"{quota} {_PERIOD_US}")
            else:
                _write(cpu / "cpu.cfs_period_us", _PERIOD_US)
                _write(cpu / "cpu.cfs_quota_us", quota)
        if bounds.weight is not None and (cpu := self.folders.get("cpu")):
            if self.unified:
                _write_if_there(cpu / "cpu.weight", bounds.weight)
            else:
                _write_if_there(cpu / "cpu.shares", max(2, bounds.weight * 1024 // 100))
        if bounds.pids is not None and (pids := self.folders.get("pids")):
            _write(pids / "pids.max", bounds.pids)

    def processes(self) -> set[int]:
        """The pids in the group now."""
        found: set[int] = set()
        for procs in self.procs:
            with contextlib.suppress(OSError):
                found.update(int(line) for line in procs.read_text().split())
        return found

    def oom_kills(self) -> int:
        """How many processes were killed for memory since the group was made."""
        if self.oom is not None:
            with contextlib.suppress(OSError):
                for line in self.oom.read_text().splitlines():
                    key, _, value = line.partition(" ")
                    if key == "oom_kill":
                        return int(value)
        return 0

    def memory_bytes(self) -> int | None:
        """What the group uses now."""
        memory = self.folders.get("memory")
        if memory is None:
            return None
        with contextlib.suppress(OSError, ValueError):
            return int((memory / ("memory.current" if self.unified else "memory.usage_in_bytes")).read_text())
        return None

    def kill(self) -> None:
        """SIGKILL everything in the group, once. A fork bomb cannot outrun it: no new process is let in before."""
        if self.unified:
            for folder in self._distinct():
                with contextlib.suppress(OSError):
                    _write(folder / "cgroup.kill", 1)
                    return
        if pids := self.folders.get("pids"):
            with contextlib.suppress(OSError):
                _write(pids / "pids.max", 0)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> bool:
        """Remove the group if nothing is left in it; whether it is gone."""
        gone = True
        for folder in self._distinct():
            try:
                # a sandbox's own cgroup namespace may have made groups below
                for below in sorted((f for f in folder.rglob("*") if f.is_dir()), reverse=True):
                    below.rmdir()
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone

    async def end(self, deadline_s: float = _REMOVE_S) -> bool:
        """Kill and remove, repeated until nothing is left or the deadline has passed; whether it is gone."""
        deadline = time.monotonic() + deadline_s
        pause = 0.001
        while True:
            self.kill()
            if self.remove():
                return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)

    def _distinct(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(self.folders.values()))


class Cgroups:
    """Makes the groups of one vibeD. `find` looks at the machine; the constructor takes what was found."""

    def __init__(self, name: str, bases: Mapping[str, Path], *, unified: bool, why: str = "", cure: str = "") -> None:
        self._name = f"vibed-{name}"
        self._bases = {controller: base / self._name for controller, base in bases.items()}
        self._unified = unified
        self._why = why
        self._cure = cure

    @classmethod
    def find(
        cls,
        name: str,
        *,
        mounts: Path = Path("/proc/self/mountinfo"),
        own: Path = Path("/proc/self/cgroup"),
        root: bool | None = None,
    ) -> Cgroups:
        """The best that this machine and user offer. Never raises: with nothing at all, everything is `missing`."""
        is_root = os.geteuid() == 0 if root is None else root
        v2, v1 = _mounted(mounts.read_text())
        if v2 is not None and "memory" in _words(v2 / "cgroup.controllers"):
            return cls._find_v2(name, v2, own, is_root)
        bases = {c: v1[c] for c in CONTROLLERS if c in v1 and os.access(v1[c], os.W_OK)}
        if bases:
            return cls(name, bases, unified=False)
        if v1 or v2:
            why, cure = "this user may not make cgroups here", "run vibeD with sudo (only cgroup v2 can be delegated)"
        else:
            why, cure = "no cgroup file system is mounted", "mount cgroup2 at /sys/fs/cgroup"
        return cls(name, {}, unified=False, why=why, cure=cure)

    @classmethod
    def _find_v2(cls, name: str, top: Path, own: Path, is_root: bool) -> Cgroups:
        base = top
        if not is_root:
            mine = next((line[3:] for line in own.read_text().splitlines() if line.startswith("0::")), "/")
            here = top / mine.lstrip("/")
            # the topmost delegated one: processes may be moved only below a common ancestor that is ours
            ours = [p for p in (here, *here.parents) if p.is_relative_to(top) and _delegated(p)]
            if not ours:
                why = "no cgroup is delegated to this user"
                return cls(name, {}, unified=True, why=why, cure=f"run vibeD with sudo, or: {_DELEGATED}")
            base = ours[-1]
        offered = _words(base / "cgroup.controllers")
        why = "" if set(CONTROLLERS) <= offered else f"{base} has only the controllers {' '.join(sorted(offered))}"
        cure = (
            ""
            if not why
            else f"have them enabled above {base}"
            if is_root
            else f"run vibeD with sudo, or: {_DELEGATED}"
        )
        return cls(name, {c: base for c in CONTROLLERS if c in offered}, unified=True, why=why, cure=cure)

    @property
    def missing(self) -> tuple[str, ...]:
        """The bounds that cannot be enforced here: of `memory`, `cpu`, `pids`."""
        return tuple(c for c in CONTROLLERS if c not in self._bases)

    @property
    def detail(self) -> str:
        """One sentence for a probe: what bounds sandboxes here, and what does not and why."""
        version = "v2" if self._unified else "v1"
        have = ", ".join(c for c in CONTROLLERS if c in self._bases)
        if not have:
            return f"memory, CPU and processes of a sandbox are not bounded by cgroups: {self._why}"
        text = f"cgroup {version} bounds {have}"
        if self.missing:
            text += f"; not {', '.join(self.missing)}" + (f": {self._why}" if self._why else "")
        return text

    @property
    def cure(self) -> str:
        """What helps where something is missing."""
        return self._cure

    def make(self, id: str, bounds: Bounds) -> Group:
        """Make the group `id`, with its bounds set. Raises OSError."""
        self._prepare()
        group = self.get(id)
        try:
            for folder in dict.fromkeys(group.folders.values()):
                folder.mkdir(exist_ok=True)
            group.bound(bounds)
        except OSError:
            group.remove()
            raise
        return group

    def get(self, id: str) -> Group:
        """The group `id`, whether it is there or not."""
        return Group(id, {controller: base / id for controller, base in self._bases.items()}, self._unified)

    def ids(self) -> set[str]:
        """The groups that are there."""
        found: set[str] = set()
        for base in set(self._bases.values()):
            with contextlib.suppress(OSError):
                found.update(entry.name for entry in base.iterdir() if entry.is_dir())
        return found

    def remove(self) -> None:
        """Remove vibeD's own folder, if no sandbox is left in it."""
        for base in set(self._bases.values()):
            with contextlib.suppress(OSError):
                base.rmdir()

    def _prepare(self) -> None:
        for base in dict.fromkeys(self._bases.values()):
            if not base.is_dir():
                if self._unified:
                    _enable(base.parent, self._bases)
                base.mkdir(exist_ok=True)
            if self._unified:
                # also where it is there: whoever made it may have been killed before this
                _enable(base, self._bases)


def _bound_memory_v1(folder: Path, limit: int) -> None:
    """memory.limit_in_bytes may never exceed memory.memsw.limit_in_bytes, so the order depends on the direction."""
    memory, with_swap = folder / "memory.limit_in_bytes", folder / "memory.memsw.limit_in_bytes"
    if not with_swap.exists():
        _write(memory, limit)
        return
    files = (memory, with_swap) if limit < int(with_swap.read_text()) else (with_swap, memory)
    for file in files:
        _write(file, limit)


def _enable(folder: Path, controllers: Iterable[str]) -> None:
    wanted = set(controllers) - _words(folder / "cgroup.subtree_control")
    if not wanted:
        return
    text = " ".join(f"+{c}" for c in sorted(wanted))
    try:
        _write(folder / "cgroup.subtree_control", text)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # "no internal processes": a delegated cgroup that we ourselves live in has to move us one level down first
        leaf = folder / "vibed-itself"
        leaf.mkdir(exist_ok=True)
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                _write(leaf / "cgroup.procs", pid)
        _write(folder / "cgroup.subtree_control", text)


def _mounted(mountinfo: str) -> tuple[Path | None, dict[str, Path]]:
    """Where v2, and where each v1 controller is mounted (proc(5): after ` - ` come type, source, options)."""
    v2: Path | None = None
    v1: dict[str, Path] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = after.split()
        if len(fields) < 3:
            continue
        place = Path(before.split()[4])
        if fields[0] == "cgroup2":
            v2 = v2 or place
        elif fields[0] == "cgroup":
            v1.update({option: place for option in fields[2].split(",") if option in CONTROLLERS})
    return v2, v1


def _delegated(folder: Path) -> bool:
    return all(os.access(folder / f, os.W_OK) for f in ("", "cgroup.procs", "cgroup.subtree_control"))


def _words(file: Path) -> set[str]:
    try:
        return set(file.read_text().split())
    except OSError:
        return set()


def _write(file: Path, value: int | str) -> None:
    # one write(2), without O_CREAT: a control file that is missing is an error and never a new file
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


def _write_if_there(file: Path, value: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        _write(file, value)
