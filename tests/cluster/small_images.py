"""The two images that a node of the tests needs before all others: what holds a pod's namespaces, and a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from deploy.images.archive import File, Image, Layer, write

from tests.cluster.node import PAUSE, SHELL

_APPLETS = ("sh", "cat", "echo", "httpd", "id", "ls", "nc", "printf", "sleep", "test", "uname")


def small_images(folder: Path) -> list[Path]:
    """Write them below `folder`; the archives."""
    busybox = _busybox()
    pause = Layer(files={"busybox": File(busybox, 0o755)})
    shell = Layer(
        files={"bin/busybox": File(busybox, 0o755)},
        links={f"bin/{name}": "busybox" for name in _APPLETS},
        directories={"tmp": 0o1777, "proc": 0o755, "sys": 0o755, "dev": 0o755, "etc": 0o755},
    )
    archives = [folder / "pause.tar", folder / "busybox.tar"]
    write(Image(PAUSE, [pause], ["/busybox", "sleep", "2147483647"]), archives[0])
    write(Image(SHELL, [shell], ["/bin/sh", "-c"], env={"PATH": "/bin"}), archives[1])
    return archives


def _busybox() -> Path:
    path = shutil.which("busybox", path=f"{os.environ.get('PATH', os.defpath)}:/bin:/usr/bin")
    assert path is not None, "the Debian package busybox-static is missing"
    # `busybox` of the package without -static would need libraries that the images have not
    linked = subprocess.run(["ldd", path], capture_output=True, text=True)
    assert linked.returncode != 0, f"{path} is not static: apt-get install busybox-static"
    return Path(path)
