"""Python apps as people write them, unmodified."""

from __future__ import annotations

import pytest

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.load import connect
from tests.e2e.waiting import eventually

_FLASK = """
from flask import Flask
app = Flask(__name__)

@app.get("/")
def index():
    return "from flask"
"""
_MAIN = '\nif __name__ == "__main__":\n    app.run(port=5000)\n'
_DEBUGGER = '\nif __name__ == "__main__":\n    app.run(host="0.0.0.0", port=5000, debug=True)\n'
_THREAD = """
import threading, time
worker = threading.Thread(target=lambda: time.sleep(3600), daemon=True)
worker.start()
"""
_TEMPLATES = """
from fastapi import FastAPI, Request
from fastapi.templating import Jinja2Templates
app = FastAPI()
templates = Jinja2Templates(directory="templates")

@app.get("/")
async def index(request: Request):
    return templates.TemplateResponse("index.html", {"request": request, "who": "a template"})
"""
_WSGI = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"from wsgi"]
"""
_FASTAPI = """
from fastapi import FastAPI
app = FastAPI()

@app.get("/")
async def index():
    return {"from": "fastapi"}
"""


@pytest.fixture(autouse=True)
def _python(vibed: Instance) -> None:
    vibed.client.wait_for_template("python-313")


def test_a_program_of_the_standard_library_runs(vibed: Instance, apps: Apps) -> None:
    deployed = vibed.client.deploy_ready(apps.name(), samples.python_hello(1))
    assert vibed.client.visit(deployed.app_id).text == "version 1\n"
    app = vibed.client.app(deployed.app_id)
    assert (app["runtime"]["lane"], app["runtime"]["template"]) == ("general", "python-313")
    assert app["isolation"] in ("kernel", "process")


WAYS: dict[str, tuple[samples.Files, str]] = {
    "flask-object": ({"app.py": _FLASK}, "from flask"),
    "flask-main-on-5000": ({"app.py": _FLASK + _MAIN}, "from flask"),
    "fastapi-object": ({"main.py": _FASTAPI}, '{"from":"fastapi"}'),
    "flask-debugger": ({"app.py": _FLASK + _DEBUGGER}, "from flask"),
    "flask-and-a-thread": ({"app.py": _FLASK + _THREAD}, "from flask"),
    "fastapi-templates-as-before-starlette-1": (
        {"main.py": _TEMPLATES, "templates/index.html": "from {{ who }}", "requirements.txt": "fastapi\njinja2\n"},
        "from a template",
    ),
    "src-layout": (
        {
            "src/roomlist/__init__.py": "",
            "src/roomlist/names.py": "NAME = 'roomlist'\n",
            "src/roomlist/main.py": "from roomlist.names import NAME\n" + _FASTAPI.replace('"fastapi"', "NAME"),
            "pyproject.toml": "[project]\nname = 'roomlist'\nversion = '1'\ndependencies = ['fastapi']\n",
        },
        '{"from":"roomlist"}',
    ),
    "a-wrapper-in-a-folder": (
        {"api/main.py": _FASTAPI, "a.txt": "", "Procfile": "web: cd api && uv run fastapi run main.py"},
        '{"from":"fastapi"}',
    ),
    "wsgi-callable": ({"wsgi.py": _WSGI}, "from wsgi"),
    "procfile": ({"src/web/app.py": _FLASK, "Procfile": "web: gunicorn --chdir src/web app:app"}, "from flask"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_usual_ways_to_start_are_found(vibed: Instance, apps: Apps, way: str) -> None:
    source, expected = WAYS[way]
    assert vibed.client.visit(apps.ready(source)).text.strip() == expected


def test_a_start_that_ends_at_once_gives_way_to_the_next_one_and_the_status_says_so(
    vibed: Instance, apps: Apps
) -> None:
    app = apps.ready({"Procfile": "web: python3 seed.py", "seed.py": "print('seeded')\n", "app.py": _FLASK})
    assert vibed.client.visit(app).text == "from flask"
    message = vibed.client.app(app)["message"]
    assert "it was started by ‘python3 -m gunicorn" in message
    assert "since by ‘python3 seed.py’ the app ended at once" in message
    log = vibed.client.log_text(app)
    assert log.index("seeded") < log.index("it is started by") < log.index("Listening at")


def test_when_the_next_start_fails_too_the_message_has_both(vibed: Instance, apps: Apps) -> None:
    source = {"Procfile": "web: python3 seed.py", "seed.py": "print('seeded')\n", "app.py": _FLASK + "1 / 0\n"}
    failed = vibed.client.deploy(apps.name(), source)
    assert failed.phase == "Failed"
    assert "by ‘python3 seed.py’ the app ended at once" in failed.message
    assert "which was tried next, " in failed.message
    assert "ZeroDivisionError" in failed.message


async def test_websockets_and_bodies_work(vibed: Instance, apps: Apps) -> None:
    app = apps.ready(samples.python(1))
    assert vibed.client.visit(app, "/echo", "POST", content=b"x" * 1_000_000).json()["size"] == 1_000_000
    async with connect(vibed.client, app) as socket:
        await socket.send("hello")
        assert await socket.recv() == "1 hello"


def test_the_app_sees_its_environment_and_nothing_of_vibed(vibed: Instance, apps: Apps) -> None:
    app = apps.ready(samples.python(1), env=[{"name": "GREETING", "value": "héllo\nthere"}])
    seen = vibed.client.visit(app, "/env").json()
    assert seen["GREETING"] == "héllo\nthere"
    assert seen["PORT"].isdigit()
    assert vibed.admin_key not in str(seen)
    assert not [name for name in seen if name.startswith("VIBED_")]


def test_the_app_can_write_beside_its_source_and_in_its_home(vibed: Instance, apps: Apps) -> None:
    app = apps.ready(
        {
            "app.py": "import os, pathlib, sqlite3, tempfile\nfrom flask import Flask\napp = Flask(__name__)\n"
            "sqlite3.connect('notes.db').execute('create table n (t)')\n"
            "pathlib.Path('logs').mkdir()\n"
            "(pathlib.Path.home() / 'x').write_text('x')\n"
            "tempfile.NamedTemporaryFile().write(b'x')\n"
            "@app.get('/')\ndef index():\n    return os.getcwd() + ' ' + str(pathlib.Path('notes.db').exists())\n"
        }
    )
    assert vibed.client.visit(app).text == "/app True"


def test_a_new_version_starts_from_its_source_alone(vibed: Instance, apps: Apps) -> None:
    name = apps.name()
    first = {"app.py": _FLASK + "\nopen('left-behind', 'w').write('x')\n"}
    second = {
        "app.py": _FLASK.replace('return "from flask"', 'import os; return str(sorted(os.listdir(".")))'),
    }
    vibed.client.deploy_ready(name, first)
    vibed.client.deploy_ready(name, second)
    assert "left-behind" not in vibed.client.visit(name).text


def test_what_an_app_prints_is_in_its_log_at_once(vibed: Instance, apps: Apps) -> None:
    """Nobody flushes; a process that was warm already must not keep lines back either."""
    app = apps.ready(samples.python_after("print('not flushed')"))
    eventually(lambda: "not flushed" in [line["text"] for line in vibed.client.logs(app)], "it is there", within_s=10)


def test_the_variables_of_the_template_reach_the_app(vibed: Instance, apps: Apps) -> None:
    app = apps.ready(samples.python(1))
    seen = vibed.client.visit(app, "/env").json()
    assert (seen.get("PYTHONUNBUFFERED"), seen.get("MPLBACKEND")) == ("1", "Agg")
