"""What of Debian, Python, Node and Go nobody needs in a sandbox, and taking it out."""

from __future__ import annotations

import re
from pathlib import Path

from vibed.runtimes.trees import merge, remove

# What nobody runs in a sandbox, or what would only be stale there. Paths may be patterns.
UNWANTED = (
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
    "usr/lib/python3.*/test",
    "usr/lib/python3.*/idlelib",
    "usr/lib/python3.*/tkinter",
    "usr/lib/python3.*/turtle*",
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


# Of a relocatable Python: what is for building against it, its own pip, and what has no screen to show it.
_PYTHON_UNWANTED = (
    "include",
    "share",
    "lib/*.a",
    "lib/pkgconfig",
    "lib/tcl*",
    "lib/tk*",
    "lib/itcl*",
    "lib/thread*",
    "lib/libtcl*",
    "lib/libtk*",
    "lib/python3.*/test",
    "lib/python3.*/idlelib",
    "lib/python3.*/tkinter",
    "lib/python3.*/turtle*",
    "lib/python3.*/ensurepip",
    "lib/python3.*/config-*",
    "lib/python3.*/lib-dynload/_tkinter*",
    "lib/python3.*/site-packages/*",
    "lib/python3.*/EXTERNALLY-MANAGED",
    "**/__pycache__",
)


def trim_python(tree: Path) -> None:
    """Remove from a relocatable Python what no app runs. Of its programs the interpreter stays."""
    for pattern in _PYTHON_UNWANTED:
        for path in sorted(tree.glob(pattern)):
            remove(path)
    for program in (tree / "bin").iterdir():
        if not re.fullmatch(r"python3(\.\d+)?", program.name):
            remove(program)


def merge_site(site: Path, root: Path, into: str) -> None:
    """Move what pip installed to `into`, the place for it in the root; scripts start the root's python3."""
    for unwanted in _SITE_UNWANTED:
        for path in site.glob(unwanted):
            remove(path)
    scripts = root / "usr/local/bin"
    scripts.mkdir(parents=True, exist_ok=True)
    for script in sorted((site / "bin").glob("*")):
        content = script.read_bytes()
        if content.startswith(b"#!") and b"python" in content.split(b"\n", 1)[0]:
            script.write_bytes(b"#!/usr/bin/python3\n" + content.split(b"\n", 1)[1])
        script.replace(scripts / script.name)
    for folder in ("bin", "share", "etc", "include"):
        remove(site / folder)
    merge(site, root / into)


def trim_node_modules(folder: Path) -> None:
    """Remove what is never required: type declarations, source maps, documentation."""
    for path in folder.rglob("*"):
        if path.name.endswith((".d.ts", ".d.mts", ".d.cts", ".map", ".md", ".markdown")) and not path.is_dir():
            path.unlink()
    # what declares types alone: TypeScript takes a folder of it, wherever above a project, for types that are meant
    remove(folder / "@types")
    remove(folder / ".bin")
    remove(folder / ".package-lock.json")


def trim_go(tree: Path) -> None:
    """Remove from a Go tree what `go build` never reads, and make its programs runnable."""
    for name in _GO_UNWANTED:
        remove(tree / name)
    for tool in (tree / "pkg/tool").glob("*/*"):
        if tool.name not in _GO_TOOLS:
            tool.unlink()
    for path in sorted((tree / "src").rglob("*")):
        if path.name == "testdata" and path.is_dir():
            remove(path)
        elif path.name.endswith("_test.go"):
            path.unlink(missing_ok=True)
    for program in [*(tree / "bin").iterdir(), *(tree / "pkg/tool").glob("*/*")]:
        program.chmod(0o755)
