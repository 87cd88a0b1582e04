#!/usr/bin/env python3
"""Builds vibeD's container images without a daemon: an archive each, which Docker, Podman, buildah and containerd load.

    python3 deploy/images/build.py [IMAGE ...]                 all, or those that are named (`python-313` will do)
        --list              say which there are
        --out DIR           where the archives go (dist/images)
        --registry NAME     what their names begin with
        --home DIR          where templates and programs are built and kept (VIBED_TEST_HOME, else a cache of the user)
        --fresh             build also what is there, with the newest Debian packages
        --with docker       load them into Docker (or: podman, buildah)

Beside each NAME.tar lies NAME.cdx.json, what is in it. The same sources give the same digests, which are printed. The
tag is the version of vibeD. An archive that is there and would be the same is not built again.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
REGISTRY = "ghcr.io/vibed-project"
_LOADERS = {
    "docker": ["docker", "load", "--input", "{archive}"],
    "podman": ["podman", "load", "--input", "{archive}"],
    "buildah": ["buildah", "pull", "oci-archive:{archive}"],
}


def main(arguments: list[str]) -> int:
    if importlib.util.find_spec("pydantic") is None or sys.version_info < (3, 11):
        # vibeD builds its templates, so it takes what vibeD needs
        made = subprocess.run(
            [sys.executable, str(CHECKOUT / "deploy" / "bootstrap.py"), "dev"], stdout=subprocess.PIPE, text=True
        )
        if made.returncode != 0:
            return made.returncode
        os.execv(made.stdout.strip(), [made.stdout.strip(), __file__, *arguments])
    sys.path[:0] = [str(CHECKOUT / "src"), str(CHECKOUT)]
    given = _parser().parse_args(arguments)
    return asyncio.run(_build(given))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="build.py", usage=__doc__, add_help=True)
    parser.add_argument("images", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "dist" / "images")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--registry", default=REGISTRY)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vibed" / "test-home"
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("VIBED_TEST_HOME") or cache))
    parser.add_argument("--with", dest="loader", choices=sorted(_LOADERS))
    return parser


async def _build(given: argparse.Namespace) -> int:
    from deploy.images.contents import PREFIX, Contents

    from vibed.apps.errors import VibedError
    from vibed.runtimes.commands import CommandFailed

    known = Contents(given.home, given.registry).names()
    if given.list:
        print("\n".join(known))
        return 0
    wanted = [name if name in known else f"{PREFIX}{name}" for name in given.images] or known
    if unknown := [name for name in wanted if name not in known]:
        print(f"no such image: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        try:
            await _one(given, name)
        except (VibedError, CommandFailed, OSError, subprocess.CalledProcessError) as error:
            hint = getattr(error, "hint", None)
            print(f"{name}: {error}{f' ({hint})' if hint else ''}", file=sys.stderr)
            return 1
    return 0


async def _one(given: argparse.Namespace, name: str) -> None:
    """Build one image, unless what is there is the same, and load it where that is asked for."""
    from deploy.images.archive import write
    from deploy.images.contents import Contents

    began = time.monotonic()
    contents = Contents(given.home, given.registry, lambda step: _say(name, step), fresh=given.fresh)
    archive, record = given.out / f"{name}.tar", given.out / f"{name}.json"
    found = json.loads(record.read_text()) if record.exists() and archive.exists() else {}
    if found.get("key") != contents.key(name) or given.fresh:
        # beside the archives: a root may be too big for /tmp
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=given.out) as staging:
            prepared = await contents.prepare(name, Path(staging))
            _say(name, "writing the archive")
            digest = await asyncio.to_thread(write, prepared.image, archive)
            (given.out / f"{name}.cdx.json").write_bytes(prepared.sbom)
        # the key as it is now: preparing an image builds its template, whose digest is part of it
        found = {"key": contents.key(name), "digest": digest, "name": prepared.image.name}
        record.write_text(json.dumps(found, indent=1) + "\n")
        _say(name, f"{archive.stat().st_size / 1e6:.0f} MB in {time.monotonic() - began:.0f} s")
    print(f"{found['name']} {found['digest']}", flush=True)
    if given.loader:
        load = [part.format(archive=archive) for part in _LOADERS[given.loader]]
        await asyncio.to_thread(subprocess.run, load, check=True, stdout=sys.stderr)


def _say(name: str, step: str) -> None:
    print(f"  ..  {name:<26} {step}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
