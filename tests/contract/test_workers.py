"""What a worker may rely on beyond the driver contract: bundling in a sandbox, static assets, streams, WebSockets."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from websockets.asyncio.client import unix_connect

from tests.contract.driver_kit import SUBJECTS, Bench, Running, bench, gone
from vibed.classify.worker_bindings import declared
from vibed.sandboxes.driver import RunFailed

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
workerd = SUBJECTS["workerd"]


@pytest.fixture
async def on(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as it:
        yield it


async def serve(
    on: Bench, files: Mapping[str, str | bytes], entry: str = "worker.js", options: Mapping[str, object] | None = None
) -> Running:
    run = workerd.run(on, files, options=options)
    runtime = replace(run.runtime, entrypoint=entry)
    return await workerd.start(on, workerd.driver(on), replace(run, runtime=runtime))


class TestBundling:
    async def test_typescript_with_packages_of_the_template_runs(self, on: Bench) -> None:
        source = """
            import { Hono } from "hono";
            import { word } from "./word";
            const app = new Hono<{ Bindings: { GREETING: string } }>();
            app.get("/", (c) => c.text(`${word} ${c.env.GREETING}`));
            export default app;
        """
        app = await serve(
            on, {"src/index.ts": source, "src/word.ts": "export const word: string = 'hi'"}, "src/index.ts"
        )
        assert (await app.get()).body == "hi world"

    @pytest.mark.parametrize(
        "path", ["/etc/passwd", "../../../etc/passwd", "/proc/self/environ", "/vibed-agent", "/esbuild", "/dev/null"]
    )
    async def test_a_source_cannot_bring_files_of_the_host_into_its_bundle(self, on: Bench, path: str) -> None:
        source = f"""
            import text from "{path}" with {{ type: "text" }};
            export default {{ fetch() {{ return new Response("[" + text.slice(0, 20) + "]") }} }};
        """
        try:
            app = await serve(on, {"worker.js": source})
        except RunFailed as failed:
            assert failed.error_code in ("BundleFailed", "WorkerRejected")
        else:
            # what is there is our own program or nothing, and no file of the host
            body = (await app.get()).body
            assert "root:" not in body
            assert "PATH" not in body

    async def test_an_error_is_told_with_its_line_and_nothing_is_left(self, on: Bench) -> None:
        with pytest.raises(RunFailed) as failed:
            await serve(on, {"worker.ts": "const a: = 1;"}, "worker.ts")
        assert failed.value.error_code == "BundleFailed"
        assert "worker.ts:1:9" in failed.value.message
        for sandbox in on.sandboxes:
            await sandbox.destroy(0)
        assert await gone(on) == []

    async def test_all_packages_that_are_missing_are_named_at_once(self, on: Bench) -> None:
        source = "import a from 'left-pad'; import b from '@scope/other'; export default { fetch() { a(b) } }"
        with pytest.raises(RunFailed) as failed:
            await serve(on, {"worker.js": source})
        assert failed.value.error_code == "DependenciesMissing"
        assert "'left-pad'" in failed.value.message
        assert "'@scope/other'" in failed.value.message


ADD = base64.b64decode("AGFzbQEAAAABBwFgAn9/AX8DAgEABwcBA2FkZAAACgkBBwAgACABags=")
"""A WebAssembly module that exports `add`."""


class TestModulesThatAreNoJavaScript:
    @pytest.mark.parametrize("entry", ["worker.js", "src/worker.ts"])
    async def test_web_assembly_data_and_text_are_imported_as_under_wrangler(self, on: Bench, entry: str) -> None:
        folder = entry.rpartition("/")[0]
        typed = ": WebAssembly.Module" if entry.endswith("ts") else ""
        source = f"""
            import add from "./lib/add.wasm";
            import data from "./lib/three.bin";
            import page from "./page.html";
            const module{typed} = add;
            export default {{ async fetch() {{
                const {{ exports }} = new WebAssembly.Instance(module);
                const bytes = data instanceof ArrayBuffer ? new Uint8Array(data).join() : "no ArrayBuffer";
                return new Response(`${{exports.add(2, 40)}} ${{bytes}} ${{page}}`);
            }} }};
        """
        beside = {"lib/add.wasm": ADD, "lib/three.bin": bytes([1, 2, 3]), "page.html": "<p>"}
        files = {(f"{folder}/{name}" if folder else name): content for name, content in beside.items()}
        app = await serve(on, {entry: source, **files}, entry)
        assert (await app.get()).body == "42 1,2,3 <p>"

    async def test_a_name_with_a_query_and_one_from_another_folder(self, on: Bench) -> None:
        source = 'export { default as add } from "../wasm/add.wasm?module";'
        worker = """
            import { add } from "./inner";
            export default { fetch: () => new Response(String(new WebAssembly.Instance(add).exports.add(1, 1))) };
        """
        files = {"src/worker.ts": worker, "src/inner.ts": source, "wasm/add.wasm": ADD}
        app = await serve(on, files, "src/worker.ts")
        assert (await app.get()).body == "2"

    async def test_one_that_is_not_there_is_told(self, on: Bench) -> None:
        source = 'import add from "./add.wasm"; export default { fetch() { return new Response(String(add)) } }'
        with pytest.raises(RunFailed, match=r"add\.wasm.*not in the source") as failed:
            await serve(on, {"worker.ts": source}, "worker.ts")
        assert failed.value.error_code == "BundleFailed"


class TestCache:
    WORKER = """
        const cache = caches.default;
        export default { async fetch(request) {
            const url = new URL(request.url);
            const named = url.searchParams.get("cache");
            const place = named ? await caches.open(named) : cache;
            const key = "https://example.com" + url.pathname;
            const what = request.headers.get("do");
            if (what === "DELETE") return Response.json(await place.delete(key));
            if (what !== "PUT") {
                const init = { headers: request.headers };
                return (await place.match(new Request(key, init))) ?? new Response("miss", { status: 404 });
            }
            const headers = JSON.parse(url.searchParams.get("headers") ?? "{}");
            const response = new Response("x".repeat(Number(url.searchParams.get("size") ?? 5)), { headers });
            try {
                await place.put(key, response);
                return new Response("put");
            } catch (error) {
                return new Response(String(error), { status: 400 });
            }
        } };
    """

    async def test_what_is_put_is_matched_until_it_is_deleted_and_each_cache_is_its_own(self, on: Bench) -> None:
        app = await serve(on, {"worker.js": self.WORKER})
        assert (await app.get("/a")).body == "miss"
        headers = quote('{"cache-control":"max-age=60","etag":"\\"e\\""}')
        assert (await app.get(f"/a?headers={headers}", Do="PUT")).body == "put"
        found = await app.get("/a")
        assert (found.status, found.body, found.headers["cf-cache-status"]) == (200, "xxxxx", "HIT")
        assert (await app.get("/a")).body == "xxxxx"
        assert (await app.get("/a", If_None_Match='W/"e"')).status == 304
        part = await app.get("/a", Range="bytes=1-2")
        assert (part.status, part.body, part.headers["content-range"]) == (206, "xx", "bytes 1-2/5")
        assert (await app.get("/a?cache=other")).body == "miss"
        assert (await app.get("/a", Do="DELETE")).body == "true"
        assert (await app.get("/a", Do="DELETE")).body == "false"
        assert (await app.get("/a")).body == "miss"

    @pytest.mark.parametrize("headers", ['{"cache-control":"no-store"}', '{"cache-control":"private, max-age=9"}',
        '{"set-cookie":"a=b"}', '{"cache-control":"max-age=0"}'])  # fmt: skip
    async def test_what_says_that_it_is_not_to_be_kept_is_not(self, on: Bench, headers: str) -> None:
        app = await serve(on, {"worker.js": self.WORKER})
        assert (await app.get(f"/a?headers={quote(headers)}", Do="PUT")).body == "put"
        assert (await app.get("/a")).body == "miss"
        vary = quote('{"vary":"*"}')
        assert "Vary" in (await app.get(f"/a?headers={vary}", Do="PUT")).body

    async def test_it_is_bounded_and_the_longest_unused_go_first(self, on: Bench) -> None:
        app = await serve(on, {"worker.js": self.WORKER})
        for number in range(8):
            assert (await app.get(f"/{number}?size=3000000", Do="PUT")).body == "put"
            assert (await app.get("/0", Range="bytes=0-0")).body == "x"
        assert (await app.get("/1", Range="bytes=0-0")).body == "miss"
        assert (await app.get("/7", Range="bytes=0-0")).body == "x"
        await app.get("/large?size=5000000", Do="PUT")
        assert (await app.get("/large")).body == "miss"

    async def test_a_service_worker_has_it_too(self, on: Bench) -> None:
        source = """addEventListener("fetch", (event) => event.respondWith((async () => {
            await caches.default.put(event.request.url, new Response("kept"));
            return caches.default.match(event.request.url);
        })()));"""
        app = await serve(on, {"worker.js": source})
        assert (await app.get("/x")).body == "kept"


class TestBindings:
    """Services that wrangler's file binds, none of which is here."""

    OPTIONS: Mapping[str, object] = {
        "bindings": [
            one.data()
            for one in declared(
                {
                    "kv_namespaces": [{"binding": "LINKS"}],
                    "d1_databases": [{"binding": "DB"}],
                    "hyperdrive": [{"binding": "PG"}],
                    "durable_objects": {"bindings": [{"name": "ROOM", "class_name": "Room"}]},
                }
            )
        ]
    }

    async def test_one_that_is_used_fails_with_its_name_and_the_rest_is_answered(self, on: Bench) -> None:
        source = """
            import { DurableObject, env as imported } from "cloudflare:workers";
            export class Room extends DurableObject { fetch() { return new Response("room") } }
            const atTheTop = typeof imported.LINKS;
            const uses = {
              "/kv": (env) => env.LINKS.get("x"),
              "/caught": (env) => env.LINKS.get("x").catch((error) => `caught ${error.message}`),
              "/d1": (env) => env.DB.prepare("select 1").bind(1).all(),
              "/pg": (env) => env.PG.connectionString,
              "/room": (env) => env.ROOM.get(env.ROOM.idFromName("x")).fetch("http://x"),
              "/names": (env) => [atTheTop, typeof env.DB, imported.DB === env.DB, "GREETING" in env, `${env.DB}`] + "",
            };
            export default { async fetch(request, env) {
              const use = uses[new URL(request.url).pathname];
              return new Response(use ? await use(env) : "fine");
            } };
        """
        app = await serve(on, {"worker.js": source}, options=self.OPTIONS)
        assert (await app.get("/")).body == "fine"
        assert (await app.get("/names")).body == "object,object,true,true,[object Object]"
        assert "caught KV namespace LINKS is not there: keep the data in" in (await app.get("/caught")).body
        for path, name in (
            ("/kv", "KV namespace LINKS"), ("/d1", "D1 database DB"), ("/pg", "Hyperdrive configuration PG"),
            ("/room", "Durable Object namespace ROOM"),
        ):  # fmt: skip
            answer = await app.get(path)
            assert (answer.status, answer.headers["x-vibed-error"]) == (500, "WorkerException")
            async with asyncio.timeout(10):
                while not any(f"{name} is not there" in text for text in app.texts()):
                    await asyncio.sleep(0.05)

    async def test_a_service_worker_has_them_as_globals_and_a_variable_goes_before(self, on: Bench) -> None:
        source = """addEventListener("fetch", (event) => event.respondWith((async () => {
            try { return new Response(await LINKS.get("x")) }
            catch (error) { return new Response(`${DB} ${error.message}`) }
        })()));"""
        options = {**self.OPTIONS, "vars": {"DB": "given"}}
        app = await serve(on, {"worker.js": source}, options=options)
        assert (await app.get()).body.startswith("given KV namespace LINKS is not there")

    async def test_files_of_workers_sites_are_read_by_the_keys_of_their_manifest(self, on: Bench) -> None:
        source = """
            import manifest from "__STATIC_CONTENT_MANIFEST";
            export default { async fetch(request, env) {
              const path = new URL(request.url).pathname.slice(1) || "index.html";
              const body = await env.__STATIC_CONTENT.get(JSON.parse(manifest)[path] ?? path, { type: "arrayBuffer" });
              return new Response(body, { status: body ? 200 : 404 });
            } };
        """
        files = {"workers-site/index.js": source, "public/index.html": "page", "public/a b/c.css": "b{}"}
        options = {"assets": {"directory": "public", "run_worker_first": True, "sites": True}}
        app = await serve(on, files, "workers-site/index.js", options=options)
        assert (await app.get()).body == "page"
        assert [(await app.get(path)).status for path in ("/nowhere", "/nowhere/index.html")] == [404, 404]


class TestForms:
    async def test_a_service_worker_with_variables_as_globals(self, on: Bench) -> None:
        source = "addEventListener('fetch', (event) => event.respondWith(new Response(`${GREETING} ${LEVEL}`)));"
        app = await serve(on, {"worker.js": source}, options={"vars": {"LEVEL": "info"}})
        assert (await app.get()).body == "world info"

    async def test_a_class_as_entry_point(self, on: Bench) -> None:
        source = """
            import { WorkerEntrypoint } from "cloudflare:workers";
            export default class extends WorkerEntrypoint {
              fetch() { return new Response(`class ${this.env.GREETING}`); }
            }
        """
        assert (await (await serve(on, {"worker.js": source})).get()).body == "class world"

    async def test_a_web_socket(self, on: Bench) -> None:
        source = """
            export default { fetch() {
              const [client, server] = Object.values(new WebSocketPair());
              server.accept();
              server.addEventListener("message", (event) => server.send(`echo ${event.data}`));
              return new Response(null, { status: 101, webSocket: client });
            } };
        """
        app = await serve(on, {"worker.js": source})
        async with unix_connect(str(app.socket), "ws://app.localhost/") as connection:
            await connection.send("one")
            assert await connection.recv() == "echo one"

    async def test_events_arrive_as_they_are_sent(self, on: Bench) -> None:
        source = """
            export default { fetch() {
              const { readable, writable } = new TransformStream();
              const writer = writable.getWriter();
              (async () => {
                await writer.write(new TextEncoder().encode("data: 1\\n\\n"));
                await scheduler.wait(60000);
              })();
              return new Response(readable, { headers: { "content-type": "text/event-stream" } });
            } };
        """
        app = await serve(on, {"worker.js": source})
        reader, writer = await asyncio.open_unix_connection(str(app.socket))
        writer.write(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
        async with asyncio.timeout(10):
            await reader.readuntil(b"data: 1\n\n")
        writer.close()


class TestAssets:
    FILES: Mapping[str, str] = {
        "worker.js": """export default { async fetch(request, env) {
            const url = new URL(request.url);
            if (url.pathname === "/via") return env.ASSETS.fetch(new URL("/a.css", url));
            return new Response("from the worker", { status: url.pathname.startsWith("/api") ? 200 : 404 });
        } };""",
        "public/index.html": "index",
        "public/about.html": "about",
        "public/docs/index.html": "docs",
        "public/a.css": "body{}",
        "public/with space.txt": "space",
    }

    @pytest.fixture
    async def app(self, on: Bench) -> Running:
        return await serve(on, self.FILES, options={"assets": {"directory": "./public"}})

    @pytest.mark.parametrize(
        ("path", "status", "body"),
        [
            ("/", 200, "index"),
            ("/about", 200, "about"),
            ("/docs/", 200, "docs"),
            ("/a.css", 200, "body{}"),
            ("/with%20space.txt", 200, "space"),
            ("/via", 200, "body{}"),
            ("/api/x", 200, "from the worker"),
            ("/nowhere", 404, "from the worker"),
            ("/worker.js", 404, "from the worker"),
            ("/..%2fworker.js", 404, "from the worker"),
        ],
    )
    async def test_files_come_first_then_the_worker(self, app: Running, path: str, status: int, body: str) -> None:
        answer = await app.get(path)
        assert (answer.status, answer.body) == (status, body)

    @pytest.mark.parametrize(
        ("path", "to"), [("/index.html", "/"), ("/about.html", "/about"), ("/docs", "/docs/"), ("/about/", "/about")]
    )
    async def test_a_page_has_one_address(self, app: Running, path: str, to: str) -> None:
        answer = await app.get(f"{path}?q=1")
        assert (answer.status, answer.headers["location"]) == (307, f"{to}?q=1")

    async def test_types_and_revalidation(self, app: Running) -> None:
        first = await app.get("/a.css")
        assert first.headers["content-type"] == "text/css; charset=utf-8"
        again = await app.get("/a.css", If_None_Match=first.headers["etag"])
        assert again.status == 304
        part = await app.get("/a.css", Range="bytes=0-3")
        assert (part.status, part.body) == (206, "body")

    async def test_a_single_page_app_answers_page_loads_and_leaves_the_rest_to_the_worker(self, on: Bench) -> None:
        assets = {
            "directory": "public",
            "not_found_handling": "single-page-application",
            "run_worker_first": ["/api/*"],
        }
        app = await serve(on, self.FILES, options={"assets": assets})
        assert (await app.get("/some/route", Sec_Fetch_Mode="navigate")).body == "index"
        assert (await app.get("/api/x", Sec_Fetch_Mode="navigate")).body == "from the worker"
        assert (await app.get("/some/route")).body == "from the worker"

    async def test_the_rules_that_they_bring_are_followed_and_what_configures_a_host_is_not_served(
        self, on: Bench
    ) -> None:
        rules = {
            "public/_redirects": "/old /about 302\n/blog/* https://blog.example/:splat\n/app/* /docs/ 200\n",
            "public/_headers": "/*\n  X-A: 1\n/a.css\n  X-A: 2\n  Cache-Control: immutable\n",
            "public/wrangler.toml": "secret",
            "public/.env": "KEY=1",
        }
        app = await serve(on, {**self.FILES, **rules}, options={"assets": {"directory": "public"}})
        old = await app.get("/old?q=1")
        assert (old.status, old.headers["location"]) == (302, "/about?q=1")
        assert (await app.get("/blog/a%20b")).headers["location"] == "https://blog.example/a%20b"
        assert (await app.get("/app/orders/7")).body == "docs"
        style = await app.get("/a.css")
        assert (style.headers["x-a"], style.headers["cache-control"]) == ("1, 2", "immutable")
        assert "x-a" not in (await app.get("/api/x")).headers
        for path in ("/_redirects", "/_headers", "/wrangler.toml", "/.env"):
            assert (await app.get(path)).body == "from the worker", path

    @pytest.mark.parametrize("folder", ["", "dist/"])
    async def test_an_underscore_worker_has_the_pages_beside_it_and_is_no_page_itself(
        self, on: Bench, folder: str
    ) -> None:
        source = """export default { async fetch(request, env) {
            if (new URL(request.url).pathname === "/api") return new Response("api");
            return env.ASSETS.fetch(request);
        } };"""
        files = {"_worker.js": source, "index.html": "index", "a.css": "style", "package.json": "{}"}
        assets = {"directory": folder or ".", "run_worker_first": True, "not_found_handling": "single-page-application"}
        app = await serve(
            on, {folder + name: text for name, text in files.items()}, f"{folder}_worker.js", {"assets": assets}
        )
        assert (await app.get("/api")).body == "api"
        assert (await app.get("/a.css")).body == "style"
        for path in ("/_worker.js", "/package.json", "/deep/route"):
            assert (await app.get(path)).body == "index", path

    async def test_a_folder_that_is_not_in_the_source_is_told(self, on: Bench) -> None:
        with pytest.raises(RunFailed, match="dist/"):
            await serve(on, self.FILES, options={"assets": {"directory": "dist"}})

    async def test_nothing_of_them_is_left(self, on: Bench, app: Running) -> None:
        assert json.dumps([str(p) for p in on.layout.sites.rglob("a.css")]) != "[]"
        await app.sandbox.destroy(0)
        assert list(on.layout.sites.rglob("a.css")) == []
