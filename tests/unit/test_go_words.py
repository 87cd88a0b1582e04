"""What the go command says about a failed build, as its owner is told: what is wrong, and what to change."""

from __future__ import annotations

import pytest

from vibed.apps.app import Build
from vibed.runtimes.builds.go import explain, failure
from vibed.runtimes.layers.go import newest
from vibed.runtimes.layers.steps import StepFailed

CASES = {
    "a compile error": (
        "# example.com/x\n./main.go:14:2: undefined: nothing\n./main.go:20:5: x declared and not used\n",
        "main.go:14: undefined: nothing; and 1 more",
        "",
    ),
    "a compile error in a folder": (
        "# example.com/x/internal/web\ninternal/web/pages.go:3:2: missing return\n",
        "internal/web/pages.go:3: missing return",
        "",
    ),
    "a syntax error": (
        "main.go:5:1: syntax error: non-declaration statement outside function body\n",
        "main.go:5: syntax error: non-declaration statement outside function body",
        "",
    ),
    "a module that is older than its Go": (
        "# golang.org/x/old\n/tmp/go/pkg/mod/golang.org/x/old@v0.1.0/a.go:9:2: undefined: syscall.X\n",
        "/tmp/go/pkg/mod/golang.org/x/old@v0.1.0/a.go:9: undefined: syscall.X",
        "go get a newer one",
    ),
    "pages that are not there": (
        "main.go:12:12: pattern dist/*: no matching files found\n",
        "main.go:12: what it embeds is not in the archive: dist/*",
        "deploy that with the rest",
    ),
    "a module that nobody has": (
        "go: downloading example.com/lost/one v1.0.0\ngo: example.com/lost/one@v1.0.0: reading "
        "http://127.0.0.1:3128/go/example.com/lost/one/@v/v1.0.0.mod: 404 Not Found\n\tserver response: no\n",
        "no module proxy has example.com/lost/one@v1.0.0",
        "go mod vendor",
    ),
    "a module that nobody has, by who imports it": (
        "main.go:3:8: example.com/lost@v1.0.0: reading http://127.0.0.1:3128/go/example.com/lost/@v/v1.0.0.zip: 404\n",
        "no module proxy has example.com/lost@v1.0.0",
        "go mod vendor",
    ),
    "an import of no package": (
        'main.go:4:2: package internal/helpers is not in std (/usr/local/go/src/internal/helpers)\n',
        "main.go:4: package internal/helpers is not in std (/usr/local/go/src/internal/helpers)",
        "",
    ),
    "sums that do not fit": (
        "verifying example.com/two@v1.0.0: checksum mismatch\n\tdownloaded: h1:a\n\tgo.sum: h1:b\n\nSECURITY ERROR\n",
        "example.com/two@v1.0.0 is not what go.sum, or the checksum database, says that it is",
        "remove its lines from go.sum",
    ),
    "a go.mod that is none": (
        "go: errors parsing go.mod:\ngo.mod:3: unknown directive: requires\n",
        "go.mod cannot be read: unknown directive: requires",
        "mend that line",
    ),
    "a release that there is not": (
        "go: download go1.99.0 for linux/amd64: toolchain not available\n",
        "download go1.99.0 for linux/amd64: toolchain not available",
        "lower the `go`",
    ),
    "something else": ("go: downloading a.b/c v1\ngo: lookup disabled by x\n", "lookup disabled by x", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_first_error_is_told_with_its_file_and_line(case: str) -> None:
    said, message, hint = CASES[case]
    told, what_to_change = explain(said)
    assert told == message
    assert hint in what_to_change
    assert "127.0.0.1" not in told + what_to_change


def test_what_a_package_in_c_lacks_is_told() -> None:
    said = "# github.com/ann/pictures\nwebp.go:8:10: fatal error: webp/decode.h: No such file or directory\n"
    message, hint = explain(said.replace("webp.go", "../tmp/go/pkg/mod/x/webp.go"), ("github.com/ann/pictures",))
    assert message.startswith(
        "github.com/ann/pictures is compiled by a C compiler: the header webp/decode.h is missing"
    )
    assert "Go alone" in hint
    # an error of its own comes first
    assert explain("./main.go:3:1: undefined: y\n" + said, ("github.com/ann/pictures",))[0].startswith("main.go:3")


def test_a_registry_that_is_away_is_no_fault_of_the_app() -> None:
    build = Build("Go", "go build .", "go-123", site=False, kind="go")
    away = failure(build, StepFailed("failed", said="go: x@v1: 502\n", unreachable=("the registry did not answer",)))
    assert away.may_retry
    assert "the registry did not answer" in away.message
    broken = failure(build, StepFailed("failed", said="./main.go:1:1: undefined: x\n"))
    assert not broken.may_retry
    assert broken.message == "the build failed (go build .): main.go:1: undefined: x"


LISTED = "go 1.9.2rc2 1.20 1.21rc2 1.21.0 1.24.2 1.25rc1 1.25.0 1.25.3 1.25.10 1.26rc1"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("1.25", "1.25.10"),
        ("1.25.2", "1.25.10"),
        ("1.25rc1", "1.25.10"),
        ("1.25.11", None),
        ("1.20", "1.20"),
        ("1.26rc1", "1.26rc1"),
        ("1.26", None),
        ("2", None),
    ],
)
def test_the_newest_release_of_a_version_is_taken(wanted: str, found: str | None) -> None:
    assert newest(wanted, LISTED) == found
