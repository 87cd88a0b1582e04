"""What a builder makes of a worker: how it is run, and how a failure is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vibed.apps.app import Build, Runtime
from vibed.classify.tree import Tree
from vibed.runtimes.builds import worker
from vibed.runtimes.builds.built import Built
from vibed.runtimes.layers.steps import StepFailed
from vibed.sources.errors import ArchiveError

BUILD = Build("esbuild", "", "node-24", site=False, kind="worker", package="src/index.ts", outputs=("public",))
RUNTIME = Runtime(
    "fast", "workerd", "worker", "src/index.ts", "", strip="x/", build=BUILD,
    options={"vars": {"A": "1"}, "assets": {"directory": "./public", "binding": "FILES"}},
)  # fmt: skip


def made(files: dict[str, str]) -> Built:
    tree = Tree("", sorted(files), {name: text.encode() for name, text in files.items()}, True)
    return worker.read(Built("k", Path("x"), site=False), tree)


def test_a_bundle_is_run_with_its_own_settings_and_the_files_beside_it() -> None:
    runtime = made({"worker/index.js": "", "assets/index.html": ""}).runtime(RUNTIME)
    assert (runtime.entrypoint, runtime.strip, runtime.build, runtime.bundle) == ("worker/index.js", "", None, False)
    assert runtime.options["vars"] == {"A": "1"}
    assert runtime.options["assets"] == {"directory": "assets", "binding": "FILES"}
    assert runtime.site_folder == "assets/"


def test_what_a_build_says_of_its_worker_counts() -> None:
    said = {
        "main": "worker/server.js", "compatibility_date": "2026-05-01", "vars": {"A": "2"},
        "assets": {"directory": "assets", "not_found_handling": "single-page-application"},
        "kv_namespaces": [{"binding": "LINKS"}],
    }  # fmt: skip
    files = {"wrangler.json": json.dumps(said), "worker/server.js": "export default {}", "assets/x": ""}
    runtime = made(files).runtime(RUNTIME)
    assert (runtime.entrypoint, runtime.options["compatibility_date"]) == ("worker/server.js", "2026-05-01")
    assert runtime.options["vars"] == {"A": "2"}
    assert runtime.options["assets"] == {**said["assets"], "binding": "FILES"}  # type: ignore[dict-item]
    assert "bindings" in runtime.options


@pytest.mark.parametrize("said", ["{", '{"main": "worker/nowhere.js"}'])
def test_what_it_says_and_is_not_so_is_refused(said: str) -> None:
    with pytest.raises(ArchiveError):
        made({"wrangler.json": said, "worker/index.js": ""})


ESBUILD = """✘ [ERROR] Could not resolve "left-pad"

    src/index.ts:1:17:
      1 │ import pad from "left-pad";
        ╵                  ~~~~~~~~~~

  You can mark the path "left-pad" as external to exclude it from the bundle.

✘ [ERROR] Expected ";" but found "x"

    src/lib/a.ts:3:7:
      3 │ const x x
"""


def test_esbuilds_errors_are_told_with_their_lines() -> None:
    failed = worker.failure(BUILD, StepFailed("it failed", said=ESBUILD))
    assert failed.message == (
        'the build failed (bundling src/index.ts): src/index.ts:1:17: Could not resolve "left-pad"; src/lib/a.ts:3:7:'
        ' Expected ";" but found "x"'
    )
    assert failed.hint == "add left-pad to the dependencies of package.json"
    assert worker.explain('✘ [ERROR] Could not resolve "./db"\n\n    a.ts:1:1:\n')[1] == "./db is not in the archive"


def test_a_build_that_does_not_make_the_entry_is_told() -> None:
    told, hint = worker.explain("vite built\n[ERROR] the build ended well, and made no dist/worker.js\n")
    assert told == "the build ended well, and made no dist/worker.js"
    assert hint == "name in main of wrangler's file what the build makes"


def test_the_error_behind_several_headings_is_told() -> None:
    said = "error during build:\nBuild failed with 1 error:\n\n[plugin x]\nAssertionError: no entry\n    at y\n"
    assert worker.explain(said)[0] == "error during build: [plugin x] AssertionError: no entry"


def test_a_scripts_own_error_is_told() -> None:
    assert worker.explain("vite v8\nerror during build:\nError: no such thing\n")[0].endswith("Error: no such thing")
