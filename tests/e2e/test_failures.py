"""Apps that do not work: each says what is wrong, whether trying again can help, and what to change."""

from __future__ import annotations

import asyncio
import gzip
import io
import tarfile
from typing import Any

import pytest

from tests.e2e import samples
from tests.e2e.client import packed
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.load import Load
from tests.e2e.waiting import eventually


@pytest.fixture(autouse=True)
def _python(second: Instance) -> None:
    second.client.wait_for_template("python-313")


# an app that does not start


def test_a_crash_on_start_is_told_with_the_apps_last_words(second: Instance, second_apps: Apps) -> None:
    deployed = second_apps.deploy(
        # standard output and standard error are two pipes: without the pause their order would be a matter of luck
        samples.python_after(
            "import time", "print('warming up')", "time.sleep(0.5)", "raise RuntimeError('no luck today')"
        )
    )
    assert (deployed.status, deployed.phase, deployed.reason) == (202, "Failed", "StartFailed")
    assert "no luck today" in deployed.message
    told = [line["text"] for line in second.client.logs(deployed.app_id)]
    assert "warming up" in told
    assert any("RuntimeError: no luck today" in line for line in told)
    app = second.client.app(deployed.app_id)
    assert (app["phase"], app["serving_version"]) == ("Failed", None)


def test_the_apps_own_error_is_told_and_not_that_a_worker_failed_to_boot(second_apps: Apps) -> None:
    source = "import os, flask\n\napp = flask.Flask(__name__)\nTOKEN = os.environ['API_TOKEN']\n"
    deployed = second_apps.deploy({"app.py": source, "Procfile": "web: gunicorn app:app\n"})
    assert (deployed.phase, deployed.reason) == ("Failed", "StartFailed")
    assert "the app needs the environment variable API_TOKEN (app.py, line 4)" in deployed.message


def test_an_app_that_ends_at_once_without_an_error_is_told_so(second_apps: Apps) -> None:
    deployed = second_apps.deploy(samples.python_after("print('that was all')", "raise SystemExit"))
    assert deployed.phase == "Failed"
    assert "listen" in deployed.message


def test_a_missing_module_is_named(second: Instance, second_apps: Apps) -> None:
    answer = second.client.post_deploy(
        second_apps.name(), {**samples.python_after("import langchain"), "requirements.txt": "flask\nlangchain==0.3\n"}
    )
    body = answer.json()
    assert (answer.status_code, body["code"]) == (422, "DependenciesMissing")
    assert "langchain" in body["message"]
    assert "flask" not in body["details"].get("missing", [])
    assert body["details"]["retryable"] is False


def test_a_missing_module_that_only_the_code_knows_of_is_named_too(second: Instance, second_apps: Apps) -> None:
    name = second_apps.name()
    answer = second.client.post_deploy(
        name, samples.python_after("import importlib", "importlib.import_module('lang' + 'chain')")
    )
    assert answer.status_code == 202, answer.text
    version = second.client.settled(name, 1)
    assert (version["phase"], version["reason"]) == ("Failed", "DependenciesMissing")
    assert "langchain" in version["message"]


def test_a_missing_environment_variable_is_named_and_setting_it_helps(second: Instance, second_apps: Apps) -> None:
    deployed = second_apps.deploy(samples.python_after("import os", "KEY = os.environ['WEATHER_API_KEY']"))
    assert deployed.phase == "Failed"
    assert "WEATHER_API_KEY" in deployed.message
    fixed = second.client.ask(
        "PATCH", f"/v1/apps/{deployed.app_id}", json={"env": [{"name": "WEATHER_API_KEY", "value": "x"}]}
    )
    assert second.client.settled(deployed.app_id, fixed["version"])["phase"] == "Ready"
    assert second.client.visit(deployed.app_id).text == "version 1\n"


def test_an_app_that_never_listens_is_told_what_to_do(second_apps: Apps) -> None:
    deployed = second_apps.deploy(samples.python_after("import time", "time.sleep(3600)"))
    assert (deployed.phase, deployed.reason) == ("Failed", "StartTimeout")
    assert "did not listen" in deployed.message


def test_a_syntax_error_is_told_with_its_line(second: Instance, second_apps: Apps) -> None:
    name = second_apps.name()
    answer = second.client.post_deploy(name, samples.python_after("def broken(:"))
    if answer.status_code == 422:
        assert "app.py" in answer.json()["message"]
        return
    assert second.client.settled(name, 1)["phase"] == "Failed"
    assert any("SyntaxError" in line["text"] for line in second.client.logs(name))


# an app that stops working later


def test_a_crash_loop_backs_off_and_says_so(second: Instance, second_apps: Apps) -> None:
    """Ready at first; then it dies on every request for `/die` and soon after every start."""
    name = second_apps.name()
    second.client.deploy_ready(
        name,
        {
            "app.py": "import os, threading\nfrom pathlib import Path\n"
            "from http.server import BaseHTTPRequestHandler, HTTPServer\n"
            "class H(BaseHTTPRequestHandler):\n"
            "    def do_GET(self):\n"
            "        if self.path == '/die':\n"
            "            print('dying as asked', flush=True)\n"
            "            os._exit(7)\n"
            "        self.send_response(200); self.end_headers(); self.wfile.write(b'alive')\n"
            "HTTPServer(('', int(os.environ['PORT'])), H).serve_forever()\n"
        },
    )

    def crashing() -> dict[str, object] | None:
        second.client.visit(name, "/die")
        app = second.client.app(name)
        return app if app["reason"] == "CrashLoop" else None

    app = eventually(crashing, "the crash loop is told", within_s=90, every_s=0.3)
    assert app is not None
    assert app["phase"] == "Failed"
    assert "times in a row" in str(app["message"])
    assert "7" in str(app["message"])
    assert "tried again by itself" in str(app["message"])
    assert int(str(app["restarts"])) >= 3
    page = second.client.visit(name, headers={"Accept": "application/json"})
    assert page.status_code == 503
    assert eventually(
        lambda: second.client.visit(name).text == "alive", "it comes back by itself when it stops dying", within_s=120
    )


def test_an_app_that_is_killed_for_memory_says_so_and_comes_back(second: Instance, second_apps: Apps) -> None:
    name = second_apps.name()
    second.client.deploy_ready(
        name,
        {
            "main.py": "from fastapi import FastAPI\napp = FastAPI()\n"
            "@app.get('/')\nasync def index():\n    return 'alive'\n"
            "@app.get('/eat')\nasync def eat():\n    return len(bytearray(b'x') * (2 << 30))\n"
        },
    )
    second.client.visit(name, "/eat")
    eventually(
        lambda: (
            "memory" in " ".join(str(event["message"]) for event in second.client.events(name)).lower()
            or any("memory" in line["text"].lower() for line in second.client.logs(name))
        ),
        "the reason is told",
    )
    eventually(lambda: second.client.visit(name).status_code == 200, "it is back", within_s=60)


# a version that does not work


@pytest.mark.parametrize(
    ("first", "broken"),
    [
        pytest.param(samples.python_hello(1), samples.python_after("raise RuntimeError('broken')"), id="python"),
        pytest.param(samples.worker(1), {"worker.js": "export default { fetch( }"}, id="worker"),
        pytest.param(samples.static(1), samples.python_after("raise RuntimeError('broken')"), id="static-to-python"),
    ],
)
def test_a_failed_redeploy_leaves_the_last_good_version_serving(
    second: Instance, second_apps: Apps, first: samples.Files, broken: samples.Files
) -> None:
    second.client.wait_for_template("workerd")
    name = second_apps.name()
    second.client.deploy_ready(name, first)
    failed = second.client.deploy(name, broken)
    assert (failed.number, failed.phase) == (2, "Failed")
    app = second.client.app(name)
    assert (app["phase"], app["version"], app["serving_version"]) == ("Failed", 2, 1)
    assert "version 2 failed" in app["message"]
    assert "Version 1 still serves" in app["message"]
    assert "version 1" in second.client.visit(name).text
    third = second.client.deploy_ready(name, first)
    assert third.number == 3
    app = second.client.app(name)
    assert (app["reason"], app["serving_version"]) == ("Running", 3)


_FLASK = """
import os
from flask import Flask
app = Flask(__name__)
@app.get('/')
def index():
    return 'version @VERSION@'
"""


def _flask(version: int, *lines: str, **files: str) -> samples.Files:
    code = _FLASK.replace("@VERSION@", str(version)) + "\n".join(lines)
    return {"app.py": code, "requirements.txt": "flask\n", **files}


@pytest.mark.parametrize(
    "files", [{}, {"Procfile": "web: gunicorn -w 2 -b 0.0.0.0:$PORT app:app"}], ids=["our-command", "procfile"]
)
async def test_an_update_that_its_workers_cannot_load_costs_no_visitor_a_request(
    second: Instance, second_apps: Apps, files: dict[str, str]
) -> None:
    name = second_apps.name()
    await asyncio.to_thread(second.client.deploy_ready, name, _flask(1, **files))
    async with Load(second.client, name, get=2) as load:
        await load.quiet_until(3)
        broken = _flask(2, "TOKEN = os.environ['API_TOKEN']", **files)
        failed = await asyncio.to_thread(second.client.deploy, name, broken)
        await load.quiet_until(10)
    assert (failed.phase, failed.reason) == ("Failed", "StartFailed")
    assert "needs the environment variable API_TOKEN" in failed.message
    assert second.client.app(name)["serving_version"] == 1
    assert not load.failed, load.failed[:5]
    assert {one.version for one in load.seen} == {1}


def test_which_of_several_ports_is_served_is_told(second: Instance, second_apps: Apps) -> None:
    deployed = second_apps.deploy(
        {
            "app.py": """
import threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class H(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(self.server.says)
def serve(port, says):
    server = ThreadingHTTPServer(("", port), H)
    server.says = says
    server.serve_forever()
METRICS_PORT = 9100
threading.Thread(target=serve, args=(METRICS_PORT, b"metrics"), daemon=True).start()
time.sleep(1)
PORT = 5000
serve(PORT, b"pages")
"""
        }
    )
    assert deployed.phase == "Ready"
    assert second.client.visit(deployed.app_id).text == "pages"
    assert "it listens on 5000 and 9100: 5000 is served, since " in second.client.app(deployed.app_id)["message"]


@pytest.mark.parametrize(
    "files", [{}, {"Procfile": "web: gunicorn -b 0.0.0.0:$PORT app:app"}], ids=["our-command", "procfile"]
)
def test_an_app_whose_first_request_fails_is_ready_with_a_note_until_it_succeeds(
    second: Instance, second_apps: Apps, files: samples.Files
) -> None:
    source = (
        "from flask import Flask\nDIVISOR = [0]\napp = Flask(__name__)\n"
        "@app.get('/')\ndef index():\n    return str(1 / DIVISOR[0])\n"
        "@app.get('/mend')\ndef mend():\n    DIVISOR[0] = 1\n    return 'mended'\n"
    )
    deployed = second_apps.deploy({"app.py": source, "requirements.txt": "flask\n", **files})
    name = deployed.app_id
    assert (deployed.phase, second.client.app(name)["failing"]) == ("Ready", None), "nobody has asked it yet"
    assert second.client.visit(name, "/favicon.ico").status_code == 404
    assert second.client.visit(name, "/?secret=1").status_code == 500
    told = "GET / was answered 500 before any request succeeded: ZeroDivisionError: division by zero (app.py, line 6)"
    eventually(lambda: second.client.app(name)["failing"] == told, "the note says why", within_s=10)
    assert second.client.app(name)["phase"] == "Ready"
    assert second.client.visit(name, "/mend").text == "mended"
    assert second.client.app(name)["failing"] == told, "that was another page"
    assert second.client.visit(name).text == "1.0"
    eventually(lambda: second.client.app(name)["failing"] is None, "the note ends", within_s=10)


def test_a_worker_that_throws_at_its_first_request_is_told_of_too(second: Instance, second_apps: Apps) -> None:
    second.client.wait_for_template("workerd")
    code = "export default {\n  async fetch(request) {\n    throw new TypeError('no such binding');\n  },\n};\n"
    name = second_apps.deploy({"worker.js": code}).app_id
    assert second.client.visit(name).status_code == 500

    def told() -> bool:
        failing = second.client.app(name)["failing"] or ""
        return failing.startswith("GET / was answered 500") and "TypeError: no such binding" in failing

    eventually(told, "the note says why", within_s=10)


_HAS_STATE = """
import os, sys, threading, time, uuid
from http.server import BaseHTTPRequestHandler, HTTPServer
ME = uuid.uuid4()
class H(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(f'version @VERSION@ {ME}'.encode())
def fails():
    time.sleep(1)
    sys.stderr.write("RuntimeError: the queue went away\\n"); sys.stderr.flush()
    os._exit(3)
if @VERSION@ == 2:
    threading.Thread(target=fails).start()
HTTPServer(('', int(os.environ['PORT'])), H).serve_forever()
"""


def _has_state(version: int) -> samples.Files:
    return {"app.py": _HAS_STATE.replace("@VERSION@", str(version))}


@pytest.mark.parametrize(
    "before", [_has_state(1), samples.worker(1), samples.static(1)], ids=["python", "worker", "site"]
)
def test_a_version_that_ends_soon_after_it_went_live_gives_way_to_the_one_before(
    second: Instance, second_apps: Apps, before: samples.Files
) -> None:
    second.client.wait_for_template("workerd")
    name = second_apps.name()
    second.client.deploy_ready(name, before)
    first = second.client.visit(name).text
    answer = second.client.post_deploy(name, _has_state(2))
    assert (answer.status_code, answer.json()["phase"]) == (200, "Ready"), "it was live"
    failed = eventually(
        lambda: found if (found := _version(second, name, 2))["phase"] == "Failed" else None, "it gave way"
    )
    assert failed is not None
    assert failed["reason"] == "Crashed"
    assert "it exited with status 3" in failed["message"]
    assert "RuntimeError: the queue went away" in failed["message"]
    app = second.client.app(name)
    assert (app["phase"], app["reason"], app["serving_version"]) == ("Failed", "Crashed", 1)
    assert "Version 1 still serves." in app["message"]
    assert second.client.visit(name).text == first, "it is the very same process"
    second.client.deploy_ready(name, _has_state(3))
    assert "version 3" in second.client.visit(name).text
    assert second.client.app(name)["restarts"] == 1, "nobody started it again"


def _version(vibed: Instance, name: str, number: int) -> dict[str, Any]:
    found: dict[str, Any] = vibed.client.ask("GET", f"/v1/apps/{name}/versions/{number}")
    return found


# sources that are refused


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info


_PAGE = (_member("index.html"), b"<h1>hi</h1>")

REFUSED = [
    pytest.param(b"this is no archive", "NotGzip", id="text"),
    pytest.param(b"", "NotGzip", id="nothing"),
    pytest.param(gzip.compress(b"neither is this" * 100), "NotTar", id="gzip-of-text"),
    pytest.param(packed(samples.static(1))[:-20], "TruncatedArchive", id="truncated"),
    pytest.param(packed(samples.static(1)) * 2, "TrailingData", id="concatenated"),
    pytest.param(_tar(_PAGE, (_member("../evil"), b"x")), "PathTraversal", id="traversal"),
    pytest.param(_tar(_PAGE, (_member("/etc/evil"), b"x")), "AbsolutePath", id="absolute"),
    pytest.param(_tar(_PAGE, (_member("l", tarfile.SYMTYPE, "/etc/passwd"), b"")), "LinkOutside", id="link-outside"),
    pytest.param(_tar(_PAGE, (_member("l", tarfile.SYMTYPE, "nowhere"), b"")), "DanglingLink", id="dangling-link"),
    pytest.param(_tar(_PAGE, (_member("d", tarfile.CHRTYPE), b"")), "DeviceFile", id="device"),
    pytest.param(_tar(_PAGE, _PAGE), "DuplicateName", id="duplicate"),
    pytest.param(_tar(), "EmptyArchive", id="empty"),
    pytest.param(_tar(_PAGE, (_member("zeros"), bytes(64 << 20))), "CompressionRatio", id="bomb"),
]


@pytest.mark.parametrize(("source", "code"), REFUSED)
def test_a_bad_archive_is_refused_by_name_and_leaves_nothing(
    second: Instance, second_apps: Apps, source: bytes, code: str
) -> None:
    name = second_apps.name()
    answer = second.client.post_deploy(name, source)
    body = answer.json()
    assert body["code"] == code, body
    assert 400 <= answer.status_code < 500
    assert body["message"]
    assert second.client.api("GET", f"/v1/apps/{name}").status_code == 404


def test_a_source_that_is_too_large_is_refused(second: Instance, second_apps: Apps) -> None:
    import os

    answer = second.client.post_deploy(second_apps.name(), b"\x1f\x8b" + os.urandom(51 << 20))
    assert answer.status_code == 413, answer.text


@pytest.mark.parametrize(
    ("source", "code"),
    [
        pytest.param({"pom.xml": "<project/>", "src/main/java/A.java": "class A {}"}, "UnsupportedRuntime", id="java"),
        pytest.param({"Cargo.toml": "[package]\nname='x'", "src/main.rs": ""}, "UnsupportedRuntime", id="rust"),
        pytest.param({"analysis.ipynb": "{}"}, "NotAWebApp", id="notebook"),
        pytest.param({"README.md": "# nothing"}, None, id="readme-alone"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_with_what_would_work(
    second: Instance, second_apps: Apps, source: samples.Files, code: str | None
) -> None:
    answer = second.client.post_deploy(second_apps.name(), source)
    body = answer.json()
    assert answer.status_code == 422, body
    assert code is None or body["code"] == code
    assert body["details"]["hint"]
    assert body["details"]["retryable"] is False


@pytest.mark.parametrize(
    ("metadata", "status", "code"),
    [
        pytest.param({"name": "Not_A_Name"}, 422, "InvalidName", id="bad-name"),
        pytest.param({"name": "api"}, 422, "InvalidName", id="reserved-name"),
        pytest.param({"name": "ok", "ttl": "1h"}, 422, "NotSupported", id="not-built-yet"),
        pytest.param({"name": "ok", "nonsense": 1}, 422, "InvalidRequest", id="unknown-field"),
        pytest.param({"name": "ok", "env": {"A": "1"}}, 422, "InvalidRequest", id="env-shape"),
        pytest.param({"name": "ok", "runtime": {"template": "cobol-60"}}, 422, None, id="unknown-template"),
    ],
)
def test_bad_metadata_is_refused_with_the_fields_name(
    second: Instance, metadata: dict[str, object], status: int, code: str | None
) -> None:
    import json

    answer = second.client.api(
        "POST",
        "/v1/deploy",
        files={"source": ("s", packed(samples.static(1)))},
        data={"metadata": json.dumps(metadata)},
    )
    assert answer.status_code == status, answer.text
    assert code is None or answer.json()["code"] == code
