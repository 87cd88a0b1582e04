"""An app without vibeD and without a sandbox: the same command over the same template, as a process of this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.proxy import free_port
from bench.web import Connection
from vibed.apps.app import Start

_UID = 65_534
_START_S = 30.0
_APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
_ENTER = """\
set -e
root=$1 app=$2 uid=$3
shift 3
mount --bind "$app" "$root/app"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=1777 tmpfs "$root/home/app"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot --userspec="$uid:$uid" "$root" sh -c 'cd /app && exec "$@"' sh "$@"
"""


@contextmanager
def native(image: Path, folder: Path, files: Mapping[str, str], start: Start) -> Iterator[int]:
    """Run an app until the block ends; yields its port, at which it listens when this begins.

    `image`: the template's rootfs.erofs; `folder` is made, and removed. All but the image's mount is in a namespace
    of its own. Raises RuntimeError where it does not listen.
    """
    root, app = folder / "root", folder / "app"
    root.mkdir(parents=True)
    for name, text in files.items():
        path = app / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro", str(image), str(root)], check=True)
    try:
        told = root / "etc/vibed/env.json"
        port = free_port()
        argv = [one.replace(str(start.port), str(port)) for one in start.argv]
        env = {
            **(json.loads(told.read_text()) if told.exists() else {}),
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/home/app",
            "PORT": str(port),
        }
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*_APART, "sh", "-c", _ENTER, "sh", str(root), str(app), str(_UID), *argv],
                env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        try:
            _wait(process, port, folder / "log")
            yield port
        finally:
            process.kill()
            process.wait()
    finally:
        _unmount(root)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with Connection(("127.0.0.1", port)) as connection:
            try:
                connection.open()
                return
            except OSError:
                time.sleep(0.05)
    raise RuntimeError(f"the native app does not listen on {port}: {log.read_text()[-1000:]}")


def _unmount(root: Path) -> None:
    # the last of its processes may still be about to go
    for _ in range(50):
        if not os.path.ismount(root):
            return
        if subprocess.run(["umount", str(root)], capture_output=True).returncode != 0:
            time.sleep(0.1)
