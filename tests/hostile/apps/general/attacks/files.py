"""Reads and writes where an app has no business."""

import os
import stat


def read(paths):
    """path -> the first bytes of what could be read or listed; paths that refused are left out."""
    got = {}
    for path in paths:
        for way in (path, f"/proc/self/root{path}", f"/proc/1/root{path}", f"/proc/self/cwd/../../../..{path}"):
            try:
                if os.path.isdir(way):
                    got[way] = repr(os.listdir(way)[:20])
                else:
                    with open(way, "rb") as file:
                        got[way] = repr(file.read(200))
            except OSError:
                pass
    return got


def write(paths):
    """Those of the paths that could be written, created, renamed, linked or given another mode."""
    done = []
    for path in paths:
        made = os.path.join(path, ".hostile") if os.path.isdir(path) else path
        for what, attempt in {
            "write": lambda: os.close(os.open(made, os.O_WRONLY | os.O_CREAT, 0o777)),
            "append": lambda: os.close(os.open(made, os.O_WRONLY | os.O_APPEND)),
            "rename": lambda: os.rename(path, path + ".moved"),
            "chmod": lambda: os.chmod(path, 0o777),
            "chown": lambda: os.chown(path, os.getuid(), os.getgid()),
            "link": lambda: os.link(path, made + ".link"),
            "symlink": lambda: os.symlink("/etc", made + ".symlink"),
            "unlink": lambda: os.unlink(path),
            "truncate": lambda: os.truncate(path, 0),
        }.items():
            try:
                attempt()
                done.append(f"{what} {path}")
            except OSError:
                pass
    return done


def search(marks):
    """Where in the whole file tree, names and contents, one of the marks is seen."""
    found = []
    wanted = [mark.encode() for mark in marks]
    for top, folders, names in os.walk("/", followlinks=False):
        folders[:] = [name for name in folders if os.path.join(top, name) not in ("/proc", "/sys", "/usr", "/app")]
        for name in [*folders, *names]:
            path = os.path.join(top, name)
            if any(mark in path for mark in marks):
                found.append(path)
            try:
                if not stat.S_ISREG(os.lstat(path).st_mode) or os.path.getsize(path) > 1 << 20:
                    continue
                with open(path, "rb") as file:
                    content = file.read()
                if any(mark in content for mark in wanted):
                    found.append(f"content of {path}")
            except OSError:
                pass
    return found


def kernel_tells(marks):
    """Files of /proc and /sys that mention one of the marks."""
    found = []
    for name in ("self/mountinfo", "self/mounts", "self/cgroup", "cmdline", "version", "self/environ", "self/status",
                 "swaps", "net/unix", "net/tcp", "net/route", "net/arp", "modules", "kallsyms", "keys", "sched_debug",
                 "timer_list", "partitions", "diskstats", "locks", "sys/kernel/hostname", "sys/kernel/domainname"):  # fmt: skip
        try:
            with open(f"/proc/{name}", errors="replace") as file:
                text = file.read(1 << 20)
            found += [f"/proc/{name}: {line}" for line in text.splitlines() if any(mark in line for mark in marks)]
        except OSError:
            pass
    return found


def follow_links(targets, marks):
    """What links below /app, /tmp and /dev/shm, which the app may make as it likes, lead to."""
    got = {}
    for number, target in enumerate(targets):
        for place in ("/app", "/tmp", "/home/app"):
            link = f"{place}/.link-{number}"
            try:
                os.symlink(target, link)
                with open(link, "rb") as file:
                    content = file.read(1 << 16)
                if any(mark.encode() in content for mark in marks):
                    got[link] = target
            except OSError:
                pass
    return got


def special_files():
    """Setuid files that exist, and device nodes or setuid files of root that could be made."""
    found = []
    for top, folders, names in os.walk("/", followlinks=False):
        folders[:] = [name for name in folders if os.path.join(top, name) not in ("/proc", "/sys")]
        for name in names:
            path = os.path.join(top, name)
            try:
                info = os.lstat(path)
            except OSError:
                continue
            if info.st_mode & (stat.S_ISUID | stat.S_ISGID) and stat.S_ISREG(info.st_mode):
                found.append(f"setuid {path}")
            if stat.S_ISBLK(info.st_mode) or (stat.S_ISCHR(info.st_mode) and name not in (
                "null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "fuse", "tun", "0")):  # fmt: skip
                found.append(f"device {path}")
    for place in ("/app", "/tmp", "/dev", "/dev/shm"):
        for kind, number in ((stat.S_IFBLK, os.makedev(8, 0)), (stat.S_IFCHR, os.makedev(1, 1))):
            try:
                os.mknod(f"{place}/.node", kind | 0o666, number)
                with open(f"{place}/.node", "rb") as file:
                    file.read(1)
                found.append(f"made a device in {place}")
            except OSError:
                pass
    return found
