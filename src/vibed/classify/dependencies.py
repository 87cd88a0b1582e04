"""What an app needs, compared with what its template has: the decision with its packages, or a refusal."""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Collection, Mapping
from dataclasses import replace

from vibed.apps.app import Elsewhere
from vibed.classify import (
    calls_out,
    node_dependencies,
    node_install,
    python_dependencies,
    python_install,
    python_version,
    started,
    versions,
    worker_build,
)
from vibed.classify.decision import Decision
from vibed.classify.errors import DependenciesMissing, UnsupportedRuntime
from vibed.classify.needs import Needs
from vibed.classify.project import Project
from vibed.classify.python_command import as_it_is_installed

_PYTHON = re.compile(r"python-(\d)(\d+)")


def compared(project: Project, decision: Decision, installs: Collection[str] = (), *, named: bool = False) -> Decision:
    """Check what it needs against the template. `installs`: the kinds of app for which the rest can be installed; those
    may run on another template of their language, unless the user has `named` one.

    Raises `DependenciesMissing`, `BadRequirements`, `UnsupportedRuntime`.
    """
    kind, usual = decision.kind, decision.template
    there = _versions(project, kind)
    number = next((number for number, name in there.items() if name == usual), None)
    if named or kind not in installs or decision.made is not None or number is None:
        return _on(project, decision, installs)
    entry = next(iter(started.entries(project, decision)), "")
    asked = versions.python if kind == "python" else versions.node
    choice = versions.choose(asked(project.tree, posixpath.dirname(entry)), there, number)
    found = _on(project, replace(decision, template=there[choice.number]), installs, there)
    runs_on = versions.shown(kind, choice.number)
    notes = [f"runs on {runs_on}: {ask.where} asks for {ask.text}" for ask in filter(None, (choice.because,))]
    notes += [f"{ask.where} asks for {versions.asked(kind, ask)}; it runs on {runs_on}" for ask in choice.missed[:2]]
    others: list[Elsewhere] = []
    for other in choice.others if found.install is not None or choice.number != number else ():
        with contextlib.suppress(UnsupportedRuntime):
            there_too = _on(project, replace(decision, template=there[other]), installs, there)
            others.append(Elsewhere(there[other], there_too.install, there_too.packages))
    return replace(found, elsewhere=tuple(others), notes=(*found.notes, *notes))


def _versions(project: Project, kind: str) -> Mapping[int, str]:
    """The templates of a language by the numbers of their versions."""
    facts = (project.templates or {}).items()
    return versions.numbers(kind, {name: one.version for name, one in facts if one.kind == kind and one.version})


def _on(
    project: Project, decision: Decision, installs: Collection[str], there: Mapping[int, str] | None = None
) -> Decision:
    """What it needs on the decision's template. `there`: the others of its language, where one was chosen."""
    packages = project.packages(decision.template)
    can_install = decision.kind in installs
    if decision.kind == "python":
        python = _python(project, decision.template)
        files = started.entries(project, decision)
        tree, sources = project.tree, project.sources
        folders = started.folders(decision, files)
        if can_install and packages is not None:
            ways = filter(None, (decision, decision.otherwise))
            commands = [" ".join(way.argv) or way.shell or "" for way in ways]
            found = python_install.needs(tree, sources, files, packages, python, commands, folders)
        else:
            found = python_dependencies.dependencies(tree, sources, files, packages, python, folders)
        if found.missing:
            _refuse(decision, found)
        about = python_version.note(project.tree, python, sorted(there or ()))
        found.notes += filter(None, ("" if there else about, calls_out.note(_texts(project, decision))))
        env = dict(decision.env)
        if found.vendored:
            env["PYTHONPATH"] = ":".join(filter(None, [env.get("PYTHONPATH"), *(f"/app/{f}" for f in found.vendored)]))
        return replace(
            decision,
            argv=as_it_is_installed(decision.argv, found.install),
            dependencies=tuple(found.names),
            packages=tuple(found.packages),
            install=found.install,
            env=env,
            notes=(*decision.notes, *found.notes),
        )
    if decision.made is not None and decision.made.kind in ("node", "worker"):
        names = tuple(sorted(project.node.all_dependencies))
        install = node_install.for_build(project.node, decision.made, started.entries(project, decision))
        return replace(decision, dependencies=names, install=install)
    if decision.kind in ("node", "worker"):
        files = started.entries(project, decision)
        worker = decision.kind == "worker"
        if can_install and packages is not None and (project.builds or not worker):
            found = node_install.needs(project.node, files, packages, imported_only=worker)
        else:
            found = node_dependencies.dependencies(project.node, files, packages, imported_only=worker)
        if found.missing:
            _refuse(decision, found)
        found.notes += filter(None, [calls_out.note(_texts(project, decision))])
        if worker and found.install is not None:
            decision = replace(decision, bundle=False, made=worker_build.bundled(decision))
        return replace(
            decision,
            dependencies=tuple(found.names),
            packages=tuple(name for name in found.names if name in (packages or {})),
            install=found.install,
            notes=(*decision.notes, *found.notes),
        )
    return decision


def _python(project: Project, template: str) -> str:
    """A template's version of Python, by what is known of it or else by its name."""
    facts = (project.templates or {}).get(template)
    match = _PYTHON.fullmatch(template)
    return (facts.version if facts is not None else "") or (f"{match[1]}.{match[2]}" if match else "3.13")


def _texts(project: Project, decision: Decision) -> list[str]:
    return [project.tree.text(path) for path in started.sources(project, decision)]


def _refuse(decision: Decision, found: Needs) -> None:
    missing = list(found.missing.values())
    several = len(missing) > 1
    shown = ", ".join(missing[:12]) + (f" and {len(missing) - 12} more" if len(missing) > 12 else "")
    raise DependenciesMissing(
        f"it needs {len(missing)} package{'s' if several else ''} that the template does not have: {shown}",
        hint=found.hint(decision.template),
        details={"missing": missing[:200], "unused": found.unused[:200], "template": decision.template},
    )
