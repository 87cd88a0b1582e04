"""What wrangler's file asks of a worker's host besides requests: what is declared, told, and put into the worker."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.unit.classify_trees import TEMPLATES, table_of
from vibed.apps.app import Runtime
from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.classify.worker_bindings import KINDS
from vibed.drivers.workerd import code as worker_code

WORKER = "export default { async fetch(request, env) { return new Response(await env.LINKS.get('x')) } }\n"
PAGE = "<!doctype html><p>x"


def decide(settings: str, **files: str) -> Decision:
    paths = {name.replace("__", "/").replace("_dot_", "."): text for name, text in files.items()}
    return classify(table_of({"wrangler.toml": settings, "w.js": WORKER, **paths}), None, TEMPLATES)


DECLARED = """
main = "w.js"
kv_namespaces = [{ binding = "LINKS", id = "x" }]
d1_databases = [{ binding = "DB", database_name = "x" }, { binding = "OTHER", database_name = "y" }]
queues = { producers = [{ binding = "JOBS", queue = "jobs" }], consumers = [{ queue = "jobs" }] }
send_email = [{ name = "MAIL" }]
[durable_objects]
bindings = [{ name = "ROOM", class_name = "Room" }]
[ai]
binding = "AI"
[triggers]
crons = ["* * * * *"]
[wasm_modules]
ADD = "add.wasm"
"""


def test_what_is_bound_is_told_and_goes_with_the_worker() -> None:
    decision = decide(DECLARED)
    bindings = decision.options["bindings"]
    assert isinstance(bindings, list)
    assert {one["name"]: one["kind"] for one in bindings} == {
        "LINKS": "kv", "DB": "d1", "OTHER": "d1", "JOBS": "queue", "ROOM": "durable_object", "AI": "ai",
        "MAIL": "email", "ADD": "file",
    }  # fmt: skip
    told, *others = decision.notes
    assert told.startswith("the worker binds KV namespace LINKS, D1 database DB, D1 database OTHER, ")
    assert "what uses one fails with its name" in told
    assert others == ["cron triggers do not run here", "consumers of queues do not run here"]


@pytest.mark.parametrize(
    "settings", ["kv_namespaces = 1", "kv_namespaces = [1, {}, {binding = 2}]", "ai = []", "durable_objects = {}"]
)
def test_what_binds_nothing_is_passed_over(settings: str) -> None:
    decision = decide(f'main = "w.js"\n{settings}')
    assert "bindings" not in decision.options
    assert decision.notes == ()


def test_the_worker_gets_its_bindings_before_its_own_code_runs() -> None:
    runtime = decide(DECLARED).runtime()
    modules = worker_code.plain({"w.js": WORKER.encode()}, "w.js")
    assert modules is not None
    made = worker_code.build(runtime, {}, modules, "w.js", None)["modules"]
    assert isinstance(made, dict)
    declared = re.search(r"const declared = (\[.*?\]);", made[worker_code.BINDINGS]["js"])
    assert declared is not None
    assert [one["name"] for one in json.loads(declared[1])] == [
        "LINKS", "DB", "OTHER", "ROOM", "JOBS", "AI", "MAIL", "ADD",
    ]  # fmt: skip
    main = made[worker_code.MAIN]["js"]
    assert main.index(worker_code.BINDINGS) < main.index('from "./w.js"')


def test_every_kind_has_its_row_in_the_shim() -> None:
    shim = (Path(worker_code.__file__).parent / "shim/bindings.js").read_text()
    rows = set(re.findall(r"^  (\w+): absent\(", shim, re.MULTILINE))
    assert rows == {kind.name for kind in KINDS.values()}


def test_what_a_worker_reads_from_its_env_and_nobody_gives_is_known() -> None:
    source = """
        export default { async fetch(request, env, ctx) {
          const { TOKEN, LEVEL = "x" } = env;
          const key = env.API_KEY, other = c.env["OTHER"], given = env.GIVEN, page = await env.ASSETS.fetch(request);
          const perhaps = env.PERHAPS ?? 1, built = import.meta.env.BUILT, rows = env.DB.prepare("");
        } }
    """
    settings = (
        'main = "src/w.js"\nassets = {directory = "public"}\nd1_databases = [{binding = "DB"}]\n[vars]\nGIVEN = "1"'
    )
    decision = decide(settings, src__w_dot_js=source, public__index_dot_html=PAGE)
    assert decision.reads == ("API_KEY", "OTHER", "TOKEN")


SITES = """
import { getAssetFromKV } from "@cloudflare/kv-asset-handler";
addEventListener("fetch", (event) => event.respondWith(getAssetFromKV(event)));
"""


def test_workers_sites_are_assets_that_the_worker_reads() -> None:
    files = {"workers-site__index_dot_js": WORKER, "public__index_dot_html": PAGE, "public__a_dot_css": "b{}"}
    settings = 'type = "webpack"\n[site]\nbucket = "./public"\nentry-point = "workers-site"\n'
    decision = decide(settings, **files)
    assert (decision.kind, decision.entrypoint) == ("worker", "workers-site/index.js")
    assert decision.options["assets"] == {"directory": "./public", "run_worker_first": True, "sites": True}
    modules = worker_code.plain({"workers-site/index.js": WORKER.encode()}, "workers-site/index.js")
    assert modules is not None
    etags = {"index.html": '"e-0"', "a.css": '"e-1"'}
    code = worker_code.build(decision.runtime(), {}, modules, "workers-site/index.js", etags)
    manifest = json.dumps({"index.html": "e-0/index.html", "a.css": "e-1/a.css"})
    made, env = code["modules"], code["env"]
    assert isinstance(made, dict)
    assert isinstance(env, dict)
    assert made["workers-site/__STATIC_CONTENT_MANIFEST"] == {"text": manifest}
    assert env["__STATIC_CONTENT_MANIFEST"] == manifest


def test_workers_sites_without_a_worker_are_a_site() -> None:
    table = table_of({"wrangler.toml": '[site]\nbucket = "public"\n', "public/index.html": PAGE})
    decision = classify(table, None, TEMPLATES)
    assert (decision.kind, decision.root) == ("static", "public/")


class TestNodeCompatibility:
    def flags(self, *given: str) -> list[str]:
        runtime = Runtime("fast", "workerd", "worker", "w.js", "", options={"compatibility_flags": list(given)})
        flags = worker_code.build(runtime, {}, {"w.js": {"js": WORKER}}, "w.js", None)["compatibilityFlags"]
        assert isinstance(flags, list)
        return flags

    def test_modules_of_node_are_there_whatever_the_date(self) -> None:
        flags = self.flags()
        assert {"nodejs_compat", "nodejs_compat_v2", "enable_nodejs_fs_module", "enable_nodejs_http_modules"} <= {
            *flags
        }
        assert len(flags) == len({*flags})

    def test_what_the_project_turned_off_stays_off(self) -> None:
        assert "enable_nodejs_fs_module" not in self.flags("disable_nodejs_fs_module")
        assert "nodejs_compat_v2" not in self.flags("nodejs_compat", "no_nodejs_compat_v2")
        assert not any(flag.startswith("enable") for flag in self.flags("no_nodejs_compat"))
