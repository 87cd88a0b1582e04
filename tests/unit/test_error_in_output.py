"""The one error in what an app wrote; `last_words/` has the outputs, of real programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from vibed.sandboxes.diagnosis import error_in, find

OUTPUTS = Path(__file__).parent / "last_words"

ERRORS = dict(line.split("\t") for line in (OUTPUTS / "expected.tsv").read_text().splitlines())


def output(name: str) -> list[str]:
    return (OUTPUTS / f"{name}.txt").read_text().splitlines()


def test_every_output_has_its_expectation() -> None:
    assert {path.stem for path in OUTPUTS.glob("*-*.txt")} == set(ERRORS)


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_the_errors_own_line_and_the_line_of_the_app_are_found(name: str) -> None:
    assert str(find(output(name)) or "-") == ERRORS[name]


@pytest.mark.parametrize("name", [name for name in sorted(ERRORS) if ERRORS[name] != "-"])
def test_an_error_is_found_under_noise_and_colours(name: str) -> None:
    banner = [f"\x1b[32m[{n}] starting \x1b[0m" for n in range(500)]
    assert error_in([*banner, *(f"\x1b[31m{line}\x1b[0m" for line in output(name))]) == ERRORS[name]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [""],
        ["listening on 8080"],
        ['127.0.0.1 - - [29/Nov/2026 12:00:00] "GET /missing HTTP/1.1" 404 -'],
        ["INFO:     Started server process [7]", "INFO:     Application startup complete."],
    ],
)
def test_what_is_no_error_is_none(lines: list[str]) -> None:
    assert error_in(lines) is None


def test_a_traceback_that_is_drawn_in_a_box_is_read() -> None:
    box = ["╭─── Traceback (most recent call last) ───╮", "│ /app/cli.py:10 in main │", "│ │", "╰──────────╯"]
    assert error_in(["starting", *box, "ValueError: bad port"]) == "ValueError: bad port (cli.py, line 10)"


def test_a_traceback_with_empty_lines_and_marks_is_read() -> None:
    frames = ["", '> File "/app/app.py", line 7, in <module>', "    main()", "    └ <function main>", ""]
    lines = [
        "Traceback (most recent call last):",
        *frames,
        '  File "/app/app.py", line 3, in main',
        "    x",
        "",
        "KeyError: 'x'",
    ]
    assert error_in(lines) == "KeyError: 'x' (app.py, line 3)"


def test_compiled_programs_and_the_jvm_are_read() -> None:
    rust = [
        "thread 'main' panicked at src/main.rs:5:10:",
        "called `Option::unwrap()` on a `None` value",
        "note: run with",
    ]
    assert error_in(rust) == "panic: called `Option::unwrap()` on a `None` value (src/main.rs, line 5)"
    cpp = ["terminate called after throwing an instance of 'std::runtime_error'", "  what():  no port", "Aborted"]
    assert error_in(cpp) == "std::runtime_error: no port"
    jvm = ['Exception in thread "main" java.lang.IllegalStateException: no port', "\tat Main.main(Main.java:3)"]
    assert error_in(jvm) == "java.lang.IllegalStateException: no port"


def test_the_last_error_of_several_is_the_one() -> None:
    assert error_in([*output("py-value"), "retrying", *output("node-throw")]) == ERRORS["node-throw"]


def test_what_a_program_says_after_an_error_that_it_caught_is_the_reason() -> None:
    assert error_in([*output("py-value"), "FATAL: no database, giving up"]) == "FATAL: no database, giving up"


def test_a_stack_within_a_record_of_json_is_read() -> None:
    record = '{"level":"error","message":"x","stack":"TypeError: a is null\\n    at load (/app/src/db.js:7:3)"}'
    assert error_in(["{", record, '{"level":"info"}']) == "TypeError: a is null (src/db.js, line 7)"
