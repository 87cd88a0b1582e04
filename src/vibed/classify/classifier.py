"""The classifier: a pure function from an archive's table to how the app runs, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from vibed.classify import command_line, foreign, left_out, node_dependencies, ports
from vibed.classify.decision import FAST, PORT, TEMPLATES, Decision, Override, TemplateFacts
from vibed.classify.errors import BadOverride, ClassifyError, DependenciesMissing, NoEntrypoint
from vibed.classify.needs import Needs
from vibed.classify.project import Project
from vibed.classify.python_dependencies import dependencies
from vibed.classify.rules import RULES
from vibed.classify.tree import Tree
from vibed.sources.errors import quoted
from vibed.sources.table import ArchiveTable

_GENERAL = frozenset({"python", "node", "go", "binary"})
_PYTHON = re.compile(r"python-(\d)(\d+)")


def classify(
    table: ArchiveTable,
    override: Override | None = None,
    templates: Mapping[str, TemplateFacts] | None = None,
) -> Decision:
    """Decide how the app in an archive runs.

    `templates` by name say which packages are there; None skips the comparison. Raises subclasses of `ClassifyError`.
    """
    port = (override.port if override else None) or PORT
    project = Project(Tree.of(table), templates, port)
    kinds, template = _asked(override, templates)
    entrypoint = override.entrypoint.strip() if override and override.entrypoint else ""
    if entrypoint:
        decision = _named(project, entrypoint, kinds)
    else:
        decision = _first(project, kinds)
    decision = replace(decision, template=template or TEMPLATES[decision.kind], strip=project.tree.strip, port=port)
    decision = replace(decision, notes=(*decision.notes, *left_out.notes(project.tree, decision)))
    decision = _with_ports(project, decision, asked=override is not None and override.port is not None)
    return _with_dependencies(project, decision)


def _with_ports(project: Project, decision: Decision, *, asked: bool) -> Decision:
    """With the ports on which its site is to be expected; `asked`: the user said what PORT says."""
    if decision.lane != "general":
        return decision
    command = " ".join(decision.argv) or decision.shell or ""
    texts = [project.tree.text(path) for path in _started(project, decision)]
    port = decision.port
    if not asked and str(port) not in command:
        port = ports.own_default(texts, port) or port
    found = ports.expected(command, texts, project.tree.text("Dockerfile"), port)
    return replace(decision, port=port, expected_ports=found)


def _started(project: Project, decision: Decision) -> list[str]:
    """The source files that run, the one that the command names first."""
    if decision.kind == "go":
        return sorted(project.tree.known(".go"), key=lambda path: (path.count("/"), path))
    if decision.kind == "python":
        entry = _python_file(project, decision)
        return [source.path for source in project.sources.reached(entry)] if entry else []
    entry = _node_file(project, decision)
    return project.node.reached(entry) if entry else []


def _asked(
    override: Override | None, templates: Mapping[str, TemplateFacts] | None
) -> tuple[frozenset[str] | None, str | None]:
    """The kinds of app that the user's words leave, None for all, and the template if one was named."""
    if override is None:
        return None, None
    lane, template = override.lane, override.template
    if lane is not None and lane not in ("fast", "general"):
        raise BadOverride(f"there is no lane {quoted(lane)}", hint="fast or general")
    if template is None:
        return (None if lane is None else FAST if lane == "fast" else _GENERAL), None
    facts = (templates or {}).get(template)
    kind = facts.kind if facts else next((k for k, t in TEMPLATES.items() if t == template), None)
    if kind is None and template == "base-al2023":
        kind = "binary"
    if kind is None or (templates is not None and facts is None):
        raise BadOverride(
            f"there is no template {quoted(template)}",
            hint=f"one of {', '.join(sorted(templates or TEMPLATES.values()))}",
        )
    if lane is not None and lane != ("fast" if kind in FAST else "general"):
        raise BadOverride(f"the template {quoted(template)} is not of the {lane} lane", hint="leave the lane out")
    return frozenset({kind}), template


def _first(project: Project, kinds: frozenset[str] | None) -> Decision:
    """What the first rule with an answer says; `kinds` leaves out the rules for others."""
    for rule in RULES:
        if kinds is not None and not _concerns(rule.kind, kinds):
            continue
        decision = rule.apply(project)
        if decision is None or (kinds is not None and decision.kind not in kinds):
            continue
        return replace(decision, rule=rule.name)
    wanted = " or ".join(sorted(kinds or ()))
    raise NoEntrypoint(
        f"nothing in it can be started as {wanted}", hint="name an entrypoint, or leave lane and template to vibeD"
    )


def _concerns(kind: str | None, kinds: frozenset[str]) -> bool:
    return kind in kinds or (kind == "general" and bool(kinds & _GENERAL))


def _named(project: Project, entrypoint: str, kinds: frozenset[str] | None) -> Decision:
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
        return replace(project.go.decide(folder, project.packages("go-123")), why=why, rule="named")
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
        named, language = command_line.kind_of(entrypoint)
        if language:
            raise BadOverride(f"the entrypoint starts {language}, which no template has", hint=foreign.hint(language))
        text = re.sub(r"\$\{?PORT(?::-?\d+)?\}?", str(project.port), entrypoint)
        kind, argv = named, command_line.as_arguments(text)
    if kinds is not None and len(kinds & _GENERAL) == 1 and kind not in kinds:
        kind = next(iter(kinds & _GENERAL))
    if kind is None:
        kind = _guess(project)
    if kind is None or not _leaves(kinds, kind):
        raise BadOverride(
            f"the entrypoint {quoted(entrypoint)} is neither a file of the archive nor a command that is known",
            hint="for example app.py, python3 app.py, node server.js, or name a template with it",
        )
    build: tuple[tuple[str, ...], ...] = ()
    if kind == "go":
        build = _first(project, frozenset({"go"})).build
    return Decision(
        kind=kind,
        argv=argv or (),
        shell=None if argv else command,
        entrypoint=command,
        why=why,
        build=build,
        env=env,
        rule="named",
    )


def _leaves(kinds: frozenset[str] | None, kind: str) -> bool:
    return kinds is None or kind in kinds


def _guess(project: Project) -> str | None:
    try:
        found = _first(project, None).kind
    except ClassifyError:
        return None
    return found if found in _GENERAL else None


def _with_dependencies(project: Project, decision: Decision) -> Decision:
    """Check what it needs against the template. Raises `DependenciesMissing`, `BadRequirements`."""
    packages = project.packages(decision.template)
    if decision.kind == "python":
        match = _PYTHON.fullmatch(decision.template)
        python = f"{match[1]}.{match[2]}" if match else "3.13"
        found = dependencies(project.tree, project.sources, _python_file(project, decision), packages, python)
        if found.missing:
            _refuse(decision, found)
        env = dict(decision.env)
        if found.vendored:
            env["PYTHONPATH"] = ":".join(filter(None, [env.get("PYTHONPATH"), *(f"/app/{f}" for f in found.vendored)]))
        return replace(
            decision,
            dependencies=tuple(found.names),
            packages=tuple(found.packages),
            env=env,
            notes=(*decision.notes, *found.notes),
        )
    if decision.kind in ("node", "worker"):
        entry = decision.entrypoint if decision.kind == "worker" else _node_file(project, decision)
        found = node_dependencies.dependencies(project.node, entry, packages, imported_only=decision.kind == "worker")
        if found.missing:
            _refuse(decision, found)
        used = tuple(name for name in found.names if name in (packages or {}))
        return replace(decision, dependencies=tuple(found.names), packages=used, notes=(*decision.notes, *found.notes))
    return decision


def _refuse(decision: Decision, found: Needs) -> None:
    missing = list(found.missing.values())
    several = len(missing) > 1
    shown = ", ".join(missing[:12]) + (f" and {len(missing) - 12} more" if len(missing) > 12 else "")
    raise DependenciesMissing(
        f"it needs {len(missing)} package{'s' if several else ''} that the template does not have: {shown}",
        hint=found.hint(decision.template),
        details={"missing": missing[:200], "unused": found.unused[:200], "template": decision.template},
    )


def _python_file(project: Project, decision: Decision) -> str | None:
    """The file that the command starts, as far as it can be told."""
    for word in decision.argv:
        if word in project.tree.paths and word.endswith(".py") and word.rpartition("/")[2] != "manage.py":
            return word
        match = re.fullmatch(r"([\w.]+):[\w.()]+", word)
        if match:
            stem = match[1].replace(".", "/")
            roots = ["", "src/", *(f"{word}/" for word in decision.argv if word in project.tree.folders)]
            found = project.tree.first([f"{root}{stem}{end}" for root in roots for end in (".py", "/__init__.py")])
            if found and not found.endswith("wsgi.py"):
                return found
    return None


def _node_file(project: Project, decision: Decision) -> str | None:
    return next((word for word in decision.argv if word in project.tree.paths), None)
