"""Go sources are compiled in a builder, with their modules; a program that is compiled already just runs."""

from __future__ import annotations

import hashlib
import re

import pytest

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance

CHI: samples.Files = {
    "go.mod": "module hello\n\ngo 1.22\n\nrequire github.com/go-chi/chi/v5 v5.2.1\n",
    "main.go": """package main

import (
	"fmt"
	"net/http"
	"os"

	"github.com/go-chi/chi/v5"
)

func main() {
	r := chi.NewRouter()
	r.Get("/hello/{name}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello ", chi.URLParam(r, "name"))
	})
	http.ListenAndServe(":"+os.Getenv("PORT"), r)
}
""",
}
"""Without a go.sum: its lines are added."""


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
    source = str(samples.go(1)["main.go"]).replace("log.Fatal(", "log.Fatal(nothing, ")
    deployed = apps.deploy({**samples.go(1), "main.go": source})
    assert deployed.phase == "Failed"
    assert re.search(r"main\.go:\d+: undefined: nothing", deployed.message)


def test_a_module_is_fetched_and_the_same_source_is_compiled_once(vibed: Instance, apps: Apps) -> None:
    app = apps.ready(CHI)
    assert vibed.client.visit(app, "/hello/ann").text == "hello ann"
    again = apps.ready(CHI)
    assert vibed.client.visit(again, "/hello/bob").text == "hello bob"
    assert "$ go build" in vibed.client.log_text(app)
    assert "$ go build" not in vibed.client.log_text(again)


def test_a_module_that_nobody_has_is_named(vibed: Instance, apps: Apps) -> None:
    source: samples.Files = {
        "go.mod": "module x\n\ngo 1.23\n\nrequire example.com/nothing/here v1.0.0\n",
        "main.go": 'package main\n\nimport "example.com/nothing/here"\n\nfunc main() { here.ListenAndServe() }\n',
    }
    deployed = apps.deploy(source)
    assert (deployed.phase, deployed.version["reason"]) == ("Failed", "BuildFailed")
    assert "example.com/nothing/here" in deployed.message
