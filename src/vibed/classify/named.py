"""A start that the user names: a file, a page, an object, or a command."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from vibed.classify import command_line, foreign, given_command, go_build, workspace_rules
from vibed.classify.decision import GENERAL, Decision
from vibed.classify.errors import BadOverride, ClassifyError
from vibed.classify.project import Project
from vibed.classify.rules import first
from vibed.sources.errors import quoted


def decide(project: Project, entrypoint: str, kinds: frozenset[str] | None) -> Decision:
    """The decision with a start that the user named: a file, a page, or a command."""
    tree = project.tree
    file = entrypoint.removeprefix("./").removeprefix(tree.strip) if " " not in entrypoint else ""
    why = "The entrypoint was named by the user."
    extension = file.rpartition(".")[2]
    if file in tree.paths and extension in ("html", "htm") and _leaves(kinds, "static"):
        folder = file.rpartition("/")[0]
        return replace(project.site.decide(folder, why, page=file), rule="named")
    if file in tree.paths and kinds == frozenset({"worker"}):
        return replace(project.worker._decide(file, "The entrypoint was named by the user"), rule="named")
    if file and (package := workspace_rules.named(project, file)) is not None:
        return replace(package, rule="workspace")
    command, kind = entrypoint, None
    argv: tuple[str, ...] | None = None
    env: Mapping[str, str] = {}
    if file in tree.paths and extension == "py":
        kind, argv = "python", ("python3", file)
        if project.python.serves(file):
            decided = project.python.decide(file)
            argv, env = decided.argv, decided.env
    elif file in tree.paths and extension in ("js", "mjs", "cjs", "ts", "mts", "cts"):
        if kinds is None and project.worker._is_worker(file) and not project.node.serves(file):
            return replace(project.worker._decide(file, "The entrypoint was named by the user"), rule="named")
        kind, argv = "node", project.node.run(file)
    elif file in tree.paths and extension == "go":
        folder = file.rpartition("/")[0]
        return replace(go_build.decide(project, folder), why=why, rule="named")
    elif re.fullmatch(r"[\w.]+:[\w.()]+", entrypoint):
        stem = entrypoint.partition(":")[0].replace(".", "/")
        module = tree.first([f"{root}{stem}{end}" for root in ("", "src/") for end in (".py", "/__init__.py")]) or ""
        beside = "src" if module.startswith("src/") and not stem.startswith("src/") else ""
        frameworks = project.sources.frameworks(module) if module else frozenset()
        asgi = bool(frameworks & {"fastapi", "starlette", "quart", "litestar"})
        served = ("python3", "-m", "uvicorn", entrypoint, "--host", "0.0.0.0", "--port", str(project.port))
        apart = ("--app-dir", beside) if beside else ()
        kind, argv = "python", (*served, *apart) if asgi else project.python.gunicorn(entrypoint, beside)
    else:
        gone = re.search(r"^(?:python3?|node)\s+(?:-u\s+)?([\w./-]+\.(?:py|[cm]?[jt]s))\b", entrypoint)
        if gone and gone[1].removeprefix("./") not in tree.paths:
            raise BadOverride(
                f"the entrypoint starts {quoted(gone[1])}, which is not in the archive",
                hint=f"name one of its files: {', '.join(tree.root[:5])}",
            )
        named, language = command_line.kind_of(entrypoint)
        if language:
            raise BadOverride(f"the entrypoint starts {language}, which no template has", hint=foreign.hint(language))
        if named and _leaves(kinds, named) and (found := given_command.decide(project, entrypoint, "the entrypoint")):
            return replace(found, why=why, rule="named")
        project.passed_over.clear()  # whoever names a program may know that it is there
        text = command_line.with_port(entrypoint, project.port)
        kind, argv = named, command_line.as_arguments(text)
    if kinds is not None and len(kinds & GENERAL) == 1 and kind not in kinds:
        kind = next(iter(kinds & GENERAL))
    if kind is None:
        kind = _guess(project)
    if kind is None or not _leaves(kinds, kind):
        raise BadOverride(
            f"the entrypoint {quoted(entrypoint)} is neither a file of the archive nor a command that is known",
            hint="for example app.py, python3 app.py, node server.js, or name a template with it",
        )
    build: tuple[tuple[str, ...], ...] = ()
    made, install = None, None
    if kind == "go":
        compiled = first(project, frozenset({"go"}))
        build, made, install = compiled.build, compiled.made, compiled.install
    return Decision(
        kind=kind,
        argv=argv or (),
        shell=None if argv else command,
        entrypoint=command,
        why=why,
        build=build,
        made=made,
        install=install,
        env=env,
        rule="named",
    )


def _leaves(kinds: frozenset[str] | None, kind: str) -> bool:
    return kinds is None or kind in kinds


def _guess(project: Project) -> str | None:
    try:
        found = first(project, None).kind
    except ClassifyError:
        return None
    return found if found in GENERAL else None
