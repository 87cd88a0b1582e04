"""The installers' own words become one sentence with the line that is the cause. The words are real, captured from
uv 0.13 and npm 12 in the templates' own images, and from pnpm and yarn.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from vibed.runtimes.layers import npm_words, uv_words
from vibed.runtimes.layers.managers import words
from vibed.runtimes.layers.trouble import Trouble, no_room

WORDS = Path(__file__).parent / "installer_words"


def read(name: str) -> Trouble:
    text = (WORDS / f"{name}.txt").read_text()
    match name.partition("-")[0]:
        case "uv":
            return uv_words.explain(text, "3.13")
        case "npm":
            return npm_words.explain(text, "24.19.0")
        case "pnpm":
            return words.of_pnpm(text, "24.19.0")
    return words.of_yarn(text, "24.19.0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("uv-prose", 'the line "Please install this stuff" is no requirement'),
        ("uv-typo", 'the line "django==1.4..3" is no requirement: after parsing `1.4`, found `..3`'),
        ("uv-markdown", "requirements.txt:2:1"),
        ("uv-unknown", "there is no package nosuchpackage-xyzzy-12 in the package registry"),
        ("uv-version", "flask has no version 99"),
        ("uv-too-new", "tomli>=99 cannot be had: there is only tomli<=2.5.0"),
        ("uv-abi", "tensorflow 2.10.0 has nothing for Python 3.13"),
        ("uv-python", "audioop-lts 0.2.1 needs Python >=3.13, and this is Python 3.13"),
        ("uv-own-conflict", "versions do not fit each other: you require flask>=3 and flask<2"),
        ("uv-conflict", "and you require flask>=3 and werkzeug<2"),
        ("uv-legacy-dep", "and you require numpy==1.21.0"),
        ("uv-compiler", "numpy 1.26.4 could not be built: ../meson.build:1:0: ERROR: Unknown compiler(s)"),
        (
            "uv-distutils",
            "psycopg2 2.9.5 could not be built: the program pg_config is missing (of PostgreSQL's client library)",
        ),
        (
            "uv-mysql",
            "mysqlclient 2.2.4 could not be built: the library mysqlclient is missing (of the client library of MySQL",
        ),
        ("uv-uwsgi", "uwsgi 2.0.21 could not be built: Exception: you need a C compiler to build uWSGI"),
        ("uv-rust", "orjson 3.8.0 could not be built"),
        ("uv-hash", "Hash mismatch for `flask==3.1.3`"),
        ("uv-git", "a requirement comes from a git repository"),
        ("pnpm-unknown", "there is no package nosuchthing-xyz-1 in the package registry"),
        ("pnpm-version", "nanoid has no version ^99.0.0"),
        ("yarn1-unknown", "there is no package nosuchthing-xyz-1 in the package registry"),
        ("yarn1-version", "nanoid has no version ^99.0.0"),
        ("yarn4-unknown", "there is no package nosuchthing-xyz-1 in the package registry"),
        ("yarn4-version", "nanoid has no version ^99.0.0"),
        ("npm-unknown", "there is no package nosuchpackage-xyzzy-12 in the package registry"),
        ("npm-scoped", "there is no package @nosuchscope-xyzzy/thing in the package registry"),
        ("npm-version", "express has no version ^99.0.0"),
        ("npm-peers", 'peer react@"17.0.2" from react-dom@17.0.2 wants it, and react@18.2.0 is there'),
        ("npm-stale", "nanoid@5.1.16 does not satisfy nanoid@4.0.2"),
        ("npm-json", "package.json cannot be read"),
        ("npm-name", 'Invalid package name "foo bar"'),
        ("npm-workspace", 'Unsupported URL Type "workspace:"'),
        ("npm-git", "nanoid@git+https://github.com/ai/nanoid.git comes from a git repository"),
        ("npm-integrity", "a file is not the one that the lock names"),
        (
            "npm-compiler",
            "the install script of better-sqlite3 failed (prebuild-install || node-gyp rebuild",
        ),
    ],
)
def test_a_failure_is_one_sentence_with_its_cause(words: str, message: str) -> None:
    trouble = read(words)
    assert message in trouble.message
    assert "\n" not in trouble.message
    assert not trouble.retryable


@pytest.mark.parametrize("words", ["uv-unreachable", "npm-unreachable"])
def test_only_a_registry_that_was_not_reached_is_worth_a_retry(words: str) -> None:
    trouble = read(words)
    assert trouble.retryable
    assert "retrying may help" in trouble.hint


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("uv-unknown", "nosuchpackage-xyzzy-12"),
        ("uv-compiler", "numpy"),
        ("uv-abi", "tensorflow"),
        ("uv-too-new", "tomli"),
        ("uv-legacy-dep", "pandas"),
        ("npm-compiler", "better-sqlite3"),
        ("npm-scoped", "@nosuchscope-xyzzy/thing"),
    ],
)
def test_the_package_that_is_to_blame_is_known_so_that_an_app_can_do_without_it(words: str, name: str) -> None:
    assert name in read(words).packages


@pytest.mark.parametrize("words", ["uv-compiler", "uv-uwsgi", "npm-compiler"])
def test_what_would_have_to_be_compiled_is_told_so(words: str) -> None:
    assert read(words).compiler


@pytest.mark.parametrize(
    ("words", "instead"), [("uv-distutils", "psycopg2-binary"), ("uv-mysql", "PyMySQL")]
)  # fmt: skip
def test_what_wants_a_library_that_no_builder_has_is_not_tried_and_what_does_the_same_is_named(
    words: str, instead: str
) -> None:
    trouble = read(words)
    assert not trouble.compiler
    assert instead in trouble.hint


UNMET = ("uv-python", "uv-abi", "uv-compiler", "uv-distutils", "npm-compiler")


@pytest.mark.parametrize("words", [*UNMET, "uv-unknown", "uv-own-conflict", "uv-git", "npm-peers", "npm-unreachable"])
def test_what_another_version_of_the_language_may_have_is_known(words: str) -> None:
    assert read(words).unmet is (words in UNMET)


def test_a_lock_that_does_not_fit_and_peers_that_do_not_are_known() -> None:
    assert read("npm-stale").stale_lock
    assert read("npm-peers").peers
    assert not read("npm-unknown").stale_lock


def test_what_had_no_room_is_told_so_whoever_installs() -> None:
    told = no_room("npm error code ENOSPC\nnpm error syscall write")
    assert told is not None
    assert "more room" in told.message


def test_torch_is_named_where_its_libraries_for_graphics_processors_have_no_room() -> None:
    told = no_room((WORDS / "uv-no-room.txt").read_text())
    assert told is not None
    assert ("torch" in told.message, told.packages) == (True, {"torch"})
    assert no_room((WORDS / "uv-hash.txt").read_text()) is None


@pytest.mark.parametrize("output", ["", "\n\n", "error: ", "npm error\n", "killed"])
def test_words_that_say_nothing_are_still_told(output: str) -> None:
    assert uv_words.explain(output, "3.13").message is not None
    assert npm_words.explain(output, "24").message


def test_every_captured_output_is_read() -> None:
    for path in WORDS.glob("*.txt"):
        assert read(path.stem).message, path.name


@pytest.mark.parametrize("words", ["pnpm-stale", "pnpm-settings", "yarn1-stale"])
def test_a_lock_that_does_not_fit_is_told_apart_from_every_other_failure(words: str) -> None:
    assert read(words).stale_lock
    assert not read(f"{words.partition('-')[0]}-unknown").stale_lock
