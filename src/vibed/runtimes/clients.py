"""Package clients and compilers as vibeD runs them: with the machine's own settings, their caches in VIBED_HOME."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from vibed.runtimes import commands
from vibed.runtimes.tool import ToolError

NPM_DEADLINE_S = 600
PYTHON_DEADLINE_S = 600

_AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
"""The certificate authorities that this system trusts: Debian and Ubuntu, Fedora and its relatives."""


async def npm_ci(npm: Sequence[str], node: Path, folder: Path, *, cache: Path, log: Path) -> None:
    """Install `folder`'s lock into its node_modules: by integrity, no lifecycle script run. Raises ToolError."""
    argv = [
        *npm,
        "ci",
        "--ignore-scripts",
        "--omit=dev",
        "--no-audit",
        "--no-fund",
        "--cache",
        str(cache),
    ]
    env = dict(os.environ)
    env["PATH"] = f"{node.parent}:{env.get('PATH', os.defpath)}"
    # Node brings its own list of authorities, and a company's (of a proxy that looks into TLS) is in the system's.
    if authorities := next((file for file in _AUTHORITIES if Path(file).is_file()), None):
        env.setdefault("NODE_EXTRA_CA_CERTS", authorities)
    await checked("npm", argv, log=log, deadline_s=NPM_DEADLINE_S, cwd=folder, env=env)


async def pip(arguments: Sequence[str], *, cache: Path, log: Path, deadline_s: float) -> None:
    """Run this interpreter's pip. Raises ToolError."""
    if importlib.util.find_spec("pip") is None:
        raise ToolError("pip", f"{sys.executable} has no pip", "type: python3 -m ensurepip --upgrade")
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    env |= {"PIP_CACHE_DIR": str(cache), "PIP_ROOT_USER_ACTION": "ignore"}
    argv = [sys.executable, "-m", "pip", *arguments, "--quiet"]
    await checked("pip", argv, log=log, deadline_s=deadline_s, env=env)


async def uv_python(uv: Path, name: str, into: Path, *, cache: Path, log: Path) -> None:
    """Download a relocatable Python, such as `cpython-3.12.16`, into `into`. uv knows where each lies and by which hash
    it is verified; a mirror of them is a setting of uv's own (`python-install-mirror`). Raises ToolError.
    """
    env = {**os.environ, "UV_CACHE_DIR": str(cache), "UV_NO_PROGRESS": "1", "UV_PYTHON_INSTALL_BIN": "0"}
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=".python-") as place:
        argv = [str(uv), "python", "install", name, "--install-dir", place]
        try:
            await checked("uv", argv, log=log, deadline_s=PYTHON_DEADLINE_S, env=env)
        except ToolError as error:
            raise ToolError(
                name,
                f"it could not be downloaded: {error.message}",
                "it comes from where uv has it; a host that cannot reach that names a mirror (python-install-mirror in"
                " uv.toml, or UV_PYTHON_INSTALL_MIRROR)",
            ) from error
        found = [path for path in Path(place).glob(f"{name}-*") if path.is_dir() and not path.is_symlink()]
        if len(found) != 1:
            raise ToolError(name, f"uv brought {len(found)} of it")
        found[0].replace(into)


def go_env(caches: Path) -> dict[str, str]:
    """An environment in which a Go build depends on nothing but its sources and its compiler."""
    env = {k: v for k, v in os.environ.items() if k not in ("GOFLAGS", "GOEXPERIMENT", "GOOS", "GOARCH", "GOAMD64")}
    caches.mkdir(parents=True, exist_ok=True)
    return env | {
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "-modcacherw -buildvcs=false",
        "GOENV": "off",
        "GOPATH": str(caches / "go"),
        "GOMODCACHE": str(caches / "mod"),
        "GOCACHE": str(caches / "build"),
        "HOME": env.get("HOME", str(caches)),
        "XDG_CONFIG_HOME": str(caches / "config"),
    }


async def checked(
    tool: str,
    argv: list[str],
    *,
    log: Path,
    deadline_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a program to its end, its output in `log`. Raises ToolError with the end of that."""
    try:
        await commands.run(argv, log=log, deadline_s=deadline_s, cwd=cwd, env=env)
    except commands.CommandFailed as error:
        raise ToolError(tool, str(error), f"log: {log}") from error
