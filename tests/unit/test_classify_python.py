# ruff: noqa: E501 (tables of inputs)
"""Python servers without a framework, and which objects and functions are an app."""

from __future__ import annotations

import base64
import os

import pytest
from classify_trees import TEMPLATES, table_of

from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.classify.errors import ClassifyError

Files = dict[str, str | bytes]
FLASK = "from flask import Flask\n"
WSGI = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'x']\n"
HANDLER = "import asyncio\nasync def handle(reader, writer):\n    writer.close()\n"


def decided(files: Files) -> Decision:
    return classify(table_of(files), None, TEMPLATES)


SERVERS: list[tuple[str, Files, str]] = [
    ("a WSGI callable", {"wsgi.py": WSGI}, "gunicorn wsgi:application"),
    ("a WSGI callable of another name", {"app.py": WSGI.replace("application", "hello")}, "gunicorn app:hello"),
    (
        "an object that is a WSGI callable",
        {
            "app.py": "class Site:\n    x = 1\n\n    def __call__(self, environ, start_response):\n        return []\n\nsite = Site()\n"
        },
        "gunicorn app:site",
    ),
    ("an ASGI callable", {"main.py": "async def app(scope, receive, send):\n    await send({})\n"}, "uvicorn main:app"),
    (
        "an object that is an ASGI callable",
        {
            "main.py": "class App:\n    async def __call__(self, scope, receive, send):\n        pass\napplication = App()\n"
        },
        "uvicorn main:application",
    ),
    (
        "wsgiref",
        {
            "app.py": "from wsgiref.simple_server import make_server\n"
            + WSGI
            + "make_server('', 8000, application).serve_forever()\n"
        },
        "python3 app.py",
    ),
    (
        "wsgiref in a with-block",
        {
            "app.py": "from wsgiref.simple_server import make_server\n"
            + WSGI
            + "with make_server('', 8000, application) as server:\n    server.handle_request()\n"
        },
        "python3 app.py",
    ),
    (
        "asyncio.start_server",
        {
            "main.py": HANDLER
            + "async def main():\n    server = await asyncio.start_server(handle, '', 8888)\n    await server.serve_forever()\nasyncio.run(main())\n"
        },
        "python3 main.py",
    ),
    (
        "a loop's create_server",
        {
            "main.py": "import asyncio\nloop = asyncio.new_event_loop()\nloop.run_until_complete(loop.create_server(P, '', 80))\nloop.run_forever()\n"
        },
        "python3 main.py",
    ),
    (
        "a loop that accepts",
        {
            "server.py": "import socket\ns = socket.socket()\ns.bind(('', 8000))\ns.listen()\nwhile True:\n    c, _ = s.accept()\n    c.close()\n"
        },
        "python3 server.py",
    ),
    (
        "a function that accepts",
        {
            "server.py": "import socket\ndef serve():\n    s = socket.create_server(('', 9000))\n    while True:\n        s.accept()\nserve()\n"
        },
        "python3 server.py",
    ),
    (
        "one in a file that is imported",
        {
            "main.py": "import net\nif __name__ == '__main__':\n    net.main()\n",
            "net.py": HANDLER
            + "def main():\n    asyncio.run(asyncio.start_server(handle, '', 1))\nx = len('')\nprint('net')\n",
        },
        "python3 main.py",
    ),
    (
        "socketserver",
        {
            "main.py": "import socketserver\nwith socketserver.ThreadingTCPServer(('', 9000), H) as s:\n    s.serve_forever()\n"
        },
        "python3 main.py",
    ),
    (
        "tornado in a coroutine",
        {
            "main.py": "import asyncio, tornado.web\nasync def main():\n    tornado.web.Application([]).listen(8888)\n    await asyncio.Event().wait()\nasyncio.run(main())\n"
        },
        "python3 main.py",
    ),
    (
        "hypercorn in the program",
        {
            "main.py": "import asyncio\nfrom hypercorn.asyncio import serve\nasyncio.run(serve(app, c))\n",
            "vendor/hypercorn/asyncio.py": "",
        },
        "python3 main.py",
    ),
    (
        "CherryPy",
        {"main.py": "import cherrypy\ncherrypy.quickstart(Root())\n", "vendor/cherrypy/__init__.py": ""},
        "python3 main.py",
    ),
]


@pytest.mark.parametrize(("files", "command"), [row[1:] for row in SERVERS], ids=[row[0] for row in SERVERS])
def test_a_server_without_a_framework_is_one(files: Files, command: str) -> None:
    found = decided(files)
    program, _, target = command.partition(" ")
    assert found.rule == "python-server"
    assert (found.argv[2] if program != "python3" else "python3") == program
    assert target in found.argv


@pytest.mark.parametrize(
    "text",
    [
        "import pandas\nprint(pandas.DataFrame())",
        "import socket\ns = socket.socket()\ns.connect(('x', 1))\nprint(s)",
        WSGI.replace("environ", "request"),
    ],
)
def test_what_is_no_server_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ClassifyError, match="starts no server"):
        decided({"main.py": text})


@pytest.mark.parametrize("text", ["import net\nnet.listen_on(8000)\n", "import loop\nloop.serve_all('0.0.0.0')\n"])
def test_what_may_be_a_server_is_not_said_to_be_none(text: str) -> None:
    with pytest.raises(ClassifyError, match="not as a server that is known here") as caught:
        decided({"main.py": text})
    assert "python3 main.py" in str(caught.value.hint)


APPS: list[tuple[str, Files, str | None]] = [
    (
        "a factory",
        {
            "app.py": FLASK
            + "def create_app(config=None, *, debug: bool = False) -> Flask:\n    app = Flask('x')\n\n    @app.route('/')\n    def x(): pass\n\n    return app\n"
        },
        "app:create_app()",
    ),
    (
        "a factory that calls another",
        {
            "app.py": FLASK
            + "from shop import create_app\ndef make_wsgi_app():\n    return create_app('production')\n",
            "shop.py": "def create_app(name): return name\n",
        },
        "app:make_wsgi_app()",
    ),
    (
        "what makes a configuration",
        {
            "app.py": FLASK
            + "def create_app_config():\n    return {'app': Flask}\ndef create_app():\n    return Flask('x')\n"
        },
        "app:create_app()",
    ),
    (
        "what answers a text",
        {"app.py": FLASK + "def get_app_env() -> str:\n    return 'x'\nserver = Flask('x')\n"},
        "app:server",
    ),
    (
        "what answers a text by an app's name",
        {"app.py": FLASK + "def get_app() -> str:\n    return Flask('x').name\n"},
        None,
    ),
    ("a factory that wants arguments", {"app.py": FLASK + "def create_app(config):\n    return Flask('x')\n"}, None),
    (
        "a dictionary of another file",
        {"server.py": FLASK + "from settings import app\n", "settings.py": "app = {'a': 1}\n"},
        None,
    ),
    (
        "an app of another file",
        {
            "wsgi.py": "from shop import app\n",
            "shop/__init__.py": "from .core import app\n",
            "shop/core.py": FLASK + "app = Flask('x')\n",
        },
        "wsgi:app",
    ),
    (
        "an app under another name",
        {"wsgi.py": "from shop import site as application\n", "shop/__init__.py": FLASK + "site = Flask('x')\n"},
        "wsgi:application",
    ),
]


@pytest.mark.parametrize(("files", "target"), [row[1:] for row in APPS], ids=[row[0] for row in APPS])
def test_an_app_is_what_is_made_as_one(files: Files, target: str | None) -> None:
    if target is None:
        with pytest.raises(ClassifyError):
            decided(files)
    else:
        assert decided(files).argv[-1] == target


def test_a_server_behind_an_inlined_picture_is_one() -> None:
    picture = base64.b64encode(os.urandom(300_000)).decode()
    node = f"const http = require('http')\nconst logo = 'data:image/png;base64,{picture}'\nhttp.createServer(f).listen(3000)\n"
    assert decided({"server.js": node}).argv == ("node", "server.js")
    lines = base64.encodebytes(os.urandom(300_000)).decode()
    assert decided({"app.py": f"LOGO = '''\n{lines}'''\n{FLASK}app = Flask('x')\napp.run()\n"}).argv == (
        "python3",
        "app.py",
    )


def test_where_a_package_lay_on_the_machine_that_listed_it_is_nothing_that_is_asked_for() -> None:
    listed = "flask @ file:///home/conda/feedstock_root/build_artifacts/flask_1/work\nrequests\n"
    found = decided({"app.py": FLASK + "import requests\napp = Flask('x')\n", "requirements.txt": listed})
    assert (found.packages, found.notes) == (("flask", "requests"), ())


def test_only_what_has_a_console_is_said_to_show_one() -> None:
    flask = decided({"app.py": FLASK + "app = Flask('x')\napp.run(debug=True)\n"})
    bottle = decided({"app.py": "import bottle\nbottle.run(debug=True)\n"})
    assert ["console" in note for found in (flask, bottle) for note in found.notes] == [True, False]


def test_a_requirement_that_nothing_uses_is_told_and_no_more() -> None:
    found = decided({"app.py": FLASK + "app = Flask('x')\n", "requirements.txt": "flask\nlxml\ngeopandas==1.0\n"})
    assert found.notes == ("asked for, not there, and used by nothing that was seen: lxml, geopandas==1.0",)


USED: list[tuple[str, Files]] = [
    ("by a word", {"app.py": FLASK + "app = Flask('x')\nBeautifulSoup(page, 'lxml')\n"}),
    (
        "by Django's settings",
        {
            "manage.py": "import django\nsetdefault('DJANGO_SETTINGS_MODULE', 's.settings')\n",
            "s/settings.py": "INSTALLED_APPS = ['lxml']\n",
        },
    ),
    ("by a page of Streamlit's", {"app.py": "import streamlit as st\n", "pages/one.py": "import lxml\n"}),
    ("by a command", {"app.py": FLASK + "app = Flask('x')\n", "Procfile": "web: gunicorn -k lxml app:app\n"}),
]


@pytest.mark.parametrize("files", [row[1] for row in USED], ids=[row[0] for row in USED])
def test_a_requirement_that_something_names_is_missing(files: Files) -> None:
    with pytest.raises(ClassifyError, match="lxml"):
        decided({**files, "requirements.txt": "flask\ndjango\nstreamlit\nlxml\n"})
