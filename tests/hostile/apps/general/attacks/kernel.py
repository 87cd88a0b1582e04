"""System calls that exploits are made of: what each one says. A negative answer is an errno."""

import ctypes
import os
import signal

libc = ctypes.CDLL(None, use_errno=True)
ZERO = ctypes.create_string_buffer(4096)
CALLS = {
    "io_uring_setup": (425, 8, ZERO),
    "bpf map": (321, 0, ZERO, 72),
    "perf_event_open": (298, ZERO, 0, -1, -1, 0),
    "add_key": (248, b"user", b"hostile", b"x", 1, -3),
    "request_key": (249, b"user", b"hostile", b"", -3),
    "keyctl join session": (250, 1, b"hostile"),
    "userfaultfd": (323, 0),
    "userfaultfd user only": (323, 1),
    "unshare user": (272, 0x10000000),
    "unshare mount": (272, 0x00020000),
    "unshare net": (272, 0x40000000),
    "unshare pid": (272, 0x20000000),
    "unshare all": (272, 0x7E020000),
    "mount tmpfs": (165, b"none", b"/tmp", b"tmpfs", 0, 0),
    "mount proc": (165, b"none", b"/tmp", b"proc", 0, 0),
    "mount bind": (165, b"/", b"/tmp", b"", 4096, 0),
    "remount root writable": (165, b"none", b"/", b"", 32, 0),
    "umount": (166, b"/proc", 2),
    "fsopen": (430, b"tmpfs", 0),
    "open_tree clone": (428, -100, b"/", 1),
    "move_mount": (429, -1, b"", -100, b"/tmp", 4),
    "pivot_root": (155, b"/tmp", b"/tmp"),
    "chroot": (161, b"/tmp"),
    "setns": (308, 0, 0),
    "init_module": (175, ZERO, 16, b""),
    "finit_module": (313, 0, b"", 0),
    "delete_module": (176, b"loop", 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "reboot": (169, 0xFEE1DEAD, 672274793, 0x01234567, 0),
    "swapon": (167, b"/tmp/x", 0),
    "acct": (163, b"/tmp/x"),
    "quotactl": (179, 0x80000100, 0, 0, ZERO),
    "syslog read": (103, 3, ZERO, 4096),
    "iopl": (172, 3),
    "ioperm": (173, 0, 8, 1),
    "modify_ldt": (154, 1, ZERO, 16),
    "sethostname": (170, b"hostile", 7),
    "setdomainname": (171, b"hostile", 7),
    "settimeofday": (164, ZERO, 0),
    "clock_settime": (227, 0, ZERO),
    "adjtimex offset": (159, b"\x01" + b"\0" * 255),
    "open_by_handle_at": (304, -100, ZERO, 0),
    "name_to_handle_at": (303, -100, b"/", ZERO, ZERO, 0),
    "personality addr_no_randomize": (135, 0x0040000),
    "personality read_implies_exec": (135, 0x0400000),
    "fanotify_init": (300, 0, 0),
    "lookup_dcookie": (212, 0, ZERO, 10),
    "move_pages of pid 1": (279, 1, 1, ZERO, 0, ZERO, 0),
    "migrate_pages of pid 1": (256, 1, 64, ZERO, ZERO),
    "process_vm_writev": (311, 1, ZERO, 1, ZERO, 1, 0),
    "kcmp": (312, 1, 1, 0, 0, 0),
    "pidfd_getfd": (438, -1, 0, 0),
    "memfd_secret": (447, 0),
    "vhangup": (153,),
    "setpriority of pid 1": (141, 0, 1, -20),
    "sched_setscheduler fifo": (144, 0, 1, b"\x01\0\0\0"),
    "prlimit of pid 1": (302, 1, 7, b"\x10" + b"\0" * 15, 0),
    "mlockall": (151, 3),
}


def calls(only=None):
    """name -> what it answered, each in a process of its own, which may be killed for it."""
    said = {}
    for name, (number, *arguments) in CALLS.items():
        if only is not None and name not in only:
            continue
        out, into = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(5)
            given = [ctypes.c_long(a) if isinstance(a, int) else ctypes.cast(a, ctypes.c_void_p) for a in arguments]
            result = libc.syscall(ctypes.c_long(number), *given)
            answer = -ctypes.get_errno() if result == -1 else result
            os.write(into, str(answer).encode())
            os._exit(0)
        os.close(into)
        text = os.read(out, 64)
        os.close(out)
        _, status = os.waitpid(pid, 0)
        said[name] = int(text) if text else f"killed by {os.WTERMSIG(status)}"
    return said


def foreign_abi():
    """Calls of the 32-bit ABIs, which a filter for the 64-bit one may have forgotten."""
    said = {}
    for name, code in {
        # mov eax, 20 (getpid); int 0x80; ret
        "int 0x80": b"\xb8\x14\0\0\0\xcd\x80\xc3",
        # mov eax, 0x40000027 (x32 getpid); syscall; ret
        "x32": b"\xb8\x27\0\0\x40\x0f\x05\xc3",
    }.items():
        import mmap

        memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        memory.write(code)
        pid = os.fork()
        if pid == 0:
            function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
            os._exit(0 if function() == os.getpid() else 1)
        _, status = os.waitpid(pid, 0)
        said[name] = f"killed by {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return said


def namespace_then(path):
    """What a process that has tried to get a user namespace with all capabilities can read, mount or reach then."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        import json
        import socket

        got = []
        if libc.unshare(0x10000000 | 0x00020000) == 0:
            for file, text in (("setgroups", "deny"), ("uid_map", "0 1000 1"), ("gid_map", "0 1000 1")):
                try:
                    with open(f"/proc/self/{file}", "w") as handle:
                        handle.write(text)
                except OSError:
                    pass
        if libc.mount(b"none", b"/tmp", b"erofs", 0, b"") == 0:
            got.append("mounted an image")
        if libc.mount(b"none", b"/", b"", 32 | 4096, b"") == 0:
            try:
                os.close(os.open("/etc/hostile", os.O_WRONLY | os.O_CREAT))
                got.append("wrote to the root")
            except OSError:
                pass
        for name in ("/run/vibed/agent.sock", "/run/vibed/app.sock"):
            with socket.socket(socket.AF_UNIX) as s:
                try:
                    s.connect(name)
                    got.append(name)
                except OSError:
                    pass
        for name in (path, "/proc/1/environ", "/proc/1/mem"):
            try:
                with open(name, "rb") as file:
                    if file.read(16):
                        got.append(name)
            except OSError:
                pass
        try:
            os.kill(1, 19)
            got.append("stopped pid 1")
        except OSError:
            pass
        os.write(into, json.dumps(got).encode())
        os._exit(0)
    os.close(into)
    text = os.read(out, 4096)
    os.close(out)
    os.waitpid(pid, 0)
    import json

    return json.loads(text or b"[]")
