"""Projects of several packages: real managers in real builder sandboxes, and what runs then, from one archive."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.driver_kit import Subject
from tests.contract.fake_registry import FakeRegistry, fake_registry, npm_package
from tests.contract.test_layers import BACKEND, Maker, every, making, one
from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.runtimes.builds.provider import Builds
from vibed.runtimes.builds.store import BuiltStore
from vibed.runtimes.layers.layer import Layer
from vibed.sources.reader import read_table

from .test_builds import contents

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

ROOT = {"name": "acme", "private": True, "workspaces": ["packages/*", "apps/*"]}
SHARED = {"name": "@acme/shared", "version": "1.0.0", "main": "index.js", "dependencies": {"tiny": "^1"}}
API = {
    "name": "@acme/api",
    "version": "1.0.0",
    "dependencies": {"tiny": "^2", "@acme/shared": "*"},
    "scripts": {"start": "node index.js"},
}
PRINTS = "console.log(require('tiny'), require('@acme/shared'), require.resolve('@acme/shared'))"
SERVES = f"{PRINTS}\nif (process.env.PORT) require('http').createServer().listen(process.env.PORT)"
FILES = {
    "packages/shared/package.json": json.dumps(SHARED),
    "packages/shared/index.js": "module.exports = 'shared with ' + require('tiny')",
    "apps/api/package.json": json.dumps(API),
    "apps/api/index.js": SERVES,
}
PNPM = "packages:\n  - packages/*\n  - 'apps/*'\n"


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as it:
        it.packages["tiny"] = {
            f"{major}.0.0": npm_package(
                {"package.json": f'{{"name": "tiny", "version": "{major}.0.0"}}', "index.js": f"module.exports={major}"}
            )
            for major in (1, 2)
        }
        yield it


@pytest.fixture
async def maker(tmp_path: Path, registry: FakeRegistry, subject: Subject) -> AsyncIterator[Maker]:
    async with making(tmp_path, registry, subject) as it:
        yield it


async def decided(maker: Maker, files: dict[str, str]) -> tuple[Decision, Layer]:
    """How an archive is run, and what was installed for it."""
    decision = classify(read_table(maker.on.archive(files)), None, None, installs=("node", "build", "python"))
    if decision.install is None:
        # nothing is known of templates here
        decision = classify(
            read_table(maker.on.archive(files)), None, maker_templates(), installs=("node", "build", "python")
        )
    assert decision.install is not None
    return decision, await maker.provide(decision.install, files)


def maker_templates() -> dict[str, Any]:
    """Templates with nothing in them but their languages."""

    class Facts:
        def __init__(self, kind: str, version: str) -> None:
            self.lane, self.kind, self.version = "general", kind, version
            self.packages: dict[str, str] = {}

    return {"node-24": Facts("node", "24"), "python-313": Facts("python", "3.13")}


async def ran(maker: Maker, layer: Layer, files: dict[str, str], line: str) -> str:
    """What a line of the shell prints in the app's folder."""
    return await maker.job(layer, ("sh", "-c", line), files)


def scenario(tool: str) -> dict[str, str]:
    root: dict[str, Any] = dict(ROOT)
    files = dict(FILES)
    if tool == "pnpm":
        del root["workspaces"]
        files["pnpm-workspace.yaml"] = PNPM
        files["apps/api/package.json"] = files["apps/api/package.json"].replace('"*"', '"workspace:*"')
    if tool.startswith("yarn"):
        root["packageManager"] = {"yarn": "yarn@1.22.22", "yarn-4": "yarn@4.5.0"}[tool]
    return {"package.json": json.dumps(root), **files}


@one
@pytest.mark.parametrize("tool", ["npm", "pnpm", "yarn", "yarn-4"])
async def test_the_packages_of_a_workspace_are_found_where_they_lie(maker: Maker, tool: str) -> None:
    files = scenario(tool)
    decision, layer = await decided(maker, files)
    assert decision.rule == "workspace"
    line = f"PORT= ; {decision.shell}".replace("exec ", "")
    assert await ran(maker, layer, files, line) == "2 shared with 1 /app/packages/shared/index.js"


@one
async def test_with_pnpm_each_package_has_what_it_names_in_its_own_folder(maker: Maker) -> None:
    types = npm_package({"package.json": '{"name": "@types/tiny", "version": "1.0.0"}', "index.d.ts": "export {}"})
    maker.registry.packages["@types/tiny"] = {"1.0.0": types}
    files = scenario("pnpm")
    shared = {**SHARED, "devDependencies": {"@types/tiny": "*"}}
    files["packages/shared/package.json"] = json.dumps({**shared, "dependencies": {"tiny": "^1", "@types/tiny": "*"}})
    _, layer = await decided(maker, files)
    looks = "cat packages/shared/node_modules/@types/tiny/index.d.ts; cat */*/node_modules/tiny/index.js"
    assert await ran(maker, layer, files, looks) == "export {}module.exports=2module.exports=1"


@every
async def test_a_change_of_a_workspaces_code_installs_nothing(maker: Maker) -> None:
    files = scenario("npm")
    _, layer = await decided(maker, files)
    done = list(maker.steps.done)
    changed = {**files, "packages/shared/index.js": "module.exports = 'changed, and ' + require('tiny')"}
    _, again = await decided(maker, changed)
    assert (again.key, maker.steps.done) == (layer.key, done)
    assert (await ran(maker, again, changed, "cd apps/api && PORT= node index.js")).startswith("2 changed, and 1")
    assert (await maker.provide((await decided(maker, files))[0].install, files, owner="bob")).key != layer.key  # type: ignore[arg-type]


@one
async def test_a_folder_beside_an_app_is_found_from_it(maker: Maker) -> None:
    api = {**API, "dependencies": {"@acme/shared": "file:../shared", "tiny": "^2"}}
    files = {
        "server/package.json": json.dumps(api),
        "server/index.js": SERVES,
        "shared/package.json": FILES["packages/shared/package.json"].replace("^1", ">=1"),
        "shared/index.js": FILES["packages/shared/index.js"],
        "package.json": json.dumps({"name": "x", "scripts": {"start": "node server/index.js"}}),
    }
    _, layer = await decided(maker, files)
    line = "PORT= node server/index.js && cd server && PORT= node index.js"
    assert await ran(maker, layer, files, line) == "\n".join(["2 shared with 2 /app/shared/index.js"] * 2)


@one
async def test_what_a_postinstall_script_of_the_project_makes_is_there(maker: Maker) -> None:
    root = {**ROOT, "scripts": {"postinstall": "mkdir -p node_modules/made && cp word.js node_modules/made/index.js"}}
    files = {**FILES, "package.json": json.dumps(root), "word.js": "module.exports = 'generated'"}
    _, layer = await decided(maker, files)
    assert await ran(maker, layer, files, "node -p 'require(\"made\")'") == "generated"
    assert (await ran(maker, layer, files, "cd apps/api && PORT= node index.js")).startswith("2 shared with 1")


@one
async def test_a_token_of_the_project_is_read_by_no_package(maker: Maker) -> None:
    nosy = {"name": "nosy", "version": "1.0.0", "scripts": {"install": "cat /app/.npmrc /layers/out/* > seen || true"}}
    maker.registry.packages["nosy"] = {"1.0.0": npm_package({"package.json": json.dumps(nosy)})}
    root = {**ROOT, "dependencies": {"nosy": "*"}, "scripts": {"postinstall": "true"}}
    npmrc = "save-exact=true\n//registry.example/:_authToken=swordfish\n"
    files = {**FILES, "package.json": json.dumps(root), ".npmrc": npmrc}
    _, layer = await decided(maker, files)
    seen = await ran(maker, layer, files, "cat node_modules/nosy/seen")
    assert "save-exact" in seen
    assert "swordfish" not in seen


@one
async def test_pages_of_a_workspace_are_built_behind_what_they_need(maker: Maker) -> None:
    shared = {**SHARED, "main": "made/index.js", "scripts": {"build": "mkdir made && cp source.js made/index.js"}}
    page = "mkdir dist && node -e \"console.log('<p>' + require('@acme/shared'))\" > dist/index.html"
    web = {"name": "web", "devDependencies": {"vite": "^1", "@acme/shared": "*"}, "scripts": {"build": page}}
    maker.registry.packages["vite"] = {"1.0.0": npm_package({"package.json": '{"name": "vite", "version": "1.0.0"}'})}
    files = {
        "package.json": json.dumps({**ROOT, "scripts": {"build": "turbo build"}}),
        "packages/shared/package.json": json.dumps(shared),
        "packages/shared/source.js": FILES["packages/shared/index.js"],
        "apps/web/package.json": json.dumps(web),
        "apps/web/index.html": '<script type="module" src="/src/main.jsx"></script>',
        "apps/web/src/main.jsx": "import '@acme/shared'",
    }
    decision, layer = await decided(maker, files)
    assert decision.made is not None
    builds = Builds(BuiltStore(maker.on.layout.home), maker.steps, base=maker.layers._base)
    builds.prepare()
    built = await builds.provide(
        decision.made, layer=layer, source=maker.on.archive(files), source_digest="d", strip="", env={},
        owner="ann", app_id="an-app", log_dir=maker.on.scratch / "log", on_step=lambda step: None, wanted=lambda: True,
    )  # fmt: skip
    await builds.close()
    assert contents(built) == {"index.html": "<p>shared with 1\n"}


@one
async def test_folders_that_python_is_to_install_in_place_are_there(maker: Maker) -> None:
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    project += '[project]\nname = "odd"\nversion = "1.0"\n'
    lib = {"libs/odd/pyproject.toml": project, "libs/odd/backend.py": BACKEND.format(code="pass")}
    serves = (
        "from http.server import HTTPServer, SimpleHTTPRequestHandler as H\nHTTPServer(('', 1), H).serve_forever()\n"
    )
    app = {"app.py": f"import odd\nprint(odd.WORD)\n{serves}"}
    member = '[project]\nname = "x"\nversion = "1"\ndependencies = ["odd"]\n[tool.uv.sources]\nodd = { %s }\n'
    for files in (
        {"requirements.txt": "-e ./libs/odd\n"},
        {"requirements.txt": "./libs/odd\n"},
        {"pyproject.toml": member % 'path = "libs/odd", editable = true'},
        {"pyproject.toml": member % "workspace = true" + '[tool.uv.workspace]\nmembers = ["libs/*"]\n'},
    ):
        whole = {**app, **lib, **files}
        _, layer = await decided(maker, whole)
        assert await ran(maker, layer, whole, "python3 -c 'import odd; print(odd.WORD)'") == "odd"
