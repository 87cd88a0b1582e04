# ruff: noqa: E501 (tables of inputs)
"""How an app of each framework is started: by its own command, by its file, or by a server on what the file makes."""

from __future__ import annotations

import pytest
from classify_trees import table_of

from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.classify.errors import ClassifyError

Files = dict[str, str | bytes]
MAIN = "if __name__ == '__main__':\n    "
UVICORN = "python3 -m uvicorn {} --host 0.0.0.0 --port 8080"
GUNICORN = "python3 -m gunicorn -b 0.0.0.0:8080 --threads 8 {}"


def decided(files: Files) -> Decision:
    return classify(table_of(files))


STARTED: list[tuple[str, str, str]] = [
    ("NiceGUI, as it is written since it forks", "from nicegui import ui\nui.label('x')\nif __name__ in {'__main__', '__mp_main__'}:\n    ui.run()\n", "python3 app.py"),
    ("NiceGUI in a function", "from nicegui import ui\ndef go():\n    ui.run(port=8081)\nif __name__ in ('__main__', '__mp_main__'):\n    go()\n", "python3 app.py"),
    ("NiceGUI at the end", "from nicegui import ui\nui.label('x')\nui.run()\n", "python3 app.py"),
    ("NiceGUI in FastAPI", "from fastapi import FastAPI\nfrom nicegui import ui\napp = FastAPI()\nui.run_with(app)\n", UVICORN.format("app:app")),
    ("marimo, which writes a __main__ block that only computes", "import marimo\napp = marimo.App()\n" + MAIN + "app.run()\n", "python3 -m marimo run app.py --host 0.0.0.0 --port 8080 --headless --no-token"),
    ("Panel", "import panel as pn\npn.Row('x').servable()\n", "python3 -m panel serve app.py --address 0.0.0.0 --port 8080 --allow-websocket-origin=*"),
    ("Panel that serves itself", "import panel as pn\npn.serve(lambda: 'x', port=5006)\n", "python3 app.py"),
    ("Shiny", "from shiny import App, ui\napp = App(ui.page_fluid(), None)\n", "python3 -m shiny run --host 0.0.0.0 --port 8080 app.py"),
    ("Shiny Express", "from shiny.express import ui\nui.h1('x')\n", "python3 -m shiny run --host 0.0.0.0 --port 8080 app.py"),
    ("Shiny that runs itself", "from shiny import App, ui, run_app\napp = App(ui.page_fluid(), None)\n" + MAIN + "run_app(app)\n", "python3 app.py"),
    ("Solara", "import solara\n@solara.component\ndef Page():\n    pass\n", "python3 -m solara run app.py --host 0.0.0.0 --port 8080 --production"),
    ("Mesop", "import mesop as me\n@me.page(path='/')\ndef page():\n    pass\n", "python3 -m mesop.bin.bin app.py --port 8080 --prod"),
    ("Chainlit", "import chainlit as cl\n@cl.on_message\nasync def m(x): pass\n", "python3 -m chainlit run app.py --host 0.0.0.0 --port 8080 -h"),
    ("Flet", "import flet as ft\ndef main(page): pass\nft.app(main)\n", "python3 app.py"),
    ("Flet of today", "import flet as ft\ndef main(page): pass\nft.run(main)\n", "python3 app.py"),
    ("Gradio that is launched over several lines", "import gradio as gr\ngr.Interface(\n    fn=print,\n    inputs='text',\n).launch(\n    share=True,\n)\n", "python3 app.py"),
    ("Gradio that nothing launches", "import gradio as gr\nwith gr.Blocks() as demo:\n    gr.Markdown('x')\n", "python3 -c from app import demo; demo.launch()"),
    ("Gradio in FastAPI", "import gradio as gr\nfrom fastapi import FastAPI\nweb = FastAPI()\nwith gr.Blocks() as demo:\n    pass\nweb = gr.mount_gradio_app(web, demo, path='/')\n", UVICORN.format("app:web")),
    ("Dash", "from dash import Dash\napp = Dash(__name__)\n" + MAIN + "app.run(debug=True)\n", "python3 app.py"),
    ("Dash that nothing runs", "from dash import Dash\napp = Dash(__name__)\napp.layout = []\n", "python3 -c from app import app; app.run(host='0.0.0.0', port=8080)"),
    ("Dash with its server named", "import dash\napp = dash.Dash(__name__)\nserver = app.server\n", GUNICORN.format("app:server")),
    ("Dash of before", "import dash\napp = dash.Dash(__name__)\nserver = app.server\n" + MAIN + "app.run_server(debug=True)\n", "python3 app.py"),
    ("FastHTML", "from fasthtml.common import *\napp, rt = fast_app()\nserve()\n", "python3 app.py"),
    ("FastHTML that nothing serves", "from fasthtml.common import *\napp, rt = fast_app()\n", UVICORN.format("app:app")),
    ("Sanic", "from sanic import Sanic\napp = Sanic('x')\n", UVICORN.format("app:app")),
    ("Sanic that runs itself", "from sanic import Sanic\napp = Sanic('x')\n" + MAIN + "app.run()\n", "python3 app.py"),
    ("aiohttp", "from aiohttp import web\napp = web.Application()\n", "python3 -m gunicorn -b 0.0.0.0:8080 -k aiohttp.GunicornWebWorker app:app"),
    ("aiohttp by a function", "from aiohttp import web\nasync def make():\n    site = web.Application()\n    return site\n", "python3 -m gunicorn -b 0.0.0.0:8080 -k aiohttp.GunicornWebWorker app:make"),
    ("aiohttp by a plain function", "from aiohttp import web\ndef make():\n    return web.Application()\n", "python3 -m gunicorn -b 0.0.0.0:8080 -k aiohttp.GunicornWebWorker app:make()"),
    ("Tornado", "import tornado.web\napp = tornado.web.Application([])\n", "python3 -m gunicorn -b 0.0.0.0:8080 -k tornado app:app"),
    ("Robyn", "from robyn import Robyn\napp = Robyn(__file__)\napp.start()\n", "python3 app.py"),
    ("Robyn that nothing starts", "from robyn import Robyn\napp = Robyn(__file__)\n", "python3 -c from app import app; app.start(host='0.0.0.0', port=8080)"),
    ("Litestar", "from litestar import Litestar\napp = Litestar([])\n", UVICORN.format("app:app")),
    ("Quart", "from quart import Quart\napp = Quart(__name__)\n", UVICORN.format("app:app")),
    ("Bottle", "from bottle import Bottle\napp = Bottle()\n", GUNICORN.format("app:app")),
    ("Falcon", "import falcon\napp = falcon.App()\n", GUNICORN.format("app:app")),
    ("Falcon's other one", "import falcon.asgi\napp = falcon.asgi.App()\n", UVICORN.format("app:app")),
    ("Pyramid", "from pyramid.config import Configurator\ndef main(globals, **settings):\n    c = Configurator()\n    return c.make_wsgi_app()\napp = main({})\n", GUNICORN.format("app:app")),
    ("Connexion", "import connexion\napp = connexion.FlaskApp(__name__)\n", UVICORN.format("app:app")),
    ("Django in one file", "from django.core.asgi import get_asgi_application\napplication = get_asgi_application()\n", UVICORN.format("app:application")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "command"), [row[1:] for row in STARTED], ids=[row[0] for row in STARTED])
def test_each_framework_is_started_in_its_own_way(text: str, command: str) -> None:
    found = decided({"app.py": text})
    assert (found.rule, " ".join(found.argv)) == ("python-server", command)


def test_where_to_listen_is_said_in_the_variables_that_a_framework_reads() -> None:
    gradio = decided({"app.py": "import gradio as gr\ngr.Interface(print).launch()\n"})
    flet = decided({"app.py": "import flet\nflet.app(print)\n"})
    assert gradio.env["GRADIO_SERVER_NAME"] == "0.0.0.0"
    assert flet.env == {"FLET_FORCE_WEB_SERVER": "true", "FLET_SERVER_IP": "0.0.0.0", "FLET_SERVER_PORT": "8080"}


MADE: list[tuple[str, str, str | None]] = [
    ("under a name of the file's", "from flask import Flask as F\nsite = F(__name__)\n", GUNICORN.format("app:site")),
    ("by its module's name", "import fastapi as fa\nservice: fa.FastAPI = fa.FastAPI()\n", UVICORN.format("app:service")),
    ("of a class of its own", "from flask import Flask\nclass Site(Flask):\n    pass\nsite = Site(__name__)\n", GUNICORN.format("app:site")),
    ("under two names", "from flask import Flask\nserver = site = Flask(__name__)\n", GUNICORN.format("app:server")),
    ("over several lines", "from flask import (\n    Flask,\n    request,\n)\nsite = Flask(\n    __name__,\n)\n", GUNICORN.format("app:site")),
    ("in a block", "from flask import Flask\ntry:\n    import sentry\nexcept ImportError:\n    site = Flask('a')\nelse:\n    site = Flask('b')\n", GUNICORN.format("app:site")),
    ("by a function of any name", "from flask import Flask\ndef launchpad():\n    a = Flask(__name__)\n    return a\n", GUNICORN.format("app:launchpad()")),
    ("by a function that is called", "from flask import Flask\ndef build(name):\n    a = Flask(name)\n    return a\nsite = build('x')\n", GUNICORN.format("app:site")),
    ("by an assignment of an app", "from flask import Flask\nsite = Flask('x')\napplication = site\n", GUNICORN.format("app:application")),
    ("around another one", "import socketio\nfrom fastapi import FastAPI\napi = FastAPI()\nsio = socketio.AsyncServer()\nweb = socketio.ASGIApp(sio, api)\n", UVICORN.format("app:web")),
    ("with a part replaced", "from flask import Flask\nfrom werkzeug.middleware.proxy_fix import ProxyFix\nsite = Flask('x')\nsite.wsgi_app = ProxyFix(site.wsgi_app)\n", GUNICORN.format("app:site")),
    ("of another App", "from textual.app import App\nfrom flask import request\napp = App()\n", None),
    ("in a text that it holds", "X = '''\nfrom flask import Flask\napp = Flask(__name__)\n'''\nprint(X)\n", None),
    ("in a comment", "import flask\n# app = flask.Flask('x')\n# app.run()\n", None),
    ("in a block that only runs as the program", "from flask import Flask\n" + MAIN + "site = Flask('x')\n    print(site.url_map)\n", None),
    ("and something else in the end", "from flask import Flask\napp = Flask('x')\napp = 3\n", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "command"), [row[1:] for row in MADE], ids=[row[0] for row in MADE])
def test_an_app_is_what_it_is_made_of_and_not_what_it_is_called(text: str, command: str | None) -> None:
    if command is None:
        with pytest.raises(ClassifyError):
            decided({"app.py": text})
    else:
        assert " ".join(decided({"app.py": text}).argv) == command


def test_an_app_that_a_function_of_another_file_makes_is_one() -> None:
    files: Files = {
        "wsgi.py": "from shop.web import launchpad\nsite = launchpad('production')\n",
        "shop/__init__.py": "",
        "shop/web.py": "from flask import Flask\ndef launchpad(name):\n    return Flask(name)\n",
    }
    assert " ".join(decided(files).argv) == GUNICORN.format("wsgi:site")


def test_an_app_that_routes_to_others_is_the_one_that_is_served() -> None:
    files: Files = {
        "wsgi.py": "from werkzeug.middleware.dispatcher import DispatcherMiddleware\nfrom a import x\nfrom b import y\napplication = DispatcherMiddleware(x, {'/b': y})\n",
        "a.py": "from flask import Flask\nx = Flask('a')\n",
        "b.py": "from flask import Flask\ny = Flask('b')\n",
    }
    assert " ".join(decided(files).argv) == GUNICORN.format("wsgi:application")


def test_a_server_that_a_function_starts_is_one() -> None:
    text = "from flask import Flask\napp = Flask('x')\ndef main():\n    app.run(port=3000)\nmain()\n"
    assert decided({"app.py": text}).argv == ("python3", "app.py")
    assert decided({"app.py": text.replace("app.run(port=3000)", "print(app)")}).argv[2] == "gunicorn"


@pytest.mark.parametrize("files", [{}, {"Procfile": "web: python app.py\n"}], ids=["by-its-file", "by-a-procfile"])
def test_what_does_not_heed_sigterm_is_told_to_stop_in_its_own_way(files: dict[str, str]) -> None:
    robyn = "from robyn import Robyn\napp = Robyn(__file__)\napp.start(port=5000)\n"
    flask = "from flask import Flask\napp = Flask(__name__)\napp.run()\n"
    assert classify(table_of({"app.py": robyn, **files})).runtime().start.stop_signal == "SIGINT"
    assert classify(table_of({"app.py": flask, **files})).runtime().start.stop_signal == ""
