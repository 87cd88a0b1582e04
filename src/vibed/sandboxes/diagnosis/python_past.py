"""What is gone from Python itself: an app, or a package that it pins, still uses it.

An app's own line is to be changed. A package's own is the app's choice of its version: an older Python may have what it
needs (`Cause.before`), and a newer version of the package does.
"""

from __future__ import annotations

import re

from vibed.sandboxes.diagnosis import packages
from vibed.sandboxes.diagnosis.about import About, Cause
from vibed.sandboxes.diagnosis.fault import Fault

_MODULES = {
    "distutils": (12, "setuptools, which brings `distutils` again: list it in requirements.txt"),
    "imp": (12, "importlib (`importlib.util`, `importlib.reload`)"),
    "asyncore": (12, "asyncio"),
    "asynchat": (12, "asyncio"),
    "smtpd": (12, "the package aiosmtpd"),
    "aifc": (13, "a package for sound files"),
    "audioop": (13, "the package audioop-lts, which brings it again"),
    "cgi": (
        13,
        "urllib.parse for query strings and the framework's own forms; the package legacy-cgi brings it again",
    ),
    "cgitb": (13, "traceback"),
    "chunk": (13, "struct"),
    "crypt": (13, "hashlib.scrypt, or the package bcrypt"),
    "imghdr": (13, "the package pillow (`Image.open(…).format`)"),
    "lib2to3": (13, "the package libcst"),
    "mailcap": (13, "mimetypes"),
    "nntplib": (13, "another protocol"),
    "pipes": (13, "subprocess; `shlex.quote` for `pipes.quote`"),
    "sndhdr": (13, "wave, or a package for sound files"),
    "spwd": (13, "nothing in its place: a sandbox has no such accounts"),
    "sunau": (13, "wave, or a package for sound files"),
    "telnetlib": (13, "the package telnetlib3"),
    "typing.io": (13, "typing (`from typing import TextIO`)"),
    "typing.re": (13, "re (`re.Pattern`)"),
    "uu": (13, "base64, or binascii"),
    "xdrlib": (13, "struct"),
}
"""By name: the first 3.N that does not have it, and what replaces it."""

_MODULE = re.compile(r"No module named '?([A-Za-z_][\w.]*)'?")
_CHANGES = tuple((re.compile(pattern), minor, named) for pattern, minor, named in (
    (r"module '?collections'? has no attribute '(?:Mutable\w+|Mapping|Callable|Iterable|Sequence|Hashable)'"
     r"|cannot import name '\w+' from 'collections' ", 10, "the abstract types in `collections`"),
    (r"cannot import name 'gcd' from 'fractions'", 9, "`fractions.gcd`"),
    (r"module 'inspect' has no attribute 'getargspec'|cannot import name 'getargspec' from 'inspect'", 11,
     "`inspect.getargspec`"),
    (r"module 'asyncio' has no attribute 'coroutine'|cannot import name 'coroutine' from 'asyncio'", 11,
     "`asyncio.coroutine`"),
    (r"module 'pkgutil' has no attribute 'ImpImporter'", 12, "`pkgutil.ImpImporter`"),
    (r"module 'configparser' has no attribute 'SafeConfigParser'|ConfigParser' object has no attribute 'readfp'", 12,
     "the old names in `configparser`"),
    (r"module 'ssl' has no attribute '(?:wrap_socket|match_hostname)'|cannot import name 'match_hostname' from 'ssl'",
     12, "`ssl.wrap_socket` and `match_hostname`"),
    (r"'EntryPoints' object has no attribute 'get'", 12, "entry points as a dictionary"),
    (r"module 'locale' has no attribute 'format'", 12, "`locale.format`"),
    (r"ForwardRef\._evaluate\(\) missing 1 required keyword-only argument", 12, "`typing`"),
    (r"has no attribute '_?start_joinable_thread'", 13, "threads as they were before 3.13"),
    (r"directly inherits TypingOnly but has additional attributes", 13, "attributes of classes"),
    (r"module 'ast' has no attribute '(?:Str|Num|Bytes|NameConstant|Ellipsis)'", 14, "the old nodes in `ast`"),
    (r"There is no current event loop in thread 'MainThread'", 14, "event loops"),
    (r"cannot import name 'ByteString' from '(?:typing|collections\.abc)'", 14, "`ByteString`"),
))  # fmt: skip
"""What else packages stumble over: their error, the first 3.N in which they do, and what they use, for a person."""
_FITS = {
    "django": "4.2",
    "sqlalchemy": "2.0.36",
    "pydantic": "2.8, or to 1.10.19",
    "fastapi": "0.112",
    "gevent": "24.10.1",
    "eventlet": "0.38",
    "setuptools": "70",
    "webob": "1.8.9",
}
"""The first version of a package that is made for Python 3.13, of those that apps pin most."""
_LINE = re.compile(r"/python3\.(\d+)/")


def gone(fault: Fault, about: About) -> Cause | None:
    """The cause, when the error is about something that this Python does not have any more."""
    found = _module(fault) or _change(fault)
    if found is None:
        return None
    minor, what, instead, told = found
    here = _version(fault, about)
    if here is not None and here < minor:
        return None
    python = f"Python 3.{here or minor}"
    if not fault.library:
        # of a module of its own the place says all; the words of another error are worth quoting
        hint = f"use {instead}" if instead else f"write that line for {python}"
        return Cause(told.format(what=what, python=python), hint, complete=bool(instead))
    name, there = packages.blamed(fault, about)
    whose = f"has {name}{f' {there}' if there else ''}, and that " if name else ""
    return Cause(
        f"{whose}{told.format(what=what, python=python)}",
        packages.newer(name, about, fits=_FITS.get(name, ""), why=python),
        complete=True,
        before=minor,
    )


def _module(fault: Fault) -> tuple[int, str, str, str] | None:
    if (match := _MODULE.search(fault.text)) is None:
        return None
    name = match[1]
    minor, instead = _MODULES.get(name) or _MODULES.get(name.partition(".")[0]) or (0, "")
    return (minor, name, instead, "needs {what}, which {python} does not have any more") if minor else None


def _change(fault: Fault) -> tuple[int, str, str, str] | None:
    for pattern, minor, named in _CHANGES:
        if pattern.search(fault.text):
            return minor, named, "", "stumbles over what {python} has changed ({what})"
    return None


def _version(fault: Fault, about: About) -> int | None:
    """The 3.N that it runs on, by the places in the traceback or by the template's name."""
    for line in fault.context:
        if match := _LINE.search(line):
            return int(match[1])
    match = re.fullmatch(r"python-3(\d+)", about.template)
    return int(match[1]) if match else None
