# ruff: noqa: E501 (sources of apps)
"""Server frameworks with a build of their own: installed, built once, and then run in production mode, with the real
packages. What each page shows is made when it is asked for."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.waiting import eventually

BUILD_S = 560.0

Files = dict[str, str | bytes]


def package(scripts: dict[str, str], dependencies: dict[str, str], **development: str) -> str:
    return json.dumps(
        {"name": "app", "private": True, "type": "module", "scripts": scripts, "dependencies": dependencies, "devDependencies": development}
    )  # fmt: skip


REACT = {"react": "^19.3.1", "react-dom": "^19.3.1"}
NEXT: Files = {
    "package.json": package({"build": "next build", "start": "next start"}, {"next": "^16.4.6", **REACT}),
    "app/layout.js": "export default function Layout({ children }) { return <html><body>{children}</body></html> }\n",
    "app/page.js": "import { headers } from 'next/headers'\nexport default async function Page() { return <p>Hello {(await headers()).get('x-word')}, in {process.env.NODE_ENV}</p> }\n",
}
SVELTEKIT: Files = {
    "package.json": package({"build": "vite build"}, {}, **{"@sveltejs/kit": "^3.2.0", "@sveltejs/adapter-node": "^6.0.1", "@sveltejs/vite-plugin-svelte": "^7.3.1", "svelte": "^5.57.3", "vite": "^8.4.0"}),
    "vite.config.js": "import adapter from '@sveltejs/adapter-node'\nimport { sveltekit } from '@sveltejs/kit/vite'\nexport default { plugins: [sveltekit({ adapter: adapter() })] }\n",
    "src/app.html": "<!doctype html><html><head>%sveltekit.head%</head><body><div>%sveltekit.body%</div></body></html>",
    "src/routes/+page.server.js": "export function load({ request }) { return { word: request.headers.get('x-word'), mode: process.env.NODE_ENV } }\n",
    "src/routes/+page.svelte": "<script>let { data } = $props()</script>\n<p>Hello {data.word}, in {data.mode}</p>\n",
}  # fmt: skip
REACT_ROUTER: Files = {
    "package.json": package({"build": "react-router build", "start": "react-router-serve ./build/server/index.js"}, {"react-router": "^8", "@react-router/node": "^8", "@react-router/serve": "^8", "isbot": "^5.2.3", **REACT}, **{"@react-router/dev": "^8", "vite": "^8.4.0"}),
    "vite.config.js": "import { reactRouter } from '@react-router/dev/vite'\nexport default { plugins: [reactRouter()] }\n",
    "app/root.jsx": "import { Outlet, Scripts } from 'react-router'\nexport default function Root() { return <html><body><Outlet /><Scripts /></body></html> }\n",
    "app/routes.js": "import { index } from '@react-router/dev/routes'\nexport default [index('home.jsx')]\n",
    "app/home.jsx": "export function loader({ request }) { return { word: request.headers.get('x-word'), mode: process.env.NODE_ENV } }\nexport default function Home({ loaderData }) { return <p>Hello {loaderData.word}, in {loaderData.mode}</p> }\n",
}  # fmt: skip
ROWS = {"next": NEXT, "sveltekit": SVELTEKIT, "react-router": REACT_ROUTER}


@pytest.mark.everything
@pytest.mark.timeout(900)
@pytest.mark.parametrize("framework", sorted(ROWS))
def test_it_is_built_once_and_then_run_in_production_mode(vibed: Instance, apps: Apps, framework: str) -> None:
    client, app = vibed.client, apps.name(framework)
    deployed = client.deploy_ready(app, ROWS[framework], settle_s=BUILD_S)
    assert client.ask("GET", f"/v1/apps/{deployed.app_id}")["runtime"]["template"] == "node-24"

    def shown() -> str:
        page = client.http.get("/", headers={"Host": f"{app}.localhost:{vibed.port}", "X-Word": "visitor"})
        # what frameworks put between the texts that they join
        return page.text.replace("<!-- -->", "").replace("<!---->", "").replace("<!--[-->", "").replace("<!--]-->", "")

    eventually(lambda: "Hello visitor, in production" in shown(), f"{framework} answers: {shown()[:500]}", within_s=30)
    layers = client.ask("GET", "/v1/layers")["items"]
    client.deploy_ready(app, ROWS[framework], settle_s=60)
    assert "Hello visitor, in production" in shown()
    assert {one["key"]: one["builds"] for one in client.ask("GET", "/v1/layers")["items"]} == {
        one["key"]: one["builds"] for one in layers
    }
