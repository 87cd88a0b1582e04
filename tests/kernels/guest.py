"""A kernel that people run, booted in QEMU over the root file system of this machine.

vibeD is developed under one kernel and used under others. Here the kernel is Debian's own, with cgroup v2, and all else
is this machine's: its root is exported read-only (9p), and what the guest writes goes to memory. There is no KVM where
CI runs, so the processor is emulated, some twenty times slower than this one: run little in it, with patience.

    python -m tests.kernels.guest COMMAND...      run a command of this machine in the guest, as root, in this checkout
"""

from __future__ import annotations

import lzma
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.prepare import home

REPOSITORY = Path(__file__).resolve().parents[2]
QEMU = "qemu-system-x86_64"
_ENDED = "the guest's command ended with"
# What the guest needs to reach its root, and what vibeD has the kernel load later: nothing in the guest loads modules.
_MODULES = ("virtio_pci", "virtio-rng", "9pnet_virtio", "9p", "overlay", "loop", "crc32c_generic", "erofs")

_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module || echo "cannot load $module"; done
mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,ro,msize=1048576 host /host || poweroff -f
mount -t tmpfs -o size=3g tmpfs /written; mkdir /written/upper /written/work
mount -t overlay -o lowerdir=/host,upperdir=/written/upper,workdir=/written/work overlay /root || poweroff -f
mount -t proc proc /root/proc; mount -t sysfs sys /root/sys; mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
mount -t tmpfs -o mode=755 run /root/run
mount --move /dev /root/dev; mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts; mount -t tmpfs -o mode=1777 shm /root/dev/shm
ifconfig lo 127.0.0.1 up
cp /command /root/run/command
umount /proc
exec switch_root /root /bin/sh /run/command
"""


class CannotBoot(Exception):
    """This machine cannot run the guest; says why."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a command in the guest came to."""

    status: int | None
    """None: the guest ended, or was ended, before the command did."""
    output: str
    """The console: what the command printed, and what the kernel had to say."""


def run(command: str, *, env: dict[str, str] | None = None, deadline_s: float = 600.0) -> Done:
    """Run a shell command as root in the guest, in the checkout. Raises CannotBoot."""
    kernel = debian_kernel()
    given = {"HOME": os.environ.get("HOME", "/root"), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    given |= {"PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}", "VIBED_TEST_HOME": str(home())} | (env or {})
    lines = [f"export {name}={shlex.quote(value)}" for name, value in given.items()]
    lines += [f"cd {shlex.quote(str(REPOSITORY))}", f"( {command} )", f'echo "{_ENDED} $?"']
    lines += ["sleep 1  # for the console", "echo b > /proc/sysrq-trigger", "sleep 60"]
    with tempfile.TemporaryDirectory(prefix="vibed-guest-") as folder:
        initrd = Path(folder) / "initrd"
        initrd.write_bytes(_initrd(kernel, "\n".join(lines) + "\n"))
        try:
            done = subprocess.run(
                _qemu(kernel.image, initrd), stdin=subprocess.DEVNULL, capture_output=True, timeout=deadline_s
            )
            output, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        except subprocess.TimeoutExpired as late:
            output, errors = (late.stdout or b"").decode(errors="replace"), f"not done within {deadline_s:g} s"
    ended = re.search(rf"{_ENDED} (\d+)", output)
    return Done(int(ended[1]) if ended else None, output.replace("\r", "") + errors)


def _qemu(kernel: Path, initrd: Path) -> list[str]:
    if (qemu := shutil.which(QEMU)) is None:
        raise CannotBoot(f"{QEMU} is missing; as root: apt-get install --no-install-recommends qemu-system-x86")
    # Under emulation the kernel cannot measure its clock reliably and may hang at that (notes/microvm.md).
    clock = "tsc_early_khz=2500000 no_timer_check"
    return [
        "nice",  # what runs beside it measures time, and the guest does not
        qemu,
        *("-M", "q35", "-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max,-la57", "-smp", "2", "-m", "4G"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(kernel), "-initrd", str(initrd)),
        *("-append", f"console=ttyS0 quiet panic=-1 mitigations=off {clock}"),
        *("-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", "virtio-9p-pci,fsdev=host,mount_tag=host", "-device", "virtio-rng-pci"),
    ]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel and its modules, unpacked."""

    version: str
    image: Path
    modules: Path
    busybox: Path


def debian_kernel() -> Kernel:
    """The kernel of this machine's Debian release, from its package; downloaded once. Raises CannotBoot."""
    if platform.machine() != "x86_64":
        raise CannotBoot(f"the guest is an x86_64 machine, this one is {platform.machine()}")
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise CannotBoot("the kernel comes as a Debian package, and this machine has no apt-get or dpkg-deb")
    listed = _kernel_package()
    if listed is None or not (home() / "kernels" / listed[1]).exists():
        # a list that is absent, or older than the archive, names no package that is there
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True)
        listed = _kernel_package()
    if listed is None:
        raise CannotBoot(
            "apt knows no linux-image-amd64: this is no Debian, or its lists cannot be had (apt-get update)"
        )
    package, version = listed
    folder = home() / "kernels" / version
    if not folder.exists():
        staging = Path(tempfile.mkdtemp(prefix=".kernel-", dir=_made(folder.parent)))
        staging.chmod(0o755)
        try:
            for name in (package, "busybox-static"):
                subprocess.run(["apt-get", "download", "-qq", name], cwd=staging, check=True, capture_output=True)
            for archive in staging.glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", str(archive), str(staging)], check=True)
                archive.unlink()
            staging.rename(folder)
        except subprocess.CalledProcessError as error:
            raise CannotBoot(f"{shlex.join(error.cmd)}: {(error.stderr or b'').decode(errors='replace')}") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    modules = next(found for found in (folder / "usr/lib/modules", folder / "lib/modules") if found.is_dir())
    busybox = next(found for found in (folder / "usr/bin/busybox", folder / "bin/busybox") if found.is_file())
    return Kernel(version, folder / "boot" / f"vmlinuz-{version}", modules / version, busybox)


def _kernel_package() -> tuple[str, str] | None:
    """The package that Debian's `linux-image-amd64` stands for, and its kernel's version; None when apt knows none."""
    shown = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True).stdout
    found = re.search(r"Depends: (linux-image-(\S+-amd64))$", shown, re.MULTILINE)
    return (found[1], found[2]) if found else None


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _initrd(kernel: Kernel, command: str) -> bytes:
    folders = ("bin", "modules", "proc", "dev", "host", "written", "root")
    files: dict[str, tuple[int, bytes]] = dict.fromkeys(folders, (stat.S_IFDIR | 0o755, b""))
    files["init"] = (stat.S_IFREG | 0o755, _INIT.encode())
    files["command"] = (stat.S_IFREG | 0o755, command.encode())
    files["bin/busybox"] = (stat.S_IFREG | 0o755, kernel.busybox.read_bytes())
    for number, (name, content) in enumerate(_modules(kernel)):
        files[f"modules/{number:02}-{name}.ko"] = (stat.S_IFREG | 0o644, content)
    return _cpio(files)


def _modules(kernel: Kernel) -> Iterator[tuple[str, bytes]]:
    """The modules, each after those that it depends on. A name that the kernel has no module for is built in."""
    there = {path.name.partition(".ko")[0].replace("-", "_"): path for path in kernel.modules.rglob("*.ko*")}
    loaded: set[str] = set()

    def load(name: str) -> Iterator[tuple[str, bytes]]:
        name = name.replace("-", "_")
        if name in loaded or name not in there:
            return
        loaded.add(name)
        content = there[name].read_bytes()
        if there[name].suffix == ".xz":
            content = lzma.decompress(content)
        for field in (b"depends", b"softdep"):
            if said := re.search(rb"\0" + field + rb"=([^\0]*)\0", content):
                for needed in re.split(r"[,\s]+", said[1].decode().replace("pre:", "")):
                    yield from load(needed)
        yield name, content

    for name in _MODULES:
        yield from load(name)


def _cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """An archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst of Linux)."""
    out = bytearray()

    def pad() -> None:
        out.extend(b"\0" * (-len(out) % 4))

    for number, (name, (mode, content)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out.extend(b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0")
        pad()
        out.extend(content)
        pad()
    return bytes(out)


def main(arguments: Sequence[str]) -> int:
    """Run a command in the guest and show its console."""
    done = run(shlex.join(arguments) if arguments else "uname -a", deadline_s=3600)
    print(done.output)
    return 1 if done.status is None else done.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
