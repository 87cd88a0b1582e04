"""The same with the newest Kubernetes that can be built: `python -m tests.cluster newest DIR`, by hand, up to an hour
the first time. What is newest is asked of the module proxy; what the control plane is built of is raised to it.

What runs against it: the definition of a VibedApp, the chart (lint, and each manifest by the API server with
`--dry-run=server`), what its accounts may do, and the store.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tests.cluster import binaries
from tests.cluster.binaries import CONTROL_PLANE, Module
from tests.cluster.box import REPOSITORY
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fixtures import GIVEN
from tests.prepare import home
from vibed.runtimes.tools import Tools

TESTS = ("tests/cluster/test_crd.py", "tests/cluster/test_chart.py", "tests/cluster/test_client.py")
_RELEASE = re.compile(r"v1\.(\d+)\.(\d+)")


def main(folder: Path) -> int:
    """Build it, start it, run the tests; pytest's exit status."""
    newest = _newest()
    print(f"the newest Kubernetes is {newest}, and the pinned one {binaries.kubernetes_version()}", flush=True)
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    programs = asyncio.run(binaries.build(_raised(newest, folder / "source"), home()))
    plane = ControlPlane(folder / "cluster", programs)
    plane.start()
    try:
        plane.start_fake_node()
        print(plane.kubectl("version"), flush=True)
        env = {**os.environ, GIVEN: str(plane.kubeconfig()), "PYTHONPATH": str(REPOSITORY / "src")}
        tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
        return subprocess.run(tests, cwd=REPOSITORY, env=env).returncode
    finally:
        plane.stop()


def _newest() -> str:
    """Of the releases, no release candidate among them."""
    told = _go("list", "-m", "-versions", "k8s.io/kubernetes", cwd=CONTROL_PLANE.folder).split()
    found = {version: match for version in told if (match := _RELEASE.fullmatch(version))}
    return max(found, key=lambda version: (int(found[version][1]), int(found[version][2])))


def _raised(version: str, source: Path) -> Module:
    """The control plane's module with another Kubernetes in it. Its own modules have the same number, but for v0."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(CONTROL_PLANE.folder, source)
    pinned = binaries.kubernetes_version()
    text = (source / "go.mod").read_text()
    for old, new in ((pinned, version), (f"v0{pinned.removeprefix('v1')}", f"v0{version.removeprefix('v1')}")):
        text = re.sub(rf"(?<= ){re.escape(old)}(?=\s)", new, text)
    (source / "go.mod").write_text(text)
    _go("mod", "tidy", cwd=source)
    return replace(CONTROL_PLANE, name="newest", how_long="20 to 60 minutes", source=source)


def _go(*arguments: str, cwd: Path) -> str:
    env = {**os.environ, "GOFLAGS": "-mod=mod", "GOWORK": "off", "GOTOOLCHAIN": "auto"}
    go = str(Tools(home()).path("go"))
    return subprocess.run([go, *arguments], cwd=cwd, env=env, check=True, capture_output=True, text=True).stdout
