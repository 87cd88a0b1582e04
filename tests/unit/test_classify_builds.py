# ruff: noqa: E501 (sources of apps)
"""What has to be built is built where it can be: by which script, and what is run of what that makes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.classify_trees import table_of
from vibed.apps.app import Runtime
from vibed.classify.classifier import classify
from vibed.classify.errors import AmbiguousProject, BuildRequired
from vibed.runtimes.templates import load_templates

TEMPLATES = load_templates()
CAN = frozenset({"python", "node", "build"})
PAGE = '<div id="root"></div><script type="module" src="/src/main.js"></script>'
LISTENS = "import { createServer } from 'node:http'\ncreateServer((q, r) => r.end('x')).listen(process.env.PORT)\n"
NEST = "import { Module } from '@nestjs/common'\n@Module({})\nexport class App {}\n" + LISTENS


def package(**keys: Any) -> str:
    return json.dumps(keys)


def runtime(files: dict[str, str | bytes]) -> Runtime:
    return classify(table_of(files), None, TEMPLATES, CAN).runtime()


VITE = {
    "package.json": package(scripts={"build": "vite build"}, devDependencies={"vite": "7"}, dependencies={"vue": "3"}),
    "index.html": PAGE,
    "src/main.js": "import { createApp } from 'vue'\n",
    "package-lock.json": "{}",
}


def test_a_project_of_a_front_end_tool_is_built_with_all_its_packages() -> None:
    found = runtime(dict(VITE))
    assert (found.lane, found.template, found.kind) == ("fast", "static-nginx", "static")
    assert found.build is not None
    assert found.install is not None
    assert (found.build.script, found.build.template, found.build.site) == ("npm run build", "node-24", True)
    assert found.build.outputs[0] == "dist"
    assert found.install.development
    assert found.install.files == ("package.json", "package-lock.json")


def test_a_page_that_the_build_script_makes_pages_of_is_built_also_where_a_browser_might_show_it() -> None:
    plain = {**VITE, "src/main.js": "import './other.js'\n", "src/other.js": "document.title = 'x'\n"}
    made = runtime(dict(plain))
    assert made.build is not None
    assert "is what its build script makes pages of" in made.why
    assert classify(table_of(dict(plain)), None, TEMPLATES).runtime().entrypoint == "index.html"
    other = {**plain, "package.json": package(scripts={"build": "node icons.js"}, devDependencies={"vite": "7"})}
    assert runtime(dict(other)).build is None


@pytest.mark.parametrize("watcher", ["webpack -d --watch --progress", "npm run pages", "npx tsc -w"])
def test_what_a_development_script_builds_beside_the_server_is_built_before_it(watcher: str) -> None:
    scripts = {"dev": f"{watcher} & nodemon back", "pages": "rollup -c -w", "build": "webpack -p"}
    files = {"package.json": package(scripts=scripts, dependencies={"webpack": "5"}), "back/index.js": LISTENS}
    made = runtime({**files, "index.ejs": "<p>"})
    assert made.build is not None
    assert (made.entrypoint, made.build.script, made.build.site) == ("node back/index.js", "npm run build", False)


def test_a_development_server_beside_the_server_is_no_reason_to_build() -> None:
    scripts = {"dev": "vite & nodemon back", "build": "vite build"}
    files = {"package.json": package(scripts=scripts, dependencies={"vite": "7"}), "back/index.js": LISTENS}
    assert runtime({**files, "readme.md": ""}).build is None


LAUNCHER = """const { execSync } = require('child_process')
const http = require('http')
function isPortInUse(port) {
  return new Promise((resolve) => {
    const server = http.createServer()
    server.once('error', () => resolve(true))
    server.once('listening', () => { server.close(); resolve(false) })
    server.listen(port)
  })
}
isPortInUse(8080).then(() => execSync('npm run dev', { stdio: 'inherit' }))
"""


def test_a_launcher_that_looks_for_a_free_port_and_starts_the_development_server_is_no_server() -> None:
    scripts = {"start": "node go.js", "dev": "vite", "build": "vite build"}
    made = runtime({**VITE, "package.json": package(scripts=scripts, devDependencies={"vite": "7"}), "go.js": LAUNCHER})
    assert made.build is not None
    assert (made.kind, made.build.script) == ("static", "npm run build")


def test_a_server_that_also_starts_the_development_server_is_one() -> None:
    scripts = {"start": "node go.js", "dev": "vite", "build": "vite build"}
    server = LAUNCHER + "http.createServer((q, r) => r.end('x')).listen(process.env.PORT)\n"
    made = runtime({**VITE, "package.json": package(scripts=scripts, devDependencies={"vite": "7"}), "go.js": server})
    assert (made.kind, made.entrypoint) == ("node", "node go.js")


@pytest.mark.parametrize("tool", ["react-scripts", "@vue/cli-service", "webpack"])
def test_a_page_that_waits_for_the_scripts_of_a_build_is_no_built_page(tool: str) -> None:
    page = '<!doctype html><title>x</title><noscript>on</noscript><div id="root">\n<!-- app --></div>'
    files = {"public/index.html": page, "src/index.js": "import React from 'react'\n"}
    made = runtime({"package.json": package(scripts={"build": "x"}, dependencies={tool: "5"}), **files})
    assert made.build is not None
    shown = files | {"public/index.html": page.replace("<!-- app -->", "Hello")}
    assert runtime({"package.json": package(scripts={"build": "x"}, dependencies={tool: "5"}), **shown}).build is None


CHAINED = {"build": "npm run build:api && npm --prefix web run build", "build:api": "cd api && npm run build"}


def test_a_build_script_that_only_calls_those_of_folders_makes_no_project_of_the_root() -> None:
    files = {
        "package.json": package(scripts=CHAINED, main="index.js"),
        "docker-compose.yml": "services:\n  db:\n    image: postgres\n",
    }
    files |= {f"web/{path}": text for path, text in VITE.items()} | {"api/package.json": "{}", "api/src/x.rs": ""}
    with pytest.raises(AmbiguousProject) as refused:
        runtime(files)
    assert "‘api’, ‘web’" in str(refused.value)


@pytest.mark.parametrize(
    ("build", "script"),
    [("cd web && npm run build", "npm run build"), ("cd web && npm install && npm run build", "npm run build")],
)
def test_the_only_project_below_is_built_where_it_lies_unless_the_root_installs_it(build: str, script: str) -> None:
    made = runtime({"package.json": package(scripts={"build": build}), **{f"web/{p}": t for p, t in VITE.items()}})
    assert made.build is not None
    assert made.build.script == script
    assert ("the app is in ‘web’" in "".join(made.notes or ())) == ("install" not in build)


def test_where_nothing_can_be_built_it_is_refused_as_before() -> None:
    with pytest.raises(BuildRequired, match="built first"):
        classify(table_of(dict(VITE)), None, TEMPLATES)


def test_what_was_built_before_is_served_as_it_is() -> None:
    found = runtime({**VITE, "dist/index.html": "<p>built"})
    assert (found.build, found.install, found.root) == (None, None, "dist/")


@pytest.mark.parametrize(
    ("name", "files", "script", "output"),
    [
        ("a tool that no script names", {"package.json": package(devDependencies={"vite": "7"}), "index.html": PAGE, "src/main.js": "import 'a'"}, "vite build", "dist"),
        ("Create React App", {"package.json": package(scripts={"start": "react-scripts start", "build": "react-scripts build"}, dependencies={"react-scripts": "5"}), "public/index.html": "%PUBLIC_URL%"}, "npm run build", "build"),
        ("Astro", {"package.json": package(scripts={"build": "astro build"}, dependencies={"astro": "5"}), "src/pages/index.astro": ""}, "npm run build", "dist"),
        ("Astro below another place", {"package.json": package(scripts={"build": "astro build"}, dependencies={"astro": "5"}), "astro.config.mjs": "export default defineConfig({ base: '/repo' })", "src/pages/index.astro": ""}, "npm run build", "dist"),
        ("Eleventy into another folder", {"package.json": package(scripts={"build": "eleventy --output=www"}, devDependencies={"@11ty/eleventy": "3"}), "index.md": "# x"}, "npm run build", "www"),
        ("the configured folder", {**VITE, "vite.config.js": "export default { build: { outDir: 'site-out' } }"}, "npm run build", "site-out"),
        ("VitePress", {"package.json": package(scripts={"docs:build": "vitepress build"}, devDependencies={"vitepress": "1"}), "index.md": "# x"}, "npm run docs:build", ".vitepress/dist"),
        ("pages for another place", {**VITE, "vite.config.js": "export default { base: '/repo/' }"}, "npm run build -- --base=/", "dist"),
        ("pages for another place by a flag", {**VITE, "package.json": package(scripts={"build": "tsc && vite build --base=/repo/"}, devDependencies={"vite": "7"})}, "npm run build -- --base=/", "dist"),
        ("Next.js as pages", {"package.json": package(scripts={"build": "next build"}, dependencies={"next": "15"}), "next.config.mjs": "export default { output: 'export' }", "app/page.js": ""}, "npm run build", "out"),
        ("SvelteKit as pages", {"package.json": package(scripts={"build": "vite build"}, devDependencies={"@sveltejs/kit": "2", "@sveltejs/adapter-static": "3", "vite": "7"}), "src/app.html": "<p>"}, "npm run build", "build"),
    ],
)  # fmt: skip
def test_a_site_is_built_by(name: str, files: dict[str, str | bytes], script: str, output: str) -> None:
    found = runtime(files).build
    assert found is not None
    assert (found.script, found.outputs[0], found.site) == (script, output, True)


@pytest.mark.parametrize(
    ("name", "files", "started"),
    [
        ("TypeScript by tsc", {"package.json": package(scripts={"build": "tsc", "start": "node dist/index.js"}, devDependencies={"typescript": "5"}), "src/index.ts": "import './db.js'\n" + LISTENS, "src/db.ts": ""}, "node dist/index.js"),
        ("a build in the start script", {"package.json": package(scripts={"build": "tsc", "start": "npm run build && node dist/index.js"}, devDependencies={"typescript": "5"}), "src/index.ts": "import './db.js'\n" + LISTENS, "src/db.ts": ""}, "node dist/index.js"),
        ("a server of pages", {"package.json": package(scripts={"build": "vite build", "start": "node server.js"}, devDependencies={"vite": "7"}), "server.js": LISTENS + "serve('dist')", "index.html": PAGE}, "node server.js"),
        ("Next.js", {"package.json": package(scripts={"build": "next build", "start": "next start"}, dependencies={"next": "15"}), "app/page.js": ""}, "node node_modules/next/dist/bin/next start -H 0.0.0.0 -p 8080"),
        ("Nuxt", {"package.json": package(scripts={"build": "nuxt build"}, dependencies={"nuxt": "4"}), "app.vue": ""}, "node .output/server/index.mjs"),
        ("Nuxt 2", {"package.json": package(scripts={"build": "nuxt build", "start": "nuxt start"}, dependencies={"nuxt": "^2.15.8"}), "pages/index.vue": ""}, "node_modules/.bin/nuxt start"),
        ("Nest", {"package.json": package(scripts={"build": "nest build", "start": "nest start", "start:prod": "node dist/src/main"}, dependencies={"@nestjs/core": "11"}, devDependencies={"@nestjs/cli": "11"}), "src/main.ts": NEST}, "node dist/src/main"),
        ("Nest that says no more", {"package.json": package(scripts={"build": "nest build", "start": "nest start"}, dependencies={"@nestjs/core": "11"}, devDependencies={"@nestjs/cli": "11"}), "src/main.ts": NEST}, "node dist/main.js"),
        ("SvelteKit", {"package.json": package(scripts={"build": "vite build"}, devDependencies={"@sveltejs/kit": "2", "@sveltejs/adapter-node": "5", "vite": "7"}), "src/app.html": "<p>"}, "node build/index.js"),
        ("TanStack Start by Nitro", {"package.json": package(scripts={"build": "vite build"}, dependencies={"@tanstack/react-start": "1"}, devDependencies={"nitro": "3", "vite": "8"}), "src/server.ts": "export default { fetch(request: Request) { return new Response() } }", "src/router.tsx": "export {}"}, "node .output/server/index.mjs"),
        ("SvelteKit into another folder", {"package.json": package(scripts={"build": "vite build"}, devDependencies={"@sveltejs/kit": "2", "@sveltejs/adapter-node": "5", "vite": "7"}), "src/app.html": "<p>", "svelte.config.js": "export default { kit: { adapter: adapter({ out: './made' }) } }"}, "node made/index.js"),
        ("Next.js that stands alone", {"package.json": package(scripts={"build": "next build", "start": "node .next/standalone/server.js"}, dependencies={"next": "15"}), "app/page.js": ""}, "node node_modules/next/dist/bin/next start -H 0.0.0.0 -p 8080"),
        ("React Router", {"package.json": package(scripts={"build": "react-router build", "start": "react-router-serve ./build/server/index.js"}, dependencies={"@react-router/node": "8", "@react-router/serve": "8"}), "app/root.tsx": ""}, "node_modules/.bin/react-router-serve build/server/index.js"),
        ("React Router in a server of its own", {"package.json": package(scripts={"build": "react-router build", "start": "cross-env NODE_ENV=production node server.js"}, dependencies={"@react-router/node": "8", "@react-router/express": "8", "express": "5"}), "app/root.tsx": "", "server.js": LISTENS}, "node server.js"),
        ("Angular with pages made by a server", {"package.json": package(scripts={"start": "ng serve", "build": "ng build", "serve:ssr:web": "node dist/web/server/server.mjs"}, dependencies={"@angular/ssr": "21"}), "src/main.ts": ""}, "node dist/web/server/server.mjs"),
    ],
)  # fmt: skip
def test_a_server_is_built_and_then_started(name: str, files: dict[str, str | bytes], started: str) -> None:
    found = runtime(files)
    assert (found.lane, found.template) == ("general", "node-24")
    assert found.build is not None
    assert not found.build.site
    assert found.entrypoint == started
    assert found.install is not None
    assert found.install.development


def test_nitro_is_told_that_what_it_builds_runs_on_node() -> None:
    files = {
        "package.json": package(
            scripts={"build": "vite build"},
            dependencies={"@tanstack/react-start": "^1.168"},
            devDependencies={"nitro": "3.0.260603-beta", "vite": "^8"},
        ),
        "src/server.ts": "export default { fetch(request: Request) { return new Response() } }",
    }
    found = runtime({**files})
    assert found.build is not None
    assert (found.build.env, found.entrypoint) == ({"NITRO_PRESET": "node-server"}, "node .output/server/index.mjs")


def test_where_sveltekit_chooses_its_adapter_it_is_nodes() -> None:
    files = {
        "package.json": package(
            scripts={"build": "vite build"}, devDependencies={"@sveltejs/kit": "^2.6", "@sveltejs/adapter-auto": "7"}
        ),
        "src/app.html": "<p>",
    }
    found = runtime({**files})
    assert found.build is not None
    assert found.install is not None
    assert (found.build.env, found.build.packages) == ({"GCP_BUILDPACKS": "1"}, ("@sveltejs/adapter-node@^5",))
    assert found.install.wanted == found.build.packages
    assert found.entrypoint == "node build/index.js"


def test_a_source_that_runs_as_it_is_needs_no_build() -> None:
    files = {"package.json": package(scripts={"build": "tsc", "start": "node server.js"}), "server.js": LISTENS}
    assert runtime(dict(files)).build is None


def test_a_framework_that_cannot_run_here_when_it_is_built_is_refused() -> None:
    files = {"package.json": package(scripts={"build": "vite build"}, devDependencies={"@sveltejs/kit": "2"})}
    with pytest.raises(BuildRequired):
        runtime({**files, "src/app.html": "<p>"})
