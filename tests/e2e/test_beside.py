"""Apps that want another Python or Node than the usual one: its template is prepared when the first of them comes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PREPARE_S = 420.0

VERSION = """import flask, sys
app = flask.Flask(__name__)

@app.get("/")
def index():
    return "%d.%d" % sys.version_info[:2]
"""
NUMPY = VERSION.replace("import flask, sys", "import flask, numpy, sys").replace(
    '"%d.%d" % sys.version_info[:2]', 'numpy.__version__ + " on %d.%d" % sys.version_info[:2]'
)
NODE = "require('http').createServer((q, r) => r.end(process.version.split('.')[0])).listen(process.env.PORT)\n"


@pytest.fixture(autouse=True)
def _ready(vibed: Instance) -> Iterator[None]:
    vibed.client.wait_for_template("python-313")
    vibed.client.wait_for_template("node-24")
    yield


def states(vibed: Instance) -> dict[str, tuple[bool, bool]]:
    """Of each template: whether it is available, and whether it is prepared on need."""
    items = vibed.client.ask("GET", "/v1/templates")["items"]
    return {item["name"]: (item["available"], item["on_need"]) for item in items}


def test_a_node_that_engines_asks_for_is_prepared_by_need_and_told_meanwhile(vibed: Instance, apps: Apps) -> None:
    assert states(vibed)["node-22"] == (False, True)
    package = json.dumps({"name": "x", "engines": {"node": "22.x"}, "scripts": {"start": "node server.js"}})
    name = apps.name()
    first = vibed.client.post_deploy(name, {"server.js": NODE, "package.json": package})
    assert (first.status_code, first.json()["reason"]) == (202, "TemplateBuilding"), first.text
    assert "node-22 is being prepared" in first.json()["message"]
    # nobody else waits
    other = vibed.client.post_deploy(apps.name(), {"server.js": NODE, "package.json": "{}"})
    assert other.status_code == 200, other.text
    eventually(lambda: vibed.client.visit(name).text == "v22", "the app runs on Node 22", within_s=PREPARE_S)
    assert states(vibed)["node-22"] == (True, False)


def test_a_list_that_cannot_be_met_on_the_usual_python_is_met_on_another(vibed: Instance, apps: Apps) -> None:
    name = apps.name()
    source = {"app.py": NUMPY, "requirements.txt": "flask\nnumpy==1.26.0\n", "Dockerfile": "FROM python:3.11-slim\n"}
    vibed.client.post_deploy(name, source)
    eventually(lambda: vibed.client.visit(name).text == "1.26.0 on 3.11", "it runs on 3.11", within_s=PREPARE_S)
    message = vibed.client.ask("GET", f"/v1/apps/{name}")["message"]
    assert "it runs on python-311, since on python-313 the dependencies cannot be installed: numpy 1.26.0" in message
    said = [line["text"] for line in vibed.client.logs(name)]
    assert any("python-311 is tried" in text for text in said)
    # the next one of the kind waits for nothing that was found out before
    again = vibed.client.post_deploy(apps.name(), source)
    assert again.status_code == 200, again.text
