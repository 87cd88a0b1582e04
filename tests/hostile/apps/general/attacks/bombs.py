"""Takes all that it can get of one thing."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time


def fork(most):
    """How many processes there could be before the kernel said no, tried by several at once."""
    pids = []
    try:
        while len(pids) < most:
            pid = os.fork()
            if pid == 0:
                try:
                    os.fork()
                finally:
                    time.sleep(120)
                    os._exit(0)
            pids.append(pid)
    except OSError as error:
        return [len(pids), error.errno]
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    return [len(pids), 0]


def fork_for_ever():
    """A fork bomb that is never cleaned up: every child forks on, in a session of its own, deaf to SIGTERM."""
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "while True:\n"
        "    try:\n"
        "        if os.fork() == 0:\n"
        "            os.setsid()\n"
        "    except OSError:\n"
        "        time.sleep(0.05)\n"
    )
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    time.sleep(2)
    return "burning"


def threads(most):
    """How many threads there could be."""
    began = []
    stop = threading.Event()
    try:
        for _ in range(most):
            thread = threading.Thread(target=stop.wait, args=(30,), daemon=True)
            thread.start()
            began.append(thread)
    except RuntimeError:
        pass
    stop.set()
    return len(began)


def memory(mib):
    """Bytes that are really touched."""
    held = [bytearray(os.urandom(1 << 20)) for _ in range(mib)]
    return len(held)


def tmpfs(places, mib):
    """Bytes that fit into files, by place; the files stay."""
    fit = {}
    for place in places:
        fit[place] = 0
        try:
            with open(f"{place}/.filler", "wb", buffering=0) as file:
                for _ in range(mib):
                    fit[place] += file.write(b"x" * (1 << 20))
        except OSError:
            pass
    return fit


def unfill(places):
    for place in places:
        try:
            os.unlink(f"{place}/.filler")
        except OSError:
            pass


def inodes(place, most):
    """How many empty files there could be."""
    folder = f"{place}/.inodes"
    made = 0
    try:
        os.mkdir(folder)
        for made in range(most):
            os.close(os.open(f"{folder}/{made}", os.O_CREAT | os.O_WRONLY))
    except OSError:
        pass
    subprocess.run(["rm", "-rf", folder], check=False)
    return made


def descriptors(most):
    """How many files could be open at once."""
    held = []
    try:
        for _ in range(most):
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    finally:
        for one in held:
            os.close(one)
    return len(held)


def socket_buffers(pairs):
    """Fills kernel buffers that no accounting of the process's own memory shows."""
    held = []
    filled = 0
    try:
        for _ in range(pairs):
            a, b = socket.socketpair()
            for one in (a, b):
                one.setblocking(False)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
            held.append((a, b))
            try:
                while True:
                    filled += a.send(b"x" * 65536)
            except BlockingIOError:
                pass
    except OSError:
        pass
    for a, b in held:
        a.close()
        b.close()
    return filled


def spin(seconds):
    """Burns every core."""
    code = f"import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass"
    for one in [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]:
        one.wait()
    return "spun"


def zip_bomb(place):
    """Unpacks zeros until the disk says no."""
    import io
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb", "w") as out:
        for _ in range(60):
            out.write(b"\0" * (1 << 20))
    try:
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(place)
        return [len(packed.getvalue()), "unpacked"]
    except OSError as error:
        return [len(packed.getvalue()), error.errno]
    finally:
        try:
            os.unlink(f"{place}/bomb")
        except OSError:
            pass
