"""Packages that are there in a version that does not fit the language, or each other: said with what to change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from vibed.apps.app import Install, Runtime
from vibed.sandboxes.diagnosis import diagnose
from vibed.sandboxes.driver import Limits, Run, RunFailed

SITE = "/layers/python/lib/python3.13/site-packages"


def told(
    *tail: str,
    kind: str = "python",
    template: str = "python-313",
    wanted: tuple[str, ...] = (),
    installed: Mapping[str, str] | None = None,
) -> RunFailed:
    runtime = Runtime("general", template, kind, "app", "test", install=Install(kind, "uv", wanted=wanted))
    run = Run("a", 1, 1, Path("/x"), runtime, {}, Limits(), installed=installed or {})
    return diagnose("StartFailed", "", {"exit": {"code": 1, "at": 1.0, "tail": list(tail)}}, run)


def traceback(error: str, *frames: str, line: str = "import x") -> list[str]:
    """As Python writes it: from the app's file through `frames`."""
    told = ["Traceback (most recent call last):", '  File "/app/app.py", line 3, in <module>', "    import thing"]
    for frame in frames:
        told += [f'  File "{frame}", line 7, in <module>', f"    {line}"]
    return [*told, error]


def test_what_a_pinned_package_misses_of_python_may_be_had_on_an_older_one_and_the_pin_is_named() -> None:
    lines = traceback("ModuleNotFoundError: No module named 'cgi'", f"{SITE}/django/http/request.py")
    error = told(*lines, wanted=("django==4.0", "gunicorn"), installed={"django": "4.0"})
    assert "has django 4.0, and that needs cgi, which Python 3.13 does not have any more" in error.message
    assert error.hint == "raise `django==4.0` in the app's list of packages to 4.2 or later"
    assert error.unmet
    assert list(error.fits or ()) == list(range(13))


@pytest.mark.parametrize(
    ("words", "newest"),
    [
        ("ModuleNotFoundError: No module named 'imp'", 11),
        ("ModuleNotFoundError: No module named 'telnetlib'", 12),
        ("ModuleNotFoundError: No module named 'typing.io'; 'typing' is not a package", 12),
        ("AttributeError: module 'pkgutil' has no attribute 'ImpImporter'. Did you mean: 'zipimporter'?", 11),
        ("AttributeError: module 'ssl' has no attribute 'wrap_socket'", 11),
        (
            "TypeError: ForwardRef._evaluate() missing 1 required keyword-only argument: 'recursive_guard'",
            11,
        ),
        (
            "AssertionError: Class <class 'sqlalchemy.sql.elements.SQLCoreOperations'> directly inherits TypingOnly but"
            " has additional attributes {'__firstlineno__', '__static_attributes__'}.",
            12,
        ),
        ("AttributeError: module 'eventlet.green.thread' has no attribute 'start_joinable_thread'", 12),
        ("AttributeError: module 'inspect' has no attribute 'getargspec'", 10),
    ],
)
def test_the_newest_python_that_still_has_it_is_known_however_the_package_stumbles(words: str, newest: int) -> None:
    error = told(*traceback(words, f"{SITE}/old/thing.py"), wanted=("old==1.0",))
    assert max(error.fits or ()) == newest
    assert "raise `old==1.0`" in (error.hint or "")


def test_what_the_apps_own_code_misses_is_for_the_app_to_change() -> None:
    error = told(*traceback("ModuleNotFoundError: No module named 'cgi'"))
    assert "the app needs cgi, which Python 3.13 does not have any more (app.py, line 3)" in error.message
    assert "urllib.parse" in (error.hint or "")
    assert not error.unmet


def test_on_a_python_that_still_has_it_nothing_is_said_to_be_gone() -> None:
    lines = traceback(
        "ModuleNotFoundError: No module named 'telnetlib'", "/usr/local/lib/python3.11/dist-packages/x.py"
    )
    assert not told(*lines, template="python-311").unmet


# A package that is there, and has not what is imported from it


def test_a_module_that_an_installed_package_does_not_have_is_a_matter_of_its_version() -> None:
    lines = traceback(
        "ModuleNotFoundError: No module named 'gradio_client.serializing'", f"{SITE}/gradio/components.py"
    )
    error = told(*lines, wanted=("gradio==3.35.2",), installed={"gradio-client": "2.0.1", "gradio": "3.35.2"})
    assert error.error_code == "StartFailed"
    assert "gradio_client is there in version 2.0.1, which has no module `serializing`" in error.message
    assert "`gradio_client<2`" in (error.hint or "")
    assert "raise `gradio==3.35.2`" in (error.hint or "")


def test_a_module_that_is_missing_of_what_no_list_names_may_be_missing_of_the_apps_own_folder() -> None:
    error = told(*traceback("ModuleNotFoundError: No module named 'racelab.database'"), installed={"flask": "3.1"})
    assert "the racelab that is there has no module `database`" in error.message
    assert "where racelab is a folder of the app's own, send what is missing of it" in error.message + (
        error.hint or ""
    )


def test_of_a_package_that_the_app_lists_itself_the_line_is_named() -> None:
    lines = traceback(f"ImportError: cannot import name 'url_quote' from 'werkzeug.urls' ({SITE}/werkzeug/urls.py)")
    error = told(*lines, wanted=("Werkzeug>=3", "flask"), installed={"werkzeug": "3.1.3"})
    assert "werkzeug is there in version 3.1.3, which has no `url_quote` in `werkzeug.urls`" in error.message
    assert "change `Werkzeug>=3` in the app's list" in (error.hint or "")


def test_a_name_that_a_package_has_dropped_is_told_with_the_version_that_is_there() -> None:
    lines = traceback("AttributeError: module 'numpy' has no attribute 'bool8'")
    assert "numpy is there in version 2.5.3" in told(*lines, installed={"numpy": "2.5.3"}).message


@pytest.mark.parametrize(
    "words",
    [
        "ModuleNotFoundError: No module named 'opentelemetry.instrumentation'",
        "ModuleNotFoundError: No module named 'humanize'",
    ],
)
def test_a_package_that_is_not_there_is_a_dependency(words: str) -> None:
    assert told(*traceback(words)).error_code == "DependenciesMissing"


NOT_EXPORTED = [
    "node:internal/modules/esm/resolve:313",
    "  return new ERR_PACKAGE_PATH_NOT_EXPORTED(",
    "         ^",
    "Error [ERR_PACKAGE_PATH_NOT_EXPORTED]: Package subpath './v4' is not defined by \"exports\" in"
    " /layers/node/node_modules/uuid/package.json",
    "    at exportsNotFound (node:internal/modules/esm/resolve:313:10)",
    "    at Object.<anonymous> (/app/server.js:1:12)",
    "Node.js v24.19.0",
]
NO_EXPORT = [
    "file:///app/server.js:1",
    "import { legacy } from 'hono';",
    "         ^^^^^^",
    "SyntaxError: The requested module 'hono' does not provide an export named 'legacy'",
    "    at #asyncInstantiate (node:internal/modules/esm/module_job:327:21)",
    "Node.js v24.19.0",
]


@pytest.mark.parametrize(
    ("lines", "package", "what"),
    [
        (NOT_EXPORTED, "uuid is there in version 11.1.0", "no `v4` that can be imported"),
        (NO_EXPORT, "hono is there in version 4.12.0", "no export `legacy`"),
    ],
)
def test_what_a_package_of_npm_does_not_export_is_a_matter_of_its_version(
    lines: list[str], package: str, what: str
) -> None:
    error = told(*lines, kind="node", template="node-24", installed={"uuid": "11.1.0", "hono": "4.12.0"})
    assert error.error_code == "StartFailed"
    assert f"{package}, which has {what}" in error.message
    assert "package.json" in (error.hint or "")


def test_a_commonjs_package_that_is_imported_by_names_is_told_how() -> None:
    lines = (Path(__file__).parent / "last_words/node-esm-named-cjs.txt").read_text().splitlines()
    error = told(*lines, kind="node", template="node-24")
    assert "imports `nope` by name from express, which is a CommonJS module" in error.message
    assert "import pkg from 'express'" in (error.hint or "")


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (traceback("sqlite3.OperationalError: no such table: item"), "no such table: item (app.py, line 3)"),
        (
            traceback(
                "TypeError: 'NoneType' object is not subscriptable", "/app/db.py", line="sql = cursor.fetchone()['sql']"
            ),
            "(db.py, line 7); it does not find something in its database",
        ),
    ],
)
def test_for_want_of_a_table_the_script_that_makes_it_is_named_with_the_line_that_runs_it_first(
    tail: list[str], words: str
) -> None:
    runtime = Runtime("general", "python-313", "python", "gunicorn app:app", "test", prepares="python init_db.py")
    run = Run("a", 1, 1, Path("/x"), runtime, {}, Limits())
    error = diagnose("StartFailed", "", {"exit": {"code": 1, "at": 1.0, "tail": tail}}, run)
    assert words in error.message
    assert "the entrypoint `python init_db.py && gunicorn app:app`" in (error.hint or "")


def test_a_file_that_a_package_of_node_does_not_have_is_a_matter_of_versions_and_who_requires_it_is_named() -> None:
    modules = "/layers/node/node_modules"
    lines = [
        "node:internal/modules/cjs/loader:1520",
        "  throw err;",
        "  ^",
        "",
        "Error: Cannot find module 'mongodb/node_modules/bson'",
        "Require stack:",
        f"- {modules}/mongoose/lib/drivers/objectid.js",
        f"- {modules}/mongoose/index.js",
        "- /app/config/database.js",
        "    at Module._resolveFilename (node:internal/modules/cjs/loader:1517:15)",
        f"    at Object.<anonymous> ({modules}/mongoose/lib/drivers/objectid.js:8:16) {{",
        "  code: 'MODULE_NOT_FOUND',",
        "}",
        "",
        "Node.js v24.19.0",
    ]
    error = told(*lines, kind="node", template="node-24", installed={"mongodb": "1.4.38", "mongoose": "3.8.40"})
    assert "mongodb is there in version 1.4.38, which has no file `node_modules/bson`" in error.message
    assert "or raise `mongoose`, which imports it" in (error.hint or "")
