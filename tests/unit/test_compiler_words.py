"""What a compilation did not have, from the words of compilers, build tools and what calls them."""

from __future__ import annotations

import pytest

from vibed.runtimes.layers.compiler_words import lack, wants_compiler
from vibed.runtimes.layers.uv_words import explain


@pytest.mark.parametrize(
    "words",
    [
        "error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory",
        "error: [Errno 2] No such file or directory: 'gcc'",
        "unable to execute 'gcc': No such file or directory",
        "/bin/sh: 1: make: not found",
        "../meson.build:1:0: ERROR: Unknown compiler(s): [['cc'], ['gcc'], ['clang']]",
        "CMake Error: No CMAKE_CXX_COMPILER could be found.",
        "configure: error: no acceptable C compiler found in $PATH",
        "gyp ERR! stack Error: Could not find any Python installation to use\ngyp ERR! find Python ",
        "gyp ERR! stack Error: not found: make",
    ],
)
def test_the_want_of_a_compiler_is_known(words: str) -> None:
    assert wants_compiler(words)


@pytest.mark.parametrize(
    "words",
    [
        "error: can't find Rust compiler",
        "Error: pg_config executable not found.",
        "pkg-config: not found\nCommand 'pkg-config --exists mysqlclient' returned non-zero exit status 127.",
        "fatal error: zlib.h: No such file or directory",
        "ValueError: bad version",
        "",
    ],
)  # fmt: skip
def test_what_a_compiler_would_not_help_is_not_taken_for_it(words: str) -> None:
    assert not wants_compiler(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("x.c:2:10: fatal error: libpq-fe.h: No such file or directory", "the header libpq-fe.h is missing (of Po"),
        ("x.c:2:10: fatal error: own.h: No such file or directory", "the header own.h is missing"),
        ("/usr/bin/ld: cannot find -lcurl: No such file or directory", "the library libcurl is missing (of libcurl)"),
        ("Package cairo was not found in the pkg-config search path.", "the library cairo is missing (of Cairo"),
        ('meson.build:9:0: ERROR: Dependency "cairo" not found, tried pkgconfig', "the library cairo is missing"),
        ("c++: fatal error: Killed signal terminated program cc1plus", "more memory than a build may"),
        ("Cargo, the Rust package manager, is not installed or is not on PATH.", "it is built with Rust"),
        ("ERROR: Unknown compiler(s): [['gfortran'], ['flang']]", "it is built with Fortran"),
        ("/bin/sh: 1: cmake: not found", "it is built with CMake"),
        ("src/a.c:34:9: error: too few arguments to function 'x'", "it does not compile: a.c:34: too few arguments"),
    ],
)  # fmt: skip
def test_what_was_lacking_is_named(words: str, message: str) -> None:
    found = lack(words)
    assert found is not None
    assert message in found.message


def test_words_that_name_nothing_are_left_to_others() -> None:
    assert lack("ValueError: bad version") is None


def test_every_name_that_no_registry_has_is_told() -> None:
    said = (
        "error: No solution found when resolving dependencies\n  cause: Because lost-one was not found in the package"
    )
    said += " registry and you require lost-one, we can conclude that your requirements are unsatisfiable.\n"
    told = explain(said, "3.13", ("Lost.One", "lost_two"))
    assert told.message == "there is no package lost-one, lost-two in the package registry"
    assert told.packages == {"lost-one", "lost-two"}
