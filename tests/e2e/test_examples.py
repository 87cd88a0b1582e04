"""Every folder of examples/, deployed as it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from httpx import Response

from tests.e2e.conftest import Apps
from tests.e2e.instance import CHECKOUT, Instance
from tests.e2e.load import connect

EXAMPLES = CHECKOUT / "examples"
_ROW = re.compile(r"\| \[([a-z0-9-]+)\]\(\1\) \| (fast|general) \| `([a-z0-9-]+)` \|")

Ask = Callable[..., Response]


@dataclass(frozen=True, slots=True)
class Example:
    """A row of examples/README.md."""

    folder: str
    lane: str
    template: str


ROWS = [Example(*found) for found in _ROW.findall((EXAMPLES / "README.md").read_text())]


def _static_site(ask: Ask) -> None:
    assert "Now you have a URL" in ask("/").text
    assert ask("/style.css").headers["content-type"].startswith("text/css")
    assert ask("/favicon.svg").status_code == 200


def _static_spa(ask: Ask) -> None:
    page = ask("/plants/teasel")
    assert (page.status_code, '<div id="app">' in page.text) == (200, True)
    assert ask(re.findall(r'src="([^"]+)"', page.text)[0]).headers["content-type"].startswith("text/javascript")


def _worker_hello(ask: Ask) -> None:
    assert "Hello, you &amp; me!" in ask("/?name=you+%26+me").text.replace("&#38;", "&amp;")
    assert ask("/api/echo", "POST", content="ping").json() == {"received": "ping"}


def _worker_hono(ask: Ask) -> None:
    assert "Team shortcuts" in ask("/").text
    added = ask("/api/shortcuts", "POST", json={"slug": "docs", "url": "https://docs.example/"})
    assert added.status_code == 201
    hop = ask("/go/docs")
    assert (hop.status_code, hop.headers["location"]) == (302, "https://docs.example/")


def _worker_itty(ask: Ask) -> None:
    rolled = ask("/roll/3d6").json()
    assert len(rolled["rolls"]) == 3
    assert rolled["total"] == sum(rolled["rolls"])
    assert ask("/roll/nonsense").status_code == 400


def _worker_assets(ask: Ask) -> None:
    assert "Echo room" in ask("/").text
    assert ask("/room.css").headers["content-type"].startswith("text/css")
    assert "its own assets" in ask("/about").text
    assert ask("/api/headers").json()["host"]
    assert ask("/ws").status_code == 426


def _worker_zod(ask: Ask) -> None:
    assert "What does this meeting cost?" in ask("/").text
    assert ask("/cost?title=Plans&people=6").json() == {"title": "Plans", "personHours": 3}
    refused = ask("/cost?title=&people=1")
    assert (refused.status_code, refused.json()["people"]) == (400, ["one person needs no meeting"])


def _python_http(ask: Ask) -> None:
    assert ask("/", "POST", data={"name": "Grace", "text": "Second!"}).status_code == 303
    assert "Second!" in ask("/").text


def _flask_todo(ask: Ask) -> None:
    assert ask("/add", "POST", data={"title": "water the plants"}).status_code == 302
    assert ask("/api/todos").json() == [{"id": 1, "title": "water the plants", "done": False}]
    assert "water the plants" in ask("/").text
    assert ask("/static/style.css").status_code == 200


def _fastapi_notes(ask: Ask) -> None:
    assert ask("/notes", "POST", json={"text": "remember"}).json()["id"] == 1
    assert [note["text"] for note in ask("/notes").json()] == ["remember"]
    assert ask("/docs").status_code == 200


def _python_websocket(ask: Ask) -> None:
    assert "Chat" in ask("/").text
    assert ask("/who").json() == []


def _django_poll(ask: Ask) -> None:
    page = ask("/")
    assert "Where do we go for lunch?" in page.text
    token = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)[0]
    voted = ask(
        "/1/vote/",
        "POST",
        data={"choice": "2", "csrfmiddlewaretoken": token},
        headers={"Cookie": f"csrftoken={page.cookies['csrftoken']}"},
    )
    assert voted.status_code == 302, voted.text
    assert ask("/results/").json()["Where do we go for lunch?"]["The park, with sandwiches"] == 1
    assert ask("/1/vote/", "POST", data={"choice": "2"}).status_code == 403


def _streamlit(ask: Ask) -> None:
    assert ask("/_stcore/health").text == "ok"
    assert "streamlit" in ask("/").text.lower()


def _node_http(ask: Ask) -> None:
    assert ask("/convert?value=10&from=mi&to=km").json()["result"] == pytest.approx(16.09344)
    assert ask("/convert?value=10&from=mi&to=kg").status_code == 400


def _express_api(ask: Ask) -> None:
    assert ask("/api/books", "POST", json={"title": "Ficciones", "author": "Borges"}).json()["id"] == 4
    assert [book["title"] for book in ask("/api/books?q=borges").json()] == ["Ficciones"]
    assert ask("/api/books/4", "DELETE").status_code == 204


def _node_ws_chat(ask: Ask) -> None:
    assert ask("/api/health").json() == {"ok": True, "people": 0}
    assert "Chat" in ask("/").text


def _fastify_sse(ask: Ask) -> None:
    assert ask("/api/sample").json()["memory"] > 0
    assert "EventSource" in ask("/").text


def _node_sqlite(ask: Ask) -> None:
    kept = ask("/links", "POST", data={"url": "https://example.com/?a=<b>", "note": "later"})
    assert kept.status_code == 303
    assert [link["note"] for link in ask("/api/links").json()] == ["later"]
    assert "&#60;b&#62;" in ask("/").text


def _go_hello(ask: Ask) -> None:
    assert ask("/guests", "POST", data={"name": "Grace <G>"}).status_code == 303
    assert "Grace &lt;G&gt;" in ask("/").text
    assert ask("/api/guests").json() == ["Rob", "Ken", "Grace <G>"]
    assert ask("/static/style.css").status_code == 200


def _procfile_shell(ask: Ask) -> None:
    assert "Still here" in ask("/").text
    assert ask("/status.json").json()["at"].endswith("Z")


CHECKS: dict[str, Callable[[Ask], None]] = {
    "static-site": _static_site,
    "static-spa": _static_spa,
    "worker-hello": _worker_hello,
    "worker-hono-ts": _worker_hono,
    "worker-itty": _worker_itty,
    "worker-assets": _worker_assets,
    "worker-zod": _worker_zod,
    "python-http": _python_http,
    "flask-todo": _flask_todo,
    "fastapi-notes": _fastapi_notes,
    "python-websocket": _python_websocket,
    "django-poll": _django_poll,
    "streamlit-dashboard": _streamlit,
    "node-http": _node_http,
    "express-api": _express_api,
    "node-ws-chat": _node_ws_chat,
    "fastify-sse": _fastify_sse,
    "node-sqlite": _node_sqlite,
    "go-hello": _go_hello,
    "procfile-shell": _procfile_shell,
}
INSTALLED = {"worker-zod"}
"""Workers whose packages are installed, which Node does."""
SOCKETS = {"worker-assets": "/ws", "python-websocket": "/ws?name=Ada", "node-ws-chat": "/chat?name=Ada"}


def test_every_folder_has_its_row_and_its_check() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()} - {"frameworks"}
    assert folders == {row.folder for row in ROWS} == set(CHECKS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("example", ROWS, ids=lambda row: row.folder)
def test_it_is_live_as_its_author_wrote_it(vibed: Instance, apps: Apps, example: Example) -> None:
    _live(vibed, apps, example)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "example", [row for row in ROWS if row.template in ("python-313", "node-24")], ids=lambda row: row.folder
)
def test_it_is_the_same_without_a_warm_process(vibed: Instance, apps: Apps, example: Example) -> None:
    _live(vibed, apps, example, runtime={"warm": False})


def _live(vibed: Instance, apps: Apps, example: Example, **metadata: object) -> None:
    vibed.client.wait_for_template(example.template)
    if example.folder in INSTALLED:
        vibed.client.wait_for_template("node-24")
    deployed = vibed.client.deploy_ready(apps.name(), EXAMPLES / example.folder, settle_s=400, **metadata)
    runtime = vibed.client.app(deployed.app_id)["runtime"]
    assert (runtime["lane"], runtime["template"]) == (example.lane, example.template), runtime["why"]

    def ask(path: str, method: str = "GET", **options: object) -> Response:
        return vibed.client.visit(deployed.app_id, path, method, **options)

    CHECKS[example.folder](ask)


@pytest.mark.parametrize("folder", sorted(SOCKETS))
async def test_its_websocket_answers(vibed: Instance, apps: Apps, folder: str) -> None:
    row = next(row for row in ROWS if row.folder == folder)
    vibed.client.wait_for_template(row.template)
    app = apps.ready(EXAMPLES / folder)
    async with connect(vibed.client, app, SOCKETS[folder]) as socket:
        await socket.send("hello there")
        while "hello there" not in (said := str(await socket.recv())):
            pass
    assert said
