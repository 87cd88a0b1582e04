"""A Go app is compiled: what the builder is asked for, and how what went wrong is told to the app's owner.

The program that does it is `vibed-agent gobuild`; the go command's own words are what it sends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vibed.apps.app import Build, Install
from vibed.classify.go_app import BINARY
from vibed.runtimes.layers.asker import Asker
from vibed.runtimes.layers.compiler_words import lack
from vibed.runtimes.layers.provider import Layers
from vibed.runtimes.layers.steps import Order, StepFailed
from vibed.sandboxes.driver import RunFailed

FAILED = "BuildFailed"
_COMPILE = re.compile(r"^(?:\.{1,2}/)*([\w./@ +-]{1,300}?\.go):(\d+)(?::\d+)?: (.+)$")
_CACHED = re.compile(r"^(?:/?tmp/go|go)/pkg/mod/")
_EMBED = re.compile(r"pattern (\S+): (?:no matching files found|cannot embed)")
_ABSENT = re.compile(
    r"(?:go: |: )(?:downloading )?([\w.-]+\.[\w.-]+/[^\s:@]+(?:@[^\s:]+)?)(?:: | requires\b)"
    r".*(?:404|410|not found|unknown revision|invalid version|no configured module proxy)"
    r"|module ([\w.-]+(?:/[^\s:@]+)+): (?:reading|.*404)"
)
_NO_PACKAGE = re.compile(
    r"package (\S+) is not in (?:std|GOROOT)|cannot find (?:module providing )?package \"?([^\s\":]+)"
)
_SUMS = re.compile(r"verifying (\S+?):? (?:checksum mismatch|.*SECURITY ERROR)|verifying (\S+): checksum mismatch")
_TOOLCHAIN = re.compile(
    r"download (go\d\S*)[^\n:]*: toolchain not available|invalid toolchain|cannot find \"?(go1\S+?)\"?(?: |$)"
)
_SYNTAX = re.compile(
    r"^go: errors parsing (\S*go\.(?:mod|work)):\s*\n?(?:\S*?go\.(?:mod|work):\d+: ?)?(.+)", re.MULTILINE
)
_GATE = re.compile(r"https?://127\.0\.0\.1:3128/go/?")
_MOST = 500


def request(build: Build) -> Mapping[str, Any]:
    """What the builder is told."""
    return {"step": "build", "package": build.package, "binary": BINARY.removeprefix("/app/")}


async def otherwise(
    layers: Layers | None,
    order: Order,
    error: StepFailed,
    owner: str,
    app_id: str,
    log_dir: Path,
    say: Callable[[str], None],
) -> Order | None:
    """The same order with what it turned out to need: C compilers, or a Go that a module asks for and go.mod does not
    tell of. None where that is not what failed. Raises `RunFailed`, and errors that are no fault of the app.
    """
    wanted = error.answer.get("needs")
    if isinstance(wanted, str) and layers is not None:
        layer = await layers.provide(
            Install("go", "go", wanted=(wanted[:40],)),
            Asker(order.template, source=Path(), source_digest="", strip="", owner=owner, app_id=app_id),
            log_dir=log_dir,
            on_step=say,
            wanted=lambda: True,
        )
        return replace(order, mounts=(layer.mount,), env=layer.env)
    if _names(error.answer.get("cgo")) and not order.compilers:
        say("getting C compilers (once, about 100 MB)")
        return replace(order, compilers=True, request={**order.request, "compilers": True})
    return None


def failure(build: Build, error: StepFailed) -> RunFailed:
    """What the app's owner is told: what is wrong, whether a retry helps, what to change."""
    message, hint = explain(error.said, _names(error.answer.get("cgo")))
    retryable = False
    if error.exit is not None and error.exit.oom:
        message = "it used more memory than a build may, and was ended"
        hint = "compile it where there is more (CGO_ENABLED=0 GOOS=linux go build), and deploy the program"
    elif error.unreachable:
        message, retryable = error.unreachable[-1], True
        hint = "retrying may help: the module proxy could not be reached, or did not answer"
    else:
        hint = error.also(hint, "an app is built")
    return RunFailed(
        f"the build failed ({build.script}): {message or error}",
        exit=error.exit,
        code=FAILED,
        hint=hint or None,
        retryable=retryable,
    )


def explain(said: str, cgo: tuple[str, ...] = ()) -> tuple[str, str]:
    """What the go command's words come to, and what to change. `cgo`: packages that a C compiler compiles."""
    said = _GATE.sub("", said)
    errors = _compile_errors(said)
    own = [one for one in errors if not _CACHED.match(one[0])]
    if cgo and not own and (found := lack(said)) is not None:
        return f"{cgo[0]} is compiled by a C compiler: {found.message}", "use a package that is written in Go alone"
    if match := _SUMS.search(said):
        return (
            f"{match[1] or match[2]} is not what go.sum, or the checksum database, says that it is",
            "remove its lines from go.sum and run go mod tidy, if you trust what is published now",
        )
    if match := _SYNTAX.search(said):
        return f"{match[1].rpartition('/')[2]} cannot be read: {match[2].strip()[:_MOST]}", "mend that line"
    if match := _EMBED.search(said):
        place = next((f"{file}:{line}: " for file, line, text in errors if match[0] in text), "")
        return (
            f"{place}what it embeds is not in the archive: {match[1]}",
            "deploy that with the rest, also if .gitignore names it: it may be what a build of the pages makes",
        )
    if match := _TOOLCHAIN.search(said):
        return f"{match[0]}", "lower the `go` and `toolchain` lines of go.mod to a version that is released"
    if match := _ABSENT.search(said):
        name = match[1] or match[2]
        return (
            f"no module proxy has {name}",
            "correct its name or version in go.mod; one that is private can be deployed with the rest (go mod vendor)",
        )
    if errors:
        file, line, text = own[0] if own else errors[0]
        more = len(errors) - 1
        told = f"{file}:{line}: {text}"[:_MOST] + (f"; and {more} more" if more else "")
        if own:
            return told, ""
        return told, "it is a module that does not compile with this version of Go: go get a newer one (go get -u)"
    if match := _NO_PACKAGE.search(said):
        return f"there is no package {match[1] or match[2]}", "correct the import, or deploy its folder with the rest"
    lines = [
        line for line in said.splitlines() if line.strip() and not line.startswith(("go: downloading", "go: finding"))
    ]
    first = next((line for line in lines if line.startswith("go: ")), lines[-1] if lines else "")
    return first.removeprefix("go: ").strip()[:_MOST], ""


def _compile_errors(said: str) -> list[tuple[str, str, str]]:
    """File, line and words of each."""
    found = []
    for line in said.splitlines():
        match = _COMPILE.match(line.strip())
        if match and "too many errors" not in match[3] and not match[3].startswith("warning"):
            found.append((match[1].removeprefix("/app/"), match[2], match[3].strip()))
    return found


def _names(value: Any) -> tuple[str, ...]:
    return tuple(str(name)[:200] for name in value[:20]) if isinstance(value, list) else ()
