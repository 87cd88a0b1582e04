"""What Python finds. A line for each thing that is not as on any Linux machine; then `done`."""

import asyncio
import ctypes.util
import datetime
import fcntl
import getpass
import glob
import locale
import mimetypes
import mmap
import multiprocessing
import multiprocessing.shared_memory
import os
import platform
import pwd
import resource
import select
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import uuid
import zoneinfo


def is_(found, wanted=True):
    assert found == wanted, found


def locales():
    locale.setlocale(locale.LC_ALL, "")
    is_(locale.getlocale(), ("C", "UTF-8")) if locale.getlocale()[0] == "C" else is_(locale.getlocale()[1], "UTF-8")
    is_(locale.getpreferredencoding(), "UTF-8")
    is_(sys.getfilesystemencoding(), "utf-8")


def listens(family, address):
    with socket.socket(family) as server:
        server.bind((address, 0))
        server.listen()
        with socket.create_connection(("localhost" if address != "::1" else address, server.getsockname()[1]), 3):
            server.accept()[0].close()


def unix():
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/s")
        server.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{folder}/s")


def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        a.bind(("127.0.0.1", 0))
        a.settimeout(3)
        b.sendto(b"x", a.getsockname())
        is_(a.recv(1), b"x")


def databases():
    with sqlite3.connect("machine.db") as db:
        is_(db.execute("pragma journal_mode=wal").fetchone()[0], "wal")
        db.execute("create table if not exists t (a)")
        db.execute("create virtual table if not exists f using fts5(a)")


def mapped():
    with open("mapped", "w+b") as file:
        file.write(bytes(4096))
        file.flush()
        with mmap.mmap(file.fileno(), 4096) as memory:
            memory[0:1] = b"x"
            memory.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)


def processes():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        is_(pool.map(abs, [-1, -2]), [1, 2])
    multiprocessing.Lock()
    multiprocessing.Semaphore()
    multiprocessing.Queue()
    multiprocessing.shared_memory.SharedMemory(create=True, size=64).unlink()


def threads():
    started = [threading.Thread(target=lambda: None) for _ in range(50)]
    [one.start() for one in started]
    [one.join() for one in started]


async def loop():
    process = await asyncio.create_subprocess_exec("true")
    is_(await process.wait(), 0)
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


CHECKS = {
    "locale.setlocale(LC_ALL, '')": locales,
    "the host's name resolves": lambda: socket.gethostbyname(socket.gethostname()),
    "getfqdn": lambda: is_(bool(socket.getfqdn())),
    "getaddrinfo(localhost)": lambda: socket.getaddrinfo("localhost", 80),
    "getaddrinfo(None)": lambda: socket.getaddrinfo(None, 80, flags=socket.AI_PASSIVE),
    "getservbyname": lambda: is_(socket.getservbyname("https"), 443),
    "listen on 127.0.0.1": lambda: listens(socket.AF_INET, "127.0.0.1"),
    "listen on ::1": lambda: listens(socket.AF_INET6, "::1"),
    "Unix sockets": unix,
    "UDP": udp,
    "epoll": lambda: select.epoll().close(),
    "user": lambda: is_(pwd.getpwuid(os.getuid()).pw_name, getpass.getuser()),
    "home": lambda: is_(os.path.expanduser("~"), pwd.getpwuid(os.getuid()).pw_dir),
    "home of a name": lambda: is_(os.path.expanduser("~app"), os.environ["HOME"]),
    "os.makedirs('/data', exist_ok=True)": lambda: os.makedirs("/data", exist_ok=True),
    "/data is a directory of its own": lambda: (os.chmod("/data", 0o700), is_(os.stat("/data").st_uid, os.getuid())),
    "MIME types": lambda: is_(mimetypes.guess_type("x.webp")[0], "image/webp"),
    "MIME types of the system": lambda: is_(mimetypes.guess_type("x.epub")[0], "application/epub+zip"),
    "time zones": lambda: is_(
        datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset().seconds, 7200
    ),
    "certificates": lambda: is_(len(ssl.create_default_context().get_ca_certs()) > 50),
    "SQLite": databases,
    "mmap and locks": mapped,
    "multiprocessing": processes,
    "threads": threads,
    "asyncio": lambda: asyncio.run(loop()),
    "a shell": lambda: is_(subprocess.check_output("echo $((1+1))", shell=True), b"2\n"),
    "temporary files": lambda: tempfile.NamedTemporaryFile().close(),
    "libraries by name": lambda: is_(ctypes.util.find_library("c"), "libc.so.6"),
    "processors": lambda: is_((os.cpu_count() or 0) >= 1 and len(os.sched_getaffinity(0)) >= 1),
    "random": lambda: is_(len(os.urandom(16)), 16),
    "uuid1": uuid.uuid1,
    "platform": lambda: is_(platform.system(), "Linux"),
    "os-release": lambda: is_(platform.freedesktop_os_release()["ID"], "debian"),
    "disk": lambda: is_(shutil.disk_usage("/app").free > 1 << 20),
    "load": os.getloadavg,
    "memory": lambda: is_(os.sysconf("SC_PHYS_PAGES") > 0),
    "limits": lambda: is_(resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 1024),
    "open files": lambda: is_(len(glob.glob("/proc/self/fd/*")) > 2),
}

if __name__ == "__main__":
    for name, check in CHECKS.items():
        try:
            check()
        except BaseException as error:
            print(f"wrong: {name}: {type(error).__name__}: {error}")
    print("done")
