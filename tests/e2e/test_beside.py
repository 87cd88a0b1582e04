"""Apps that want another Python or Node than the usual one: its template is prepared when the first of them comes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.waiting import eventually

# templates are made here, of what registries and Debian have: minutes, of which a machine sees each once
pytestmark = [pytest.mark.slow, pytest.mark.everything, pytest.mark.timeout(900)]
PREPARE_S = 420.0

NUMPY = """import flask, numpy, sys
app = flask.Flask(__name__)

@app.get("/")
def index():
    return numpy.__version__ + " on %d.%d" % sys.version_info[:2]
"""
DJANGO = {
    "requirements.txt": "django==4.0\n",
    "manage.py": """import os, sys
if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
""",
    "shop/__init__.py": "",
    "shop/settings.py": "SECRET_KEY = 'x'\nDEBUG = True\nALLOWED_HOSTS = ['*']\nROOT_URLCONF = 'shop.urls'\n",
    "shop/urls.py": """import django, sys
from django.http import HttpResponse
from django.urls import path
urlpatterns = [path("", lambda r: HttpResponse("%s on %d.%d" % (django.__version__, *sys.version_info[:2])))]
""",
}
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
    source = {"app.py": NUMPY, "requirements.txt": "flask\nnumpy==1.24.4\n"}
    vibed.client.post_deploy(name, source)
    eventually(lambda: vibed.client.visit(name).text == "1.24.4 on 3.11", "it runs on 3.11", within_s=PREPARE_S)
    message = vibed.client.ask("GET", f"/v1/apps/{name}")["message"]
    assert "it runs on python-311, since on python-313 the dependencies cannot be installed: numpy 1.24.4" in message
    assert states(vibed)["python-312"] == (False, True), "3.12 has no wheel of it either, so nobody prepared it"
    said = [line["text"] for line in vibed.client.logs(name)]
    assert any("python-311 is tried" in text for text in said)
    assert not any("Building" in text for text in said), "nothing was built before that"
    # the next one of the kind waits for nothing that was found out before
    again = vibed.client.post_deploy(apps.name(), source)
    assert again.status_code == 200, again.text


def test_what_a_pinned_package_misses_when_it_runs_is_had_on_another(vibed: Instance, apps: Apps) -> None:
    name = apps.name()
    vibed.client.post_deploy(name, DJANGO)
    # 3.12 where its archive can be had, else 3.11
    eventually(lambda: vibed.client.visit(name).text.startswith("4.0 on 3.1"), "it runs", within_s=PREPARE_S)
    assert vibed.client.visit(name).text in ("4.0 on 3.11", "4.0 on 3.12")
    message = vibed.client.ask("GET", f"/v1/apps/{name}")["message"]
    assert "since on python-313 the app has django 4.0, and that needs cgi, which Python 3.13 does not" in message
    again = vibed.client.post_deploy(apps.name(), DJANGO)
    assert again.status_code == 200, again.text
