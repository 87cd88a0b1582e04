"""The programs of a cluster, built from the Go modules of `deploy/cluster`: once, and again when these change.

Each module has a folder `<VIBED_TEST_HOME>/cluster/<module>-<key>`, where the key is of everything that decides what
is in it: go.mod, go.sum, sources, flags, patches, Go's version, the machine. A folder appears in one rename, so one
that is there is whole. Go's own caches are used as they are: the next build after a change compiles what changed.

    python -m tests.prepare cluster         the control plane and fake nodes, which need no root, and an S3 server
    python -m tests.prepare cluster-node    what a real node needs besides
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import crds
from vibed.runtimes import commands
from vibed.runtimes.clients import checked
from vibed.runtimes.exclusive import exclusive
from vibed.runtimes.tool import ToolError
from vibed.runtimes.tools import Tools

SOURCES = Path(__file__).parents[2] / "deploy" / "cluster"

_BUILD_DEADLINE_S = 3600
_LOCK_DEADLINE_S = 3600
_UNUSED_S = 14 * 86400
"""Builds of other keys go when nothing has asked for them for this long: another checkout may use them."""
_CHANGED = "the test stack's own form of the CRDs, 1"


@dataclass(frozen=True, slots=True)
class Patch:
    """One replacement in the source of a dependency, made in a vendored copy."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Module:
    """One Go module of `deploy/cluster` and what is built of it."""

    name: str
    what: str
    how_long: str
    """Of a first build, on two cores."""
    packages: tuple[str, ...]
    programs: tuple[str, ...]
    """What has to be there in the end."""
    flags: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    """What `go build` calls a program -> what it is known as."""
    patches: tuple[Patch, ...] = ()
    kubernetes: bool = False
    """Whether it has the API server and agent-sandbox."""
    source: Path | None = None
    """Where it is, if not in its folder of `deploy/cluster`."""

    @property
    def folder(self) -> Path:
        return self.source or SOURCES / self.name


CONTROL_PLANE = Module(
    "control-plane",
    "Kubernetes, etcd, kwok, agent-sandbox's controller and Helm",
    "7 to 12 minutes, 180 MB to download, 4 GB of memory",
    packages=(".", "tool"),
    programs=("kube", "agent-sandbox-controller", "helm", "crds.yaml"),
    kubernetes=True,
)
NODE = Module(
    "node",
    "containerd, network plug-ins, network policies and CoreDNS",
    "3 to 5 minutes, 110 MB to download",
    packages=("tool", "./coredns"),
    programs=(
        *("containerd", "containerd-shim-runc-v2", "ctr", "host-local", "loopback", "ptp"),
        *("kube-network-policies", "coredns"),
    ),
    flags=("-tags", "no_btrfs no_zfs no_devmapper"),
    names={"standard": "kube-network-policies"},
)
GVISOR = Module(
    "gvisor",
    "gVisor and its containerd shim",
    "1 to 3 minutes, 45 MB to download",
    packages=("gvisor.dev/gvisor/runsc", "gvisor.dev/gvisor/shim"),
    programs=("runsc", "containerd-shim-runsc-v1"),
    names={"shim": "containerd-shim-runsc-v1"},
    # The shim lowers its own oom_score_adj and gives up where it may not (no CAP_SYS_RESOURCE): let it go on.
    patches=(
        Patch(
            "gvisor.dev/gvisor/pkg/shim/v1/manager.go",
            'return shim.BootstrapParams{}, fmt.Errorf("failed to set OOM Score on shim: %w", err)',
            "_ = err",
        ),
    ),
)
ACME = Module(
    "acme",
    "Pebble, an ACME certificate authority",
    "half a minute",
    packages=("github.com/letsencrypt/pebble/v2/cmd/pebble",),
    programs=("pebble",),
)

S3 = Module(
    "s3",
    "an S3 server (versitygw)",
    "1 to 3 minutes, 60 MB to download",
    packages=("github.com/versity/versitygw/cmd/versitygw",),
    programs=("versitygw",),
)


class NotBuilt(Exception):
    """The programs are not there; says how to get them."""


def programs(module: Module, home: Path) -> Path:
    """The folder with the module's programs, as its sources are now. Raises NotBuilt."""
    folder = _folder(module, home)
    if not folder.is_dir():
        target = {CONTROL_PLANE.name: "cluster", S3.name: "s3", ACME.name: "acme"}.get(module.name, "cluster-node")
        raise NotBuilt(f"{module.what}: not built ({module.how_long}, once): python -m tests.prepare {target}")
    return folder


async def build(module: Module, home: Path) -> Path:
    """Make the module's programs be there; their folder. At once when nothing has changed. Raises ToolError.

    Safe to call from several processes: one builds, the others wait for it.
    """
    go = await Tools(home).install("go")
    folder = _folder(module, home)
    async with exclusive(home / "cluster" / ".busy" / module.name, deadline_s=_LOCK_DEADLINE_S):
        if folder.is_dir():
            os.utime(folder)
            return folder
        say(module, f"building {module.what}: {module.how_long}, once")
        began = time.monotonic()
        log = home / "cluster" / f"{module.name}.log"
        log.unlink(missing_ok=True)
        for stale in folder.parent.glob(f".{module.name}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{module.name}-"))
        try:
            await _build(module, go, staging, log)
            os.sync()
            (staging / "bin").rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        folder.chmod(0o755)
        _prune(module, folder)
        say(module, f"built in {time.monotonic() - began:.0f} s")
        return folder


def say(module: Module, text: str) -> None:
    print(f"  ..  {module.name:<14} {text}", file=sys.stderr, flush=True)


async def _build(module: Module, go: Path, staging: Path, log: Path) -> None:
    source, bin_ = module.folder, staging / "bin"
    bin_.mkdir()
    env = _environment(go)
    flags = ["-trimpath", "-ldflags", _link_flags(module), *module.flags]
    if module.patches:
        # the module cache is read-only, and an overlay over it is refused
        copy = staging / "source"
        shutil.copytree(source, copy)
        source = copy
        await _checked(module, [str(go), "mod", "vendor"], source, env, log)
        for patch in module.patches:
            _apply(module, patch, source / "vendor")
        flags.append("-mod=vendor")
    await _checked(module, [str(go), "build", *flags, "-o", f"{bin_}/", *module.packages], source, env, log)
    for built, known in module.names.items():
        (bin_ / built).rename(bin_ / known)
    if module.kubernetes:
        asked = [str(go), "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/agent-sandbox"]
        where = (await commands.output(asked, deadline_s=60, cwd=source, env=env)).strip()
        (bin_ / "crds.yaml").write_text(crds.without_conversion(Path(where) / "k8s" / "crds"))
    missing = [name for name in module.programs if not (bin_ / name).is_file()]
    if missing:
        raise ToolError(module.name, f"the build left out {', '.join(missing)}", f"log: {log}")


def _apply(module: Module, patch: Patch, vendor: Path) -> None:
    file = vendor / patch.file
    text = file.read_text()
    if text.count(patch.old) != 1:
        raise ToolError(module.name, f"the patch of {patch.file} fits {text.count(patch.old)} times, not once")
    file.write_text(text.replace(patch.old, patch.new))


async def _checked(module: Module, argv: Sequence[str], cwd: Path, env: Mapping[str, str], log: Path) -> None:
    await checked(module.name, list(argv), log=log, deadline_s=_BUILD_DEADLINE_S, cwd=cwd, env=env)


def _environment(go: Path) -> dict[str, str]:
    """The user's own caches and proxy; nothing else that would change what is built.

    A module that wants a newer Go than there is (containerd does) gets it: Go itself fetches it as a module.
    """
    dropped = ("GOFLAGS", "GOEXPERIMENT", "GOOS", "GOARCH", "GOAMD64")
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    env["PATH"] = f"{go.parent}:{env.get('PATH', os.defpath)}"
    return env | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "auto", "GOWORK": "off", "GOFLAGS": "-buildvcs=false"}


def _link_flags(module: Module) -> str:
    if not module.kubernetes:
        return "-s -w"
    # without the stamp the API server calls itself v0.0.0
    version = kubernetes_version(module)
    major, minor = version.removeprefix("v").split(".")[:2]
    stamp = "k8s.io/component-base/version"
    stamps = {
        f"{stamp}.gitVersion": version,
        f"{stamp}.gitMajor": major,
        f"{stamp}.gitMinor": minor,
        "k8s.io/client-go/pkg/version.gitVersion": version,
    }
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in stamps.items())])


def kubernetes_version(module: Module = CONTROL_PLANE) -> str:
    """The Kubernetes that go.mod pins, as `v1.36.3`."""
    text = (module.folder / "go.mod").read_text()
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", text, re.MULTILINE)
    assert found, "go.mod of the control plane does not name k8s.io/kubernetes"
    return found[1]


def _folder(module: Module, home: Path) -> Path:
    source = module.folder
    digest = hashlib.sha256()
    # `programs` may be asked by a user who has no Go: then no key fits, as no build would
    facts = [Tools(home).tool("go").version, platform.machine(), _link_flags(module), *module.flags, *module.packages]
    facts += [f"{patch.file}\0{patch.old}\0{patch.new}" for patch in module.patches]
    if module.kubernetes:
        facts.append(_CHANGED)
    for fact in facts:
        digest.update(f"{fact}\0".encode())
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(source)}\0{len(content)}\0".encode() + content)
    return home / "cluster" / f"{module.name}-{digest.hexdigest()[:16]}"


def _prune(module: Module, keep: Path) -> None:
    for folder in keep.parent.glob(f"{module.name}-*"):
        if folder != keep and folder.is_dir() and time.time() - folder.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(folder, ignore_errors=True)
