"""Starts a program that can start no other: nothing that it fetches can be run.

A filter of system calls refuses `execve`, by which every program is started but this one: it is started by `execveat`
on a descriptor. Only what runs already could call that itself, and that is the program alone.
"""

# It is handed over as it is, without vibeD around it.

import ctypes
import os
import struct
import subprocess

REFUSED = "(os error 13)"
"""In what a program of Rust says of a start that was refused."""
_EXECVE, _EXECVEAT, _MACHINE = {
    "x86_64": (59, 322, 0xC000003E),
    "aarch64": (221, 281, 0xC00000B7),
}.get(os.uname().machine, (0, 0, 0))
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_KILL, _EACCES, _ALLOW = 0x80000000, 0x0005000D, 0x7FFF0000
_FILTER = (
    (_LOAD, 0, 0, 4),
    (_EQUAL, 1, 0, _MACHINE),
    (_RETURN, 0, 0, _KILL),
    (_LOAD, 0, 0, 0),
    (_AT_LEAST, 0, 1, 0x40000000),  # numbers of x32
    (_RETURN, 0, 0, _KILL),
    (_EQUAL, 0, 1, _EXECVE),
    (_RETURN, 0, 0, _EACCES),
    (_RETURN, 0, 0, _ALLOW),
)
_NO_NEW_PRIVS, _SECCOMP, _BY_FILTER, _EMPTY_PATH = 38, 22, 2, 0x1000


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def start(argv, **streams):
    """As subprocess.Popen, of a program by its path."""
    libc = ctypes.CDLL(None, use_errno=True)
    instructions = b"".join(struct.pack("HBBI", *one) for one in _FILTER)
    held = ctypes.create_string_buffer(instructions, len(instructions))
    program = _Program(len(_FILTER), ctypes.addressof(held))
    words = (ctypes.c_char_p * (len(argv) + 1))(*(os.fsencode(word) for word in argv), None)
    env = [b"%b=%b" % pair for pair in os.environb.items()]
    variables = (ctypes.c_char_p * (len(env) + 1))(*env, None)
    file = os.open(argv[0], os.O_PATH | os.O_CLOEXEC)

    def become():
        # whatever fails, nothing is run: Popen itself may start no program either
        if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and libc.prctl(_SECCOMP, _BY_FILTER, ctypes.byref(program)) == 0:
            libc.syscall(_EXECVEAT, file, b"", words, variables, _EMPTY_PATH)
        os._exit(127)

    try:
        return subprocess.Popen(argv, preexec_fn=become, **streams)
    finally:
        os.close(file)
