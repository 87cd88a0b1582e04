"""What compilers and what calls them say when a package cannot be compiled, read: what they wanted and did not have."""

from __future__ import annotations

import re
from collections.abc import Callable

from vibed.runtimes.layers.trouble import Lack

HERE = "C's and C++'s own libraries, zlib, OpenSSL and libffi"
"""What a package can be compiled with, beside what it brings itself."""

_PROGRAM = r"(?:[\w.+-]*-)?(?:gcc|g\+\+|cc|c\+\+|clang|make|gmake|pkg-config|cpp|ld|ar)(?:-\d+)?"
_NO_COMPILER = re.compile(
    rf"command '(?:[^'\n]*/)?{_PROGRAM}' failed: No such file"
    rf"|No such file or directory: '{_PROGRAM}'"
    rf"|\b{_PROGRAM}: (?:command )?not found"
    rf"|not found: {_PROGRAM}\b"
    rf"|'{_PROGRAM}' (?:could not|cannot) be found|[Uu]nable to execute '?{_PROGRAM}\b"
    r"|Unknown compiler\(s\): \[\['?c|no acceptable C compiler|need a C compiler"
    r"|No CMAKE_C(?:XX)?_COMPILER could be found"
    r"|gyp ERR! find Python|gyp ERR! (?:stack )?(?:Error: )?not found: |gyp ERR! stack FetchError"
    r"|gyp ERR! stack Error: \d{3} status code downloading checksum|gyp ERR! stack Error: .*headers"
)
_RUST = re.compile(
    r"can't find Rust compiler|Rust toolchain|static\.rust-lang\.org|\bpuccinialin\b"
    r"|\b(?:rustc|[Cc]argo)\b[^\n]{0,60}(?:not found|not installed|is not on PATH|No such)"
)
_FORTRAN = re.compile(r"Unknown compiler\(s\): \[\['gfortran|gfortran[^\n]{0,40}not found")
_GO = re.compile(r"\bgo: (?:command )?not found|\"go\": executable file not found|No such file or directory: 'go'")
_CMAKE = re.compile(
    r"\bcmake: (?:command )?not found|CMake (?:must be|is not) installed"
    r"|No such file or directory: 'cmake'|spawn cmake ENOENT"
)
_HEADER = re.compile(
    r"fatal error: ['\"]?([\w./+-]+)['\"]?: No such file or directory|fatal error: '([^']+)' file not found"
)
_LIBRARY = re.compile(r"cannot find -l([\w.+-]+)")
_CONFIG = re.compile(r"\b((?!pkg-)\w+[-_]config)\b(?: executable)?[^\n]{0,20}(?:not found|is required|No such file)")
_PACKAGE = re.compile(
    r"No package '([^'\n]+)' found|Package ['\"]?([\w.+-]+)['\"]?,? (?:required by|was not found)|"
    r"ERROR: Dependency ['\"]?([\w.+-]+)['\"]? not found|Could NOT find (\w+)"
)
_PKG_CONFIG = re.compile(r"pkg-config --\w+ ([\w.+-]+)' returned non-zero")
_KILLED = re.compile(r"fatal error: Killed signal terminated program|Killed\s+\(program cc1")
_ERROR = re.compile(r"^\s*(\S+\.(?:c|cc|cpp|cxx|h|hh|hpp|pyx|inc)):(\d+)(?::\d+)?: error: (.+)$", re.MULTILINE)

_LIBRARIES = (
    (re.compile(r"libpq|postgres_ext|pg_config|^pq$"), "PostgreSQL's client library"),
    (re.compile(r"mysql|mariadb", re.I), "the client library of MySQL or MariaDB"),
    (re.compile(r"libxml|xslt|xml2"), "libxml2 and libxslt"),
    (re.compile(r"^(?:sql|sqlext|odbc)", re.I), "unixODBC"),
    (re.compile(r"ldap|lber|sasl"), "OpenLDAP"),
    (re.compile(r"curl"), "libcurl"),
    (re.compile(r"cairo|pango|pixman"), "Cairo and Pango"),
    (re.compile(r"^(?:jpeg|jpeglib|png|tiff|webp|freetype|ft2build)", re.I), "the libraries of image formats"),
    (re.compile(r"krb5|gssapi"), "Kerberos"),
    (re.compile(r"portaudio|sndfile|alsa"), "the libraries of sound"),
    (re.compile(r"magic"), "libmagic"),
    (re.compile(r"geos|gdal|proj"), "the libraries of maps (GEOS, GDAL, PROJ)"),
    (re.compile(r"snappy|^lz4|^zstd|^bz"), "a compression library"),
)  # fmt: skip
"""What a header, a library, a `*-config` program or a pkg-config name is of."""


def wants_compiler(output: str) -> bool:
    """Whether something was not compiled for want of compilers, and they may be all that it wants."""
    found = lack(output)
    return _NO_COMPILER.search(output) is not None and not (found is not None and found.hopeless)


def lack(output: str) -> Lack | None:
    """What a compilation wanted and did not have; None when it does not say so."""
    for read in (_killed, _toolchain, _library, _own_error):
        if (found := read(output)) is not None:
            return found
    return None


def _killed(output: str) -> Lack | None:
    if _KILLED.search(output):
        return Lack("the compiler used more memory than a build may and was ended")
    return None


def _toolchain(output: str) -> Lack | None:
    for pattern, name in ((_RUST, "Rust"), (_FORTRAN, "Fortran"), (_GO, "Go"), (_CMAKE, "CMake")):
        if pattern.search(output):
            return Lack(f"it is built with {name}, which is not there: only C and C++ are compiled", hopeless=True)
    return None


def _library(output: str) -> Lack | None:
    readers: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
        (_HEADER, lambda name: f"the header {name} is missing"),
        (_LIBRARY, lambda name: f"the library lib{name} is missing"),
        (_CONFIG, lambda name: f"the program {name} is missing"),
        (_PACKAGE, lambda name: f"the library {name} is missing"),
        (_PKG_CONFIG, lambda name: f"the library {name} is missing"),
    )
    for pattern, told in readers:
        if match := pattern.search(output):
            name = next(group for group in match.groups() if group)
            of = next((of for known, of in _LIBRARIES if known.search(name)), "")
            return Lack(told(name) + (f" (of {of})" if of else ""), hopeless=bool(of))
    return None


def _own_error(output: str) -> Lack | None:
    if match := _ERROR.search(output):
        return Lack(f"it does not compile: {match[1].rpartition('/')[2]}:{match[2]}: {match[3].strip()}")
    return None
