"""Worker code: which modules are passed as they are, which must be bundled, and what the shim is told."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from vibed.apps.app import Runtime
from vibed.drivers.workerd import code as worker_code
from vibed.drivers.workerd import compatibility
from vibed.sandboxes.driver import RunFailed

HELLO = "export default { fetch() { return new Response('hi') } }"


def plain(files: Mapping[str, str], entry: str = "worker.js") -> dict[str, object] | None:
    return worker_code.plain({name: text.encode() for name, text in files.items()}, entry)


def code(
    files: Mapping[str, str], options: Mapping[str, object] | None = None, env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    runtime = Runtime("fast", "workerd", "worker", "worker.js", "test", options=options or {})
    modules = plain(files)
    assert modules is not None
    return worker_code.build(runtime, env or {}, modules, "worker.js", None)


class TestPlainModules:
    def test_a_single_module_is_passed_as_it_is(self) -> None:
        assert plain({"worker.js": HELLO}) == {"worker.js": {"js": HELLO}}

    def test_only_what_the_entry_reaches_is_passed(self) -> None:
        files = {
            "worker.js": f"import {{ a }} from './lib/a.js';\nexport {{ b }} from \"./b.mjs\";\n{HELLO}",
            "lib/a.js": "import '../c.js'; export const a = 1",
            "b.mjs": "export const b = () => import('./d.js')",
            "c.js": "",
            "d.js": "",
            "test.js": "this is not ( JavaScript",
        }
        assert set(plain(files) or ()) == {"worker.js", "lib/a.js", "b.mjs", "c.js", "d.js"}

    def test_what_workerd_has_itself_needs_no_bundling(self) -> None:
        assert plain({"worker.js": f"import 'node:fs'; import {{ x }} from 'cloudflare:workers'; {HELLO}"}) is not None

    def test_imported_text_is_a_text_module(self) -> None:
        files = {"worker.js": f"import page from './page.html'; {HELLO}", "page.html": "<p>"}
        assert (plain(files) or {})["page.html"] == {"text": "<p>"}

    @pytest.mark.parametrize("piece", ["\n", "import a\n", "export ", "import (", ";", "import", "from ", "'", "\n;"])
    def test_no_source_keeps_the_controller_waiting(self, piece: str) -> None:
        """It holds the interpreter's lock while it looks, and so do all apps wait."""
        began = time.perf_counter()
        plain({"worker.js": piece * 15_000 + HELLO})
        assert time.perf_counter() - began < 1

    @pytest.mark.parametrize(
        "source",
        [
            f"import {{ Hono }} from 'hono'; {HELLO}",
            f"import x from './util'; {HELLO}",
            f"import x from './data.json'; {HELLO}",
            f"const x = await import('lodash'); {HELLO}",
            "module.exports = { fetch() {} }",
        ],
        ids=["a package", "no file name", "JSON", "a package at run time", "CommonJS"],
    )
    def test_everything_else_is_bundled(self, source: str) -> None:
        assert plain({"worker.js": source, "util.js": "", "data.json": "{}"}) is None

    def test_typescript_is_bundled(self) -> None:
        assert plain({"worker.ts": HELLO}, "worker.ts") is None

    def test_a_word_in_a_string_is_no_import(self) -> None:
        assert plain({"worker.js": "const a = `you may import 'x' here`; " + HELLO}) is not None


class TestCode:
    def test_the_apps_module_is_wrapped_in_ours(self) -> None:
        built = code({"worker.js": HELLO})
        assert built["mainModule"] == "__vibed_main__.js"
        assert 'from "./worker.js"' in built["modules"]["__vibed_main__.js"]["js"]

    def test_a_service_worker_is_given_its_listeners(self) -> None:
        built = code({"worker.js": "addEventListener('fetch', event => event.respondWith(new Response('hi')))"})
        assert "__vibed_service_worker__.js" in built["modules"]

    def test_variables_of_the_project_come_before_the_environment_of_the_deploy(self) -> None:
        built = code({"worker.js": HELLO}, {"vars": {"A": "1", "B": {"x": [1]}}}, {"A": "2"})
        assert built["env"] == {"A": "2", "B": {"x": [1]}}

    def test_node_compatibility_is_on_and_fills_process_env(self) -> None:
        assert {"nodejs_compat", "nodejs_compat_populate_process_env"} <= {
            *code({"worker.js": HELLO})["compatibilityFlags"]
        }

    def test_flags_of_the_project_are_kept(self) -> None:
        flags = code({"worker.js": HELLO}, {"compatibility_flags": ["nodejs_compat", "no_global_navigator"]})
        assert "no_global_navigator" in flags["compatibilityFlags"]
        assert flags["compatibilityFlags"].count("nodejs_compat") == 1

    @pytest.mark.parametrize(
        ("asked", "given"),
        [
            (None, compatibility.DEFAULT_DATE),
            ("2024-09-23", "2024-09-23"),
            ("2031-01-01", compatibility.NEWEST_DATE),
            ("2019-01-01", "2021-11-02"),
        ],
    )
    def test_a_date_is_brought_into_what_workerd_knows(self, asked: str | None, given: str) -> None:
        assert code({"worker.js": HELLO}, {"compatibility_date": asked})["compatibilityDate"] == given

    def test_what_is_no_date_is_refused(self) -> None:
        with pytest.raises(RunFailed) as refused:
            code({"worker.js": HELLO}, {"compatibility_date": "soon"})
        assert refused.value.error_code == "WorkerRejected"


class TestAssets:
    @pytest.mark.parametrize(
        ("asked", "folder"),
        [
            ({"directory": "./public/"}, "public/"),
            ({"directory": "dist/client"}, "dist/client/"),
            ({"directory": "."}, ""),
            ({}, None),
            (None, None),
        ],
    )
    def test_their_folder(self, asked: object, folder: str | None) -> None:
        runtime = Runtime("fast", "workerd", "worker", "w.js", "test", options={"assets": asked})
        assert runtime.site_folder == folder

    def test_their_settings(self) -> None:
        options = {"assets": {"directory": "x", "binding": "FILES", "not_found_handling": "single-page-application"}}
        runtime = Runtime("fast", "workerd", "worker", "w.js", "test", options=options)
        built: dict[str, Any] = worker_code.build(runtime, {}, {}, "", {"index.html": '"e"'})
        assert built["assets"] == {
            "files": {"index.html": '"e"'},
            "sites": False,
            "binding": "FILES",
            "html_handling": "auto-trailing-slash",
            "not_found_handling": "single-page-application",
            "run_worker_first": False,
            "redirects": [],
            "headers": [],
        }
        assert built["mainModule"] == ""


class TestBundles:
    def test_packages_that_require_at_run_time_get_a_require(self) -> None:
        bundled = worker_code.bundled(b'throw Error("Dynamic require of \\"x\\" is not supported"); export {}')
        (module,) = bundled.values()
        assert isinstance(module, dict)
        assert module["js"].startswith("import { createRequire")


def test_of_a_worker_that_was_bundled_all_modules_are_passed_and_nothing_is_looked_for() -> None:
    files = {
        "worker/index.js": "/** import('./types') */ import(`./parts/${name}.js`);\nexport {\n  x as default\n};",
        "worker/parts/a.js": "require('x')", "worker/add.wasm": "\0asm", "worker/page.html": "<p>", "assets/b.js": "",
    }  # fmt: skip
    modules = worker_code.built({name: text.encode() for name, text in files.items()}, "worker/index.js")
    assert {name: next(iter(module)) for name, module in modules.items()} == {  # type: ignore[call-overload]
        "worker/index.js": "js", "worker/parts/a.js": "js", "worker/add.wasm": "wasm", "worker/page.html": "text",
    }  # fmt: skip
