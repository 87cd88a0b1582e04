"""Go sources are compiled in their sandbox; a program that is compiled already just runs."""

from __future__ import annotations

import hashlib

import pytest

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance


@pytest.fixture(autouse=True)
def _go(vibed: Instance) -> None:
    vibed.client.wait_for_template("go-123")


def test_a_module_is_compiled_and_runs(vibed: Instance, apps: Apps) -> None:
    app = apps.ready(samples.go(1))
    assert vibed.client.visit(app).text == "version 1\n"
    body = b"go" * 400_000
    assert vibed.client.visit(app, "/echo", "POST", content=body).json()["sha256"] == hashlib.sha256(body).hexdigest()
    assert vibed.client.app(app)["runtime"]["template"] == "go-123"


def test_a_compile_error_is_told_with_its_line(vibed: Instance, apps: Apps) -> None:
    source = str(samples.go(1)["main.go"]).replace("log.Fatal(", "nothing(")
    deployed = apps.deploy({**samples.go(1), "main.go": source})
    assert deployed.phase == "Failed"
    told = deployed.message + vibed.client.log_text(deployed.app_id)
    assert "undefined: nothing" in told


def test_a_module_that_is_not_vendored_is_named(vibed: Instance, apps: Apps) -> None:
    source: samples.Files = {
        "go.mod": "module x\n\ngo 1.23\n\nrequire example.com/nothing/here v1.0.0\n",
        "main.go": 'package main\n\nimport "example.com/nothing/here"\n\nfunc main() { here.Run() }\n',
    }
    answer = vibed.client.post_deploy(apps.name(), source)
    body = answer.json()
    if answer.status_code == 422:
        code, message = body["code"], f"{body['message']} {body['details']}"
    else:
        version = vibed.client.settled(body["app_id"], 1)
        code, message = version["reason"], version["message"]
    assert code == "DependenciesMissing"
    assert "example.com/nothing/here" in message
