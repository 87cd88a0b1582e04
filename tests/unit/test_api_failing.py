"""An app that fails from its first answer on: told from its run's log, with the error, until what failed succeeds."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api_harness import PYTHON, Running, running

from vibed.sandboxes.diagnosis import About
from vibed.supervision.failing import FAILED, SUCCEEDS, failing

TRACEBACK = ("Traceback (most recent call last):", '  File "/app/app.py", line 6, in index', "    return 1/0",
             "ZeroDivisionError: division by zero")  # fmt: skip
PYTHON_APP = About("python", "python-313")
FIRST = f"{FAILED}GET / was answered 500"
TOLD = "GET / was answered 500 before any request succeeded"


class Log:
    """Writes a run's log as its supervisor does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, *texts: str, at: float = 100.0, stream: str = "stderr", file: str = "log.jsonl") -> Log:
        with (self.folder / file).open("a", encoding="utf-8") as out:
            for text in texts:
                line = {"seq": 1, "ts": at, "stream": stream, "text": text}
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
        return self


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "0000000001")


def test_the_note_has_the_error_behind_the_answer(log: Log) -> None:
    log("Serving on 8080", at=1)(*TRACEBACK)(FIRST, stream="system")
    assert failing(log.folder, PYTHON_APP) == f"{TOLD}: ZeroDivisionError: division by zero (app.py, line 6)"


def test_an_error_that_was_read_after_the_answer_is_found_too(log: Log) -> None:
    log(FIRST, stream="system")(*TRACEBACK, at=100.4)
    assert "ZeroDivisionError" in str(failing(log.folder, PYTHON_APP))


def test_an_error_of_another_time_is_not_the_one(log: Log) -> None:
    log("OSError: no cache, going on without", at=1)(FIRST, stream="system")("KeyError: 'x'", at=200)
    assert failing(log.folder, PYTHON_APP) == f"{TOLD}; its log may say why"


def test_what_is_behind_the_error_is_told_with_what_to_change(log: Log) -> None:
    frame = ('  File "/app/app.py", line 4, in index', "    return render_template('index.html')")
    log("Traceback (most recent call last):", *frame, "jinja2.exceptions.TemplateNotFound: index.html")
    log(FIRST, stream="system")
    said = str(failing(log.folder, PYTHON_APP))
    assert said.startswith(f"{TOLD}: jinja2.exceptions.TemplateNotFound: index.html (app.py, line 4). Send the file")


def test_an_app_that_has_no_such_line_or_no_log_is_not_failing(log: Log) -> None:
    assert failing(log.folder, PYTHON_APP) is None
    assert failing(log.folder / "not there", PYTHON_APP) is None
    log(*TRACEBACK)
    assert failing(log.folder, PYTHON_APP) is None


def test_the_note_ends_when_what_failed_succeeds(log: Log) -> None:
    log(*TRACEBACK)(FIRST, stream="system")(f"{SUCCEEDS}GET / was answered 200", stream="system", at=900)
    assert failing(log.folder, PYTHON_APP) is None


def test_a_log_that_was_rotated_since_is_read_to_its_end(log: Log) -> None:
    log(*TRACEBACK, file="log.1.jsonl")(FIRST, stream="system", file="log.1.jsonl")("more")
    assert "ZeroDivisionError" in str(failing(log.folder, PYTHON_APP))
    log(f"{SUCCEEDS}GET / was answered 200", stream="system")
    assert failing(log.folder, PYTHON_APP) is None


def test_it_is_found_among_megabytes(log: Log) -> None:
    log(*["y" * 10_000] * 150, at=1)(*TRACEBACK)(FIRST, stream="system")(*["ä" * 5_000] * 150, at=300)
    assert failing(log.folder, PYTHON_APP) == f"{TOLD}: ZeroDivisionError: division by zero (app.py, line 6)"


@pytest.mark.parametrize("text", [FIRST, f'"stream": "system", "text": "{FIRST}', f'\\"stream": "system", "{FIRST}'])
def test_what_an_app_prints_is_not_taken_for_its_supervisors_word(log: Log, text: str) -> None:
    log(text)
    assert failing(log.folder, PYTHON_APP) is None


# where it is told


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "home", tmp_path / "run") as made:
        assert (await made.deploy("todo", PYTHON)).status_code == 200
        for _ in range(2):
            await made.store.next_run("todo")
        yield made


async def seen(api: Running) -> dict[str, Any]:
    return dict((await api.client.get("/v1/apps/todo")).json())


async def test_one_app_is_told_of_and_a_list_is_not_read_for_it(api: Running) -> None:
    assert (await seen(api))["failing"] is None
    Log(api.layout.run_log("todo", 1))(FIRST, stream="system")
    assert (await seen(api))["failing"] is None, "that was the run before"
    Log(api.layout.run_log("todo", 2))(*TRACEBACK)(FIRST, stream="system")
    app = await seen(api)
    assert app["phase"] == "Ready"
    assert app["failing"] == f"{TOLD}: ZeroDivisionError: division by zero (app.py, line 6)"
    assert app["message"].endswith(app["failing"])
    assert (await api.client.get("/v1/apps")).json()["items"][0]["failing"] is None


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        (
            ("GET /: ReferenceError: API_KEY is not defined", "    at handle (worker.js:2:9)"),
            "ReferenceError: API_KEY is not defined (worker.js, line 2); it needs the environment variable API_KEY.",
        ),
        (
            ("GET /: TypeError: Cannot read properties of undefined (reading 'trim')", "    at fetch (worker.js:1:9)"),
            "it may need API_KEY and DB, which its source reads and which are not set. Deploy again with them among",
        ),
        (
            ("GET /: Error: KV namespace LINKS is not there: do without", "    at Object.fetch (worker.js:1:9)"),
            f"{TOLD}: Error: KV namespace LINKS is not there: do without (worker.js, line 1)",
        ),
        ((), f"{TOLD}; its log may say why, or it needs API_KEY and DB, which its source reads and which are not set"),
    ],
    ids=["a global", "a property", "a binding", "nothing printed"],
)
def test_a_worker_that_fails_for_want_of_a_variable_says_which(log: Log, printed: tuple[str, ...], told: str) -> None:
    log(*printed)(FIRST, stream="system")
    assert told in str(failing(log.folder, About("worker", "workerd", unset=("API_KEY", "DB"))))
