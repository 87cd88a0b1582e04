"""Hostile sources at build: what esbuild is asked to put into a bundle, resolved the way that esbuild resolves.

Either bundling fails, or its output holds nothing of the host: not /etc/passwd, not a secret that every uid of the host
may read, not another app's source, not the process that bundles.
"""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from tests.contract.driver_kit import SUBJECTS, Bench, bench
from tests.hostile.ground import HOST_SECRET, City
from vibed.drivers.workerd.bundling import bundle
from vibed.sandboxes.driver import RunFailed, SandboxLost

pytestmark = [pytest.mark.root, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

WORKER = SUBJECTS["workerd"]
SERVE = "export default { fetch: () => Response.json(x) };"
TEXT = ' with { type: "text" };\n' + SERVE
UP = "../" * 24
# @SECRET@ is a file of the host that holds a JSON string and may be read by everybody
SOURCES: Mapping[str, Mapping[str, str]] = {
    "an absolute path as text": {"worker.ts": 'import x from "/etc/passwd"' + TEXT},
    "a path with dots as text": {"worker.ts": f'import x from "{UP}etc/passwd"' + TEXT},
    "a host file as json": {"worker.ts": 'import x from "@SECRET@";\n' + SERVE},
    "a host file as json with dots": {"worker.ts": f'import x from "{UP}@REST@" with {{ type: "json" }};\n' + SERVE},
    "a host file as bytes": {"worker.ts": 'import x from "@SECRET@" with { type: "bytes" };\n' + SERVE},
    "a file url": {"worker.ts": 'import x from "file://@SECRET@";\n' + SERVE},
    "require": {"worker.ts": 'const x = require("@SECRET@");\n' + SERVE},
    "require.resolve": {"worker.ts": 'const x = require.resolve("@SECRET@");\n' + SERVE},
    "new URL": {"worker.ts": 'const x = new URL("@SECRET@", import.meta.url);\n' + SERVE},
    "a pattern of files": {"worker.ts": f'const x = (n) => import("{UP}etc/" + n);\n' + SERVE},
    "every file of /etc by a pattern": {"worker.ts": 'const x = (n) => require("/etc/" + n + ".conf");\n' + SERVE},
    "tsconfig extends": {"worker.ts": "const x = 1;" + SERVE, "tsconfig.json": '{"extends": "@SECRET@"}'},
    "tsconfig paths": {
        "worker.ts": 'import x from "secret";\n' + SERVE,
        "tsconfig.json": '{"compilerOptions": {"baseUrl": "/", "paths": {"secret": ["@SECRET@"]}}}',
    },
    "tsconfig baseUrl": {
        "worker.ts": 'import x from "@REST@";\n' + SERVE,
        "tsconfig.json": '{"compilerOptions": {"baseUrl": "/", "rootDirs": ["/", "."]}}',
    },
    "package.json browser": {
        "worker.ts": 'import x from "./a.json";\n' + SERVE,
        "a.json": "1",
        "package.json": f'{{"browser": {{"./a.json": "./{UP}@REST@"}}}}',
    },
    "package.json imports": {
        "worker.ts": 'import x from "#x";\n' + SERVE,
        "package.json": f'{{"imports": {{"#x": "./{UP}@REST@"}}}}',
    },
    "a package's exports": {
        "worker.ts": 'import x from "evil";\n' + SERVE,
        "node_modules/evil/package.json": f'{{"name": "evil", "exports": "./{UP}@REST@"}}',
    },
    "a package's main": {
        "worker.ts": 'import x from "evil";\n' + SERVE,
        "node_modules/evil/package.json": f'{{"name": "evil", "main": "{UP}@REST@"}}',
    },
    "plug and play": {
        "worker.ts": 'import x from "evil";\n' + SERVE,
        ".pnp.data.json": json.dumps(
            {
                "enableTopLevelFallback": True,
                "fallbackPool": [["evil", "npm:1"]],
                "packageRegistryData": [
                    [None, [[None, {"packageLocation": "./", "packageDependencies": [["evil", "npm:1"]]}]]],
                    ["evil", [["npm:1", {"packageLocation": f"./{UP}etc/", "packageDependencies": []}]]],
                ],
            }
        ),
    },
    "a source map": {"worker.ts": "const x = 1;" + SERVE + "\n//# sourceMappingURL=@SECRET@"},
    "style sheets": {
        "worker.ts": 'import "./a.css"; const x = 1;' + SERVE,
        "a.css": '@import "@SECRET@"; a { background: url(@SECRET@) }',
    },
    "the bundler's environment": {"worker.ts": 'import x from "/proc/self/environ"' + TEXT},
    "the bundler's memory": {"worker.ts": 'import x from "/proc/self/maps"' + TEXT},
    "its standard input": {"worker.ts": 'import x from "/dev/stdin"' + TEXT},
    "a device without end": {"worker.ts": 'import x from "/dev/zero"' + TEXT},
    "an address": {
        "worker.ts": 'import x from "http://169.254.169.254/latest/meta-data/" with { type: "text" };\n' + SERVE
    },
    "comments for the bundler": {"worker.ts": "/** @jsxImportSource @SECRET@ */\nconst x = <a/>;" + SERVE},
    "brackets without end": {"worker.ts": "(" * 2_000_000},
    "thousands of imports": {"worker.ts": "".join(f'import "./m{n}.js";\n' for n in range(5_000)) + SERVE},
    "types without end": {"worker.ts": "const x: " + "A<" * 500_000},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def on(tmp_path_factory: pytest.TempPathFactory, city: City) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("bundling")) as it:
        secret = it.layout.runtime / "host-secret.json"
        secret.write_text(json.dumps(HOST_SECRET))
        secret.chmod(0o644)
        it.layout.runtime.chmod(0o755)
        yield it
        await asyncio.to_thread(city.unharmed)
        assert it.left() == []


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
async def test_a_bundle_holds_nothing_of_the_host_by(on: Bench, source: Mapping[str, str]) -> None:
    secret = str(on.layout.runtime / "host-secret.json")
    files = {
        name: text.replace("@SECRET@", secret).replace("@REST@", secret.lstrip("/")) for name, text in source.items()
    }
    run = WORKER.run(on, files, app="hostile")
    try:
        output = await bundle(on.host(), on.roots.root("workerd"), run, "worker.ts")
    except (RunFailed, SandboxLost) as refused:
        told = refused.message.encode()
    else:
        told = output
    assert HOST_SECRET.encode() not in told
    assert b"root:x:0" not in told
    assert b"VIBED" not in told
    assert len(told) <= 16 << 20


async def test_an_entry_point_that_looks_like_an_option_is_a_file(on: Bench) -> None:
    for name in ("--serve.ts", "-.ts", "--outfile.ts", "--log-level.ts"):
        run = WORKER.run(on, {name: "export default 1 as number"}, app="hostile")
        assert b"export" in await bundle(on.host(), on.roots.root("workerd"), run, name)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic", "hard"])
@pytest.mark.parametrize("target", ["/etc/passwd", f"{UP}etc/passwd", "/proc/self/root", "/vibed-agent"])
async def test_a_link_in_the_source_that_leads_out_is_refused_before_it_is_bundled(
    on: Bench, kind: bytes, target: str
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        data = ('import x from "./link"' + TEXT).encode()
        member = tarfile.TarInfo("worker.ts")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = kind, target
        tar.addfile(link)
    run = WORKER.run(on, {}, app="hostile")
    Path(run.source).write_bytes(out.getvalue())
    with pytest.raises(RunFailed) as refused:
        await bundle(on.host(), on.roots.root("workerd"), run, "worker.ts")
    assert refused.value.error_code == "InjectFailed"
