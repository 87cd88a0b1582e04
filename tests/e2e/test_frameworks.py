"""The frameworks of `vibed.classify.python_frameworks` and Node's, as their first pages show them, with real packages.

Each folder of examples/frameworks is deployed twice: with nothing installed, and again. A few are in every run, the
others are what `make test-all` adds.
"""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Apps
from tests.e2e.instance import CHECKOUT, Instance
from tests.e2e.waiting import eventually
from vibed.classify.python_frameworks import FRAMEWORKS

EXAMPLES = CHECKOUT / "examples" / "frameworks"
PAGES = {
    "aiohttp": "Hello from aiohttp!",
    "blacksheep": "Hello from BlackSheep!",
    "bottle": "Hello from Bottle!",
    "bun": "Hello from Bun!",
    "chainlit": "<title>Assistant</title>",
    "cherrypy": "Hello from CherryPy!",
    "connexion": "Hello from Connexion!",
    "dash": "<title>Greeter</title>",
    "django": "Hello from Django!",
    "elysia": "Hello from Elysia!",
    "express": "Hello from Express!",
    "falcon": "Hello from Falcon!",
    "fastapi": "Hello from FastAPI!",
    "fastify": "Hello from Fastify!",
    "fasthtml": "Hello from FastHTML!",
    "flask": "Hello from Flask!",
    "flet": "flet",
    "gradio": "Greeter",
    "hapi": "Hello from hapi!",
    "hono": "Hello from Hono!",
    "koa": "Hello from Koa!",
    "litestar": "Hello from Litestar!",
    "marimo": "marimo",
    "mesop": "mesop",
    "microdot": "Hello from Microdot!",
    "nicegui": "<title>Greeter</title>",
    "panel": "<title>Greeter</title>",
    "pyramid": "Hello from Pyramid!",
    "quart": "Hello from Quart!",
    "robyn": "Hello from Robyn!",
    "sanic": "Hello from Sanic!",
    "shiny": "<title>Greeter</title>",
    "solara": "solara",
    "starlette": "Hello from Starlette!",
    "streamlit": "Streamlit",
    "taipy": "<title>Greeter</title>",
    "tornado": "Hello from Tornado!",
    "webpy": "Hello from web.py!",
}
"""Words of the page, by folder."""
PATHS = {"panel": "/app"}
"""Of the page, where it is not `/`."""
OFTEN = frozenset({"dash", "litestar", "robyn", "fasthtml", "hapi"})
"""Those of every run: small ones, each started and told to stop in another way."""
ELSEWHERE = {
    "reflex": "refused in words",
    "flask_openapi3": "as flask",
    "apiflask": "as flask",
    "flask_socketio": "as flask",
    "django.core.asgi": "as starlette",
    "socketio": "as starlette",
    "falcon.asgi": "as starlette",
    "werkzeug": "as flask",
    "web": "webpy",
    "aiohttp.web": "aiohttp",
}
"""Rows without a folder of their name."""
INSTALL_S = 400.0
_STOPPED_WITHIN_S = 30.0


def _rows() -> list[str]:
    names = [row.module for row in FRAMEWORKS]
    return names[: names.index("http.server")]


def test_every_row_of_the_table_has_its_folder_and_every_folder_its_page() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert folders == set(PAGES)
    assert set(_rows()) - folders == set(ELSEWHERE)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name",
    [name if name in OFTEN else pytest.param(name, marks=pytest.mark.everything) for name in sorted(PAGES)],
)
def test_it_is_installed_served_stopped_in_its_own_way_and_at_once_there_again(
    vibed: Instance, apps: Apps, name: str
) -> None:
    client, app = vibed.client, apps.name(name)
    client.wait_for_template("python-313")
    client.wait_for_template("node-24")
    first = client.deploy_ready(app, EXAMPLES / name, settle_s=INSTALL_S)
    path = PATHS.get(name, "/")
    page = client.visit(app, path)
    assert (page.status_code, PAGES[name] in page.text) == (200, True), page.text[:2000]
    installed = [event["reason"] for event in client.events(app)].count("BuildingDependencies")
    again = client.deploy_ready(app, EXAMPLES / name, env=[{"name": "AGAIN", "value": "1"}])
    assert again.number == first.number + 1
    assert [event["reason"] for event in client.events(app)].count("BuildingDependencies") == installed
    assert PAGES[name] in client.visit(app, path).text

    def ended() -> str:
        told = [line["text"] for line in client.logs(app, tail=2000) if (line["run"], line["stream"]) == (1, "system")]
        drained = next((at for at, text in enumerate(told) if text.startswith("drained: ")), len(told))
        return next((text for text in told[drained:] if text.startswith(("exited with", "ended by"))), "")

    last = eventually(ended, "the first one has ended", within_s=_STOPPED_WITHIN_S)
    assert last != "ended by SIGKILL", client.log_text(app)
