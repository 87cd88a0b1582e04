"""Go apps where they can be compiled before they start: what is compiled, and by which Go."""

from __future__ import annotations

import pytest

from tests.unit.classify_trees import TEMPLATES, table_of
from vibed.api.metadata import Override
from vibed.apps.app import Runtime
from vibed.classify.classifier import classify
from vibed.classify.errors import AmbiguousProject
from vibed.classify.go_app import BINARY

CAN = frozenset({"python", "node", "build"})
SERVER = 'package main\n\nimport "net/http"\n\nfunc main() { http.ListenAndServe(":8080", nil) }\n'
GIN = "require github.com/gin-gonic/gin v1.10.0\n"


def runtime(files: dict[str, str | bytes], **said: str) -> Runtime:
    return classify(table_of(files), Override(**said) if said else None, TEMPLATES, CAN).runtime()


@pytest.mark.parametrize(
    "files",
    [
        {"go.mod": "module x\n\ngo 1.22\n"},
        {"go.mod": f"module x\n\ngo 1.22\n\n{GIN}"},
        {"go.mod": f"module x\n\ngo 1.12\n\n{GIN}"},
        {"go.mod": f"module x\n\n{GIN}", "vendor/modules.txt": "#"},
        {},
    ],
    ids=["standard library", "modules", "an old go line", "vendored", "no go.mod"],
)
def test_a_server_is_compiled_first_and_then_only_started(files: dict[str, str | bytes]) -> None:
    found = runtime({"main.go": SERVER, **files})
    assert found.build is not None
    assert (found.build.kind, found.build.script, found.build.package) == ("go", "go build .", "")
    assert (found.build.template, found.build.site) == ("go-123", False)
    assert (found.template, found.start.argv, found.start.build) == ("go-123", (BINARY,), ())
    assert found.install is None


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ("go 1.25\n", "1.25"),
        ("go 1.25.3\n", "1.25.3"),
        ("go 1.21\ntoolchain go1.24.2\n", "1.24.2"),
        ("go 1.25.0\n\ntoolchain go1.25.4 // by go get\n", "1.25.4"),
        ("go 1.23.12\r\n", "1.23.12"),
        ("go 1.26rc1\n", "1.26rc1"),
        ("go 1.24\ntoolchain default\n", "1.24"),
        ("go 1.23.9\n", ""),
        ("go 1.23\n", ""),
        ("go 1.9\n", ""),
        ("", ""),
    ],
)
def test_another_toolchain_is_asked_for_where_the_template_has_an_older_go(lines: str, wanted: str) -> None:
    found = runtime({"go.mod": f"module x\n{lines}", "main.go": SERVER}).install
    assert (found.kind, found.wanted) == ("go", (wanted,)) if wanted and found else (found, wanted) == (None, "")


def test_the_go_mod_of_the_package_counts_where_a_folder_is_a_module_of_its_own() -> None:
    found = runtime({"backend/go.mod": "module x\n\ngo 1.26\n", "backend/cmd/web/main.go": SERVER, "README.md": "x"})
    assert found.build is not None
    assert found.install is not None
    assert found.install.wanted == ("1.26",)


def test_of_several_programs_the_one_that_the_user_names_is_compiled() -> None:
    files: dict[str, str | bytes] = {"go.mod": "module x\n", "cmd/shop/main.go": SERVER, "cmd/club/main.go": SERVER}
    with pytest.raises(AmbiguousProject):
        runtime(files)
    for said in ("cmd/club/main.go", "go run ./cmd/club", "go run -race cmd/club/main.go"):
        found = runtime(files, entrypoint=said).build
        assert found is not None
        assert found.package == "cmd/club"


@pytest.mark.parametrize(
    ("line", "argv", "shell"),
    [
        ("bin/app serve --http 0.0.0.0:$PORT", (BINARY, "serve", "--http", "0.0.0.0:8080"), None),
        ("./myapp", (BINARY,), None),
        ("admin -v", (BINARY, "-v"), None),
        ("./myapp migrate && ./myapp serve", (), f"{BINARY} migrate && {BINARY} serve"),
    ],
)
def test_a_program_that_is_compiled_here_gets_the_arguments_of_the_projects_command(
    line: str, argv: tuple[str, ...], shell: str | None
) -> None:
    server = SERVER.replace("8080", "8090")
    files = {"Procfile": f"web: {line}\n", "go.mod": "module x\n", "main.go": server, "cmd/admin/main.go": server}
    found = runtime({**files})
    assert (found.start.argv, found.start.shell) == (argv, shell)
    assert found.build is not None
    assert found.build.package == ("cmd/admin" if "admin" in line else "")


def test_go_run_of_a_procfile_is_compiled_and_keeps_its_arguments() -> None:
    found = runtime({"Procfile": "web: go run . -verbose serve\n", "go.mod": "module x\n", "main.go": SERVER})
    assert found.build is not None
    assert found.start.argv == (BINARY, "-verbose", "serve")


def test_where_nothing_is_built_it_is_compiled_in_its_own_sandbox_as_before() -> None:
    found = classify(table_of({"go.mod": "module x\n", "main.go": SERVER}), None, TEMPLATES).runtime()
    assert (found.build, found.start.build) == (None, (("go", "build", "-o", BINARY, "."),))
