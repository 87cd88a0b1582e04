# ruff: noqa: E501 (sources of apps)
"""Apps that need more than their template: installed from the registries that this machine's own clients use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.waiting import eventually

INSTALL_S = 240.0
"""A registry may be slow, and the first installation makes its tools ready."""

FLASK = """import flask, importlib.metadata, sys
{imports}
app = flask.Flask(__name__)

@app.get("/")
def index():
    return flask.jsonify({shown})
"""
EXPRESS = """const express = require('express')
const dayjs = require('dayjs')
const app = express()
app.get('/', (q, r) => r.json({ day: dayjs('2026-11-30').format('DD.MM.YYYY'), express: require('express/package.json').version }))
app.listen(process.env.PORT)
"""


@pytest.fixture(autouse=True)
def _ready(vibed: Instance) -> Iterator[None]:
    vibed.client.wait_for_template("python-313")
    vibed.client.wait_for_template("node-24")
    yield


def flask(shown: str, imports: str = "", **files: str) -> dict[str, str | bytes]:
    return {"app.py": FLASK.replace("{shown}", shown).replace("{imports}", imports), **files}


def ready(vibed: Instance, apps: Apps, source: dict[str, str | bytes]) -> str:
    return vibed.client.deploy_ready(apps.name(), source, settle_s=INSTALL_S).app_id


def layers(vibed: Instance, package: str) -> list[dict[str, Any]]:
    found = vibed.client.ask("GET", "/v1/layers")["items"]
    return [layer for layer in found if package in layer["packages"]]


def reasons(vibed: Instance, app_id: str) -> list[str]:
    return [event["reason"] for event in vibed.client.events(app_id)]


def test_what_a_list_names_is_installed_once_and_is_there_the_next_time(vibed: Instance, apps: Apps) -> None:
    source = flask("humanize.intcomma(1234567)", "import humanize", **{"requirements.txt": "flask\nhumanize==4.12.3\n"})
    with ThreadPoolExecutor() as both:
        first, second = both.map(lambda _: ready(vibed, apps, source), range(2))
    assert vibed.client.visit(first).json() == vibed.client.visit(second).json() == "1,234,567"
    (layer,) = layers(vibed, "humanize")
    # the template's Flask is the one that was asked for
    assert (layer["packages"], layer["builds"], layer["private"]) == ({"humanize": "4.12.3"}, 1, False)
    assert set(layer["apps"]) == {first, second}
    assert any(line["stream"] == "build" for line in (*vibed.client.logs(first), *vibed.client.logs(second)))
    third = vibed.client.post_deploy(apps.name(), source)
    assert third.status_code == 200, third.text
    assert "BuildingDependencies" not in reasons(vibed, third.json()["app_id"])
    assert layers(vibed, "humanize")[0]["builds"] == 1


def test_what_was_made_beforehand_keeps_nobody_waiting_and_stays(vibed: Instance, apps: Apps, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("flask\nhumanize==4.11.0\n")
    baked = json.loads(
        vibed.run("layers", "bake", str(tmp_path / "requirements.txt"), "--json", timeout_s=INSTALL_S).stdout
    )
    assert [(item["state"], item["template"]) for item in baked["items"]] == [("ready", "python-313")]
    key = baked["items"][0]["key"]
    app = ready(
        vibed, apps, flask("humanize.__version__", "import humanize", **{"requirements.txt": "flask\nhumanize==4.11\n"})
    )
    assert vibed.client.visit(app).json() == "4.11.0"
    (layer,) = [one for one in layers(vibed, "humanize") if one["key"] == key]
    assert (layer["builds"], layer["pinned"], layer["apps"]) == (1, True, [app])
    assert vibed.client.api("DELETE", f"/v1/layers/{key}").status_code == 409


def test_without_a_list_the_imports_are_installed_and_told(vibed: Instance, apps: Apps) -> None:
    name = apps.name()
    deployed = vibed.client.deploy_ready(name, flask("tinydb.__version__", "import tinydb"), settle_s=INSTALL_S)
    assert vibed.client.visit(name).status_code == 200
    assert any("tinydb" in note and "imports" in note for note in deployed.answer["notes"])


def test_another_version_than_the_templates_is_the_one_that_runs(vibed: Instance, apps: Apps) -> None:
    source = flask("importlib.metadata.version('flask')", **{"requirements.txt": "flask==3.0.0\n"})
    assert vibed.client.visit(ready(vibed, apps, source)).json() == "3.0.0"


def test_a_node_app_has_its_own_tree_with_a_lock_and_without(vibed: Instance, apps: Apps) -> None:
    package = {"name": "a", "version": "1.0.0", "dependencies": {"express": "^4.21.0", "dayjs": "^1.11.0"}}
    seen = vibed.client.visit(ready(vibed, apps, {"server.js": EXPRESS, "package.json": json.dumps(package)})).json()
    assert (seen["day"], seen["express"].partition(".")[0]) == ("30.11.2026", "4")
    lock = {
        "name": "b",
        "version": "1.0.0",
        "lockfileVersion": 3,
        "requires": True,
        "packages": {
            "": {"name": "b", "version": "1.0.0", "dependencies": {"ms": "^2.1.0"}},
            "node_modules/ms": {"version": "2.1.2"},
        },
    }
    code = (
        "const v = require('ms/package.json').version\nrequire('http').createServer((q, r) => r.end(v)).listen(8080)\n"
    )
    locked = {"index.js": code, "package.json": json.dumps(lock["packages"][""]), "package-lock.json": json.dumps(lock)}  # type: ignore[index]
    name = ready(vibed, apps, {**locked})
    assert vibed.client.visit(name).text == "2.1.2", vibed.client.log_text(name)


def test_what_no_registry_has_fails_with_its_name_unless_nothing_uses_it(vibed: Instance, apps: Apps) -> None:
    nobody = "a-package-that-nobody-has-made"
    used = flask("1", f"import {nobody.replace('-', '_')}", **{"requirements.txt": f"flask\n{nobody}\n"})
    failed = vibed.client.deploy(apps.name(), used, settle_s=INSTALL_S)
    assert (failed.phase, failed.reason) == ("Failed", "DependencyBuildFailed")
    assert nobody in failed.message
    unused = ready(vibed, apps, flask("1", **{"requirements.txt": f"flask\n{nobody}\n"}))
    told = [event["message"] for event in vibed.client.events(unused) if event["reason"] == "Dependencies"]
    assert len(told) == 1 and nobody in told[0]


_HOSTILE = """
import os, socket, sys
told = []
for attempt in (
    lambda: socket.create_connection(("192.0.2.1", 443), 2),
    lambda: open("/layers/python/planted.py", "w"),
    lambda: open("/usr/lib/python3/dist-packages/flask/__init__.py", "a"),
    lambda: os.listdir("/var/lib/vibed"),
):
    try:
        attempt()
        told.append("could")
    except Exception as error:
        told.append(type(error).__name__)
print("TOLD", told, sorted(name for name in os.environ if "VIBED" in name or "TOKEN" in name), file=sys.stderr, flush=True)
os.makedirs("thing", exist_ok=True)
open("thing/__init__.py", "w").write("TOLD = %r\\n" % (told,))
from setuptools import setup
setup(name="thing", version="1.0", packages=["thing"])
"""


def test_an_installation_reaches_nothing_and_writes_nowhere_but_into_its_own_layer(vibed: Instance, apps: Apps) -> None:
    lib = {"lib/thing/setup.py": _HOSTILE, "lib/thing/README": ""}
    source = flask("thing.TOLD", "import thing", **{"requirements.txt": "flask\n./lib/thing\n", **lib})
    app = ready(vibed, apps, source)
    told = vibed.client.visit(app).json()
    assert len(told) == 4 and "could" not in told
    (layer,) = (one for one in vibed.client.ask("GET", "/v1/layers")["items"] if app in one["apps"])
    assert layer["private"]


_ENDLESS = "import time\nprint('never ends', flush=True)\ntime.sleep(3600)\n"


def test_one_that_never_ends_goes_with_its_app(vibed: Instance, apps: Apps) -> None:
    name = apps.name()
    source = flask("1", "import thing", **{"requirements.txt": "flask\n./lib/thing\n", "lib/thing/setup.py": _ENDLESS})
    answer = vibed.client.post_deploy(name, source)
    assert answer.status_code == 202, answer.text
    eventually(lambda: vibed.client.app(name)["reason"] == "BuildingDependencies", "it is being installed", within_s=90)
    vibed.client.delete(name)
    eventually(lambda: vibed.client.api("GET", f"/v1/apps/{name}").status_code == 404, "it is gone", within_s=30)


def test_vibed_killed_while_it_installs_goes_on_after_its_start(vibed: Instance, apps: Apps) -> None:
    name = apps.name()
    source = flask("thing.A", "import thing", **{"requirements.txt": "flask\n./lib/thing\n"})
    slow = "import time\ntime.sleep(4)\nfrom setuptools import setup\nsetup(name='thing', version='1', py_modules=['thing'])\n"
    answer = vibed.client.post_deploy(
        name, {**source, "lib/thing/setup.py": slow, "lib/thing/thing.py": "A = 'kept'\n"}
    )
    eventually(lambda: vibed.client.app(name)["reason"] == "BuildingDependencies", "it is being installed", within_s=90)
    vibed.kill("controller")
    vibed.wait_until_ready()
    assert answer.status_code == 202
    assert vibed.client.settled(name, 1, within_s=INSTALL_S)["phase"] == "Ready"
    assert vibed.client.visit(name).json() == "kept"
