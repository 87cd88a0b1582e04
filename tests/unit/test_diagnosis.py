"""What went wrong with an app, told so that its author knows what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vibed.apps.app import Runtime
from vibed.sandboxes.diagnosis import diagnose
from vibed.sandboxes.driver import Limits, Run, RunFailed


def told(code: str, *tail: str, kind: str = "python", message: str = "", oom: bool = False) -> RunFailed:
    runtime = Runtime("general", f"{kind}-x", kind, "app", "test")
    run = Run("a", 1, 1, Path("/x"), runtime, {}, Limits(disk_mb=64), start_timeout_s=20)
    ended: dict[str, Any] = {"code": 1, "signal": None, "oom": oom, "at": 1.0, "tail": list(tail)}
    return diagnose(code, message, {"exit": ended}, run)


@pytest.mark.parametrize(
    ("kind", "line", "module"),
    [
        ("python", "ModuleNotFoundError: No module named 'flask_login'", "flask_login"),
        ("python", "ModuleNotFoundError: No module named 'google.cloud'", "google.cloud"),
        ("node", "Error: Cannot find module 'left-pad'", "left-pad"),
        ("node", "Error [ERR_MODULE_NOT_FOUND]: Cannot find package '@scope/x' imported from /app/i.js", "@scope/x"),
        ("go", "main.go:4:2: no required module provides package github.com/a/b; to add it:", "github.com/a/b"),
    ],
)
def test_a_dependency_that_is_missing_is_named(kind: str, line: str, module: str) -> None:
    error = told("StartFailed", "before", line, "after", kind=kind)
    assert error.error_code == "DependenciesMissing"
    assert f"{module!r}" in error.message
    assert error.hint


def test_a_file_of_the_app_that_is_missing_is_no_dependency() -> None:
    error = told("StartFailed", "Error: Cannot find module './routes'", kind="node")
    assert error.error_code == "StartFailed"
    assert "./routes" in error.message


def test_a_variable_that_is_missing_is_named() -> None:
    lines = ['  File "/app/app.py", line 3, in <module>', '    os.environ["API_KEY"]', "KeyError: 'API_KEY'"]
    error = told("StartFailed", *lines)
    assert "API_KEY" in error.message
    assert "API_KEY" in (error.hint or "")


def test_a_key_error_of_another_kind_is_no_variable() -> None:
    error = told("StartFailed", '    settings["NAME"]', "KeyError: 'NAME'")
    assert "environment" not in error.message


def test_otherwise_status_and_last_line_are_told() -> None:
    error = told("StartFailed", "Traceback (most recent call last):", "ValueError: bad port")
    assert error.message == "the app did not start: it exited with status 1: ValueError: bad port"
    assert error.exit is not None
    assert error.exit.code == 1


def test_a_kill_for_memory_is_told_as_such() -> None:
    assert "memory" in told("StartFailed", oom=True).message


def test_an_app_that_does_not_listen_is_told_how_to() -> None:
    error = told("StartTimeout")
    assert "20 s" in error.message
    assert "PORT" in (error.hint or "")


def test_what_is_not_known_is_told_as_it_came() -> None:
    error = told("InjectFailed", message="the source is damaged")
    assert (error.error_code, error.message) == ("InjectFailed", "the source is damaged")


@pytest.mark.parametrize(
    ("kind", "line", "host"),
    [
        (
            "python",
            "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='api.example.com', port=443): Max retries "
            "exceeded (Caused by NameResolutionError(\"Failed to resolve 'api.example.com' ([Errno -3] Temporary "
            'failure in name resolution)"))',
            "api.example.com",
        ),
        ("python", "socket.gaierror: [Errno -3] Temporary failure in name resolution", "another machine"),
        ("node", "Error: getaddrinfo ENOTFOUND db.example.com", "db.example.com"),
        ("node", "Error: connect ENETUNREACH 1.2.3.4:443 - Local (0.0.0.0:0)", "another machine"),
        ("go", 'Get "https://api.example.com/": dial tcp: lookup api.example.com: no such host', "api.example.com"),
    ],
)
def test_a_call_to_the_internet_is_told_to_be_the_reason(kind: str, line: str, host: str) -> None:
    error = told("StartFailed", "Traceback …", line, kind=kind)
    assert error.message == f"the app called {host} when it started, and apps have no network here"
    assert error.hint


def test_the_line_of_the_app_is_named_and_colours_are_not_shown() -> None:
    lines = ['  File "/app/main.py", line 12', "    if x", "        ^", "\x1b[31mSyntaxError: expected ':'\x1b[0m"]
    error = told("StartFailed", *lines)
    assert error.message.endswith("SyntaxError: expected ':' (main.py, line 12)")
