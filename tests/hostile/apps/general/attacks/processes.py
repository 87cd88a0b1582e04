"""Looks for other processes, and at the agent: PID 1."""

import ctypes
import os
import signal

libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206


def uids():
    """pid -> [uid, command] of all that can be seen."""
    seen = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    command = file.read().replace(b"\0", b" ").decode(errors="replace")
                seen[name] = [os.stat(f"/proc/{name}").st_uid, command]
            except OSError:
                pass
    return seen


def agent():
    """What of the agent's process could be read, entered or ended."""
    got = {}
    for name in ("environ", "mem", "maps", "smaps", "auxv", "stack", "syscall", "io", "pagemap", "clear_refs",
                 "mem", "fdinfo/3", "task/1/environ", "task/1/mem"):  # fmt: skip
        try:
            with open(f"/proc/1/{name}", "rb") as file:
                content = file.read(64)
            # gVisor gives an empty file to those who may not look
            if content.strip(b"\0\n"):
                got[name] = repr(content)
        except OSError:
            pass
    for name in ("exe", "cwd", "root"):
        try:
            os.listdir(f"/proc/1/{name}/") if name != "exe" else open("/proc/1/exe", "rb").close()
            got[name] = "opened"
        except OSError:
            pass
    try:
        got["fd"] = repr(os.listdir("/proc/1/fd"))
        if got["fd"] == "[]":
            del got["fd"]
    except OSError:
        pass
    for name in ("oom_score_adj", "comm", "setgroups", "uid_map", "mem", "coredump_filter", "timerslack_ns"):
        try:
            with open(f"/proc/1/{name}", "wb", buffering=0) as file:
                file.write(b"0")
            got[f"wrote {name}"] = "0"
        except OSError:
            pass
    for request in (PTRACE_ATTACH, PTRACE_SEIZE):
        if libc.ptrace(request, 1, 0, 0) == 0:
            got[f"ptrace {request}"] = "attached"
            libc.ptrace(17, 1, 0, 0)
    buffer = ctypes.create_string_buffer(8)

    class Piece(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    local, remote = Piece(ctypes.addressof(buffer), 8), Piece(0x400000, 8)
    if libc.syscall(310, 1, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) > 0:
        got["process_vm_readv"] = repr(buffer.raw)
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
        try:
            os.kill(1, number)
            got[f"kill {number}"] = "sent"
        except OSError:
            pass
    pidfd = libc.syscall(434, 1, 0)
    if pidfd >= 0:
        for number in range(3, 20):
            if libc.syscall(438, pidfd, number, 0) >= 0:
                got[f"pidfd_getfd {number}"] = "taken"
    return got


def inherited():
    """Descriptors that the app did not open, besides its standard streams."""
    kinds = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            kinds[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return {name: target for name, target in kinds.items() if int(name) > 2}


def status():
    """Capabilities, seccomp and no_new_privs of the app."""
    with open("/proc/self/status") as file:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return {
        name: fields.get(name)
        for name in ("Uid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    }


def become_root():
    """Ways to another uid that worked."""
    worked = []
    for uid in (0, 1, 65534):
        for name in ("setuid", "seteuid", "setgid"):
            pid = os.fork()
            if pid == 0:
                try:
                    getattr(os, name)(uid)
                    os._exit(0)
                except OSError:
                    os._exit(1)
            if os.waitpid(pid, 0)[1] == 0:
                worked.append(f"{name} {uid}")
    try:
        os.setgroups([0])
        worked.append("setgroups")
    except OSError:
        pass
    return worked
