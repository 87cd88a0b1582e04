"""What is compiled and bundled on a cluster: packages in C, programs in Go, workers. Builders are pods without network,
which are sent what they work with.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from secrets import token_hex

import pytest
import pytest_asyncio

from tests.cluster.cluster import Cluster
from tests.cluster.installed import Installed, in_thread, installed
from tests.cluster.servers import SERVER
from tests.contract.fake_registry import FakeRegistry, fake_registry, go_module, npm_package
from tests.contract.test_layers import addon, compiled
from tests.e2e.waiting import eventually
from vibed.drivers.agent_sandbox.claims import BUILDER_APP

pytestmark = [pytest.mark.root, pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module")]

WORDS = "example.com/words"
MOD = f"module app\n\ngo 1.20\n\nrequire {WORDS} v1.0.0\n"
MAIN = f"""package main

import (
	"fmt"
	"net/http"
	"os"

	"{WORDS}"
)

func main() {{
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {{ fmt.Fprint(w, words.Say()) }})
	http.ListenAndServe(":"+os.Getenv("PORT"), nil)
}}
"""
SAY = 'package words\n\nfunc Say() string { return "tiny" }\n'
SAY_IN_C = """package words

// static const char *say(void) { return "by C"; }
import "C"

func Say() string { return C.GoString(C.say()) }
"""


@pytest.fixture(scope="module")
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as it:
        it.files["odd-1.0.tar.gz"] = compiled()
        it.packages["addon"] = {"1.0.0": addon()}
        fit = {
            "package.json": json.dumps(
                {"name": "fit", "version": "1.0.0", "type": "module", "exports": {"workerd": "./w.js"}}
            ),
            "w.js": "export const where = 'an isolate'",
        }
        it.packages["fit"] = {"1.0.0": npm_package(fit)}
        it.modules[WORDS] = {
            "v1.0.0": go_module(WORDS, "v1.0.0", {"a.go": SAY}),
            "v1.1.0": go_module(WORDS, "v1.1.0", {"a.go": SAY_IN_C}),
        }
        yield it


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vibed(vibed_cluster: Cluster, registry: FakeRegistry) -> AsyncIterator[Installed]:
    namespace = vibed_cluster.namespace(f"builds-{token_hex(3)}")
    async with installed(
        namespace,
        pools="static-nginx=1,python-313=1,node-24=1,go-123=1,workerd=1",
        rooted=True,
        told={
            "PIP_INDEX_URL": registry.index,
            "NPM_CONFIG_REGISTRY": registry.npm,
            "GOPROXY": f"{registry.url}/go",
            "GONOSUMDB": "*",
        },
    ) as made:
        yield made


async def test_a_package_in_c_is_compiled_and_is_there(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        files = {"requirements.txt": "odd\n", "app.py": f"import odd\nSAYS = str(odd.seven())\n{SERVER}"}
        client.deploy_ready("in-c", files, settle_s=200)
        assert client.visit("in-c").text == "7"

    await in_thread(use)


async def test_an_addon_of_node_is_compiled_and_its_server_serves(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        code = "require('http').createServer((_, a) => a.end(require('addon')())).listen(process.env.PORT)"
        files = {
            "package.json": json.dumps({"dependencies": {"addon": "^1.0.0"}, "scripts": {"start": "node server.js"}}),
            "server.js": code,
        }
        client.deploy_ready("addon", files, settle_s=200)
        assert client.visit("addon").text == "seven"

    await in_thread(use)


async def test_a_program_in_go_is_compiled_with_its_modules_once_for_the_same_source(
    vibed: Installed, registry: FakeRegistry
) -> None:
    def use() -> None:
        client = vibed.client
        files = {"go.mod": MOD, "main.go": MAIN}
        client.deploy_ready("in-go", files, settle_s=200)
        assert client.visit("in-go").text == "tiny"
        assert f"/go/{WORDS}/@v/v1.0.0.zip" in registry.paths()
        asked = len(registry.asked)
        client.deploy_ready("again-in-go", files, settle_s=120)
        assert client.visit("again-in-go").text == "tiny"
        assert len(registry.asked) == asked, "nothing was compiled again"

    await in_thread(use)


async def test_a_module_of_go_that_calls_c_is_compiled_with_compilers(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        client.deploy_ready("go-in-c", {"go.mod": MOD.replace("v1.0.0", "v1.1.0"), "main.go": MAIN}, settle_s=200)
        assert client.visit("go-in-c").text == "by C"

    await in_thread(use)


async def test_what_go_does_not_compile_is_told_with_its_line(vibed: Installed) -> None:
    def use() -> None:
        failed = vibed.client.deploy("no-go", {"go.mod": MOD, "main.go": MAIN.replace("Say", "Shout")}, settle_s=120)
        assert (failed.phase, failed.reason) == ("Failed", "BuildFailed")
        assert "main.go:12: undefined: words.Shout" in failed.message

    await in_thread(use)


async def test_a_worker_is_bundled_with_its_packages(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        source = "import { where } from 'fit'\nexport default { fetch: (): Response => new Response(where) }\n"
        files = {
            "package.json": json.dumps({"dependencies": {"fit": "^1.0.0"}}),
            "wrangler.toml": 'name = "w"\nmain = "src/index.ts"\n',
            "src/index.ts": source,
        }
        client.deploy_ready("worker", files, settle_s=120)
        assert client.visit("worker").text == "an isolate"
        eventually(lambda: not vibed.claims(BUILDER_APP), "no builder is left", within_s=30)

    await in_thread(use)
