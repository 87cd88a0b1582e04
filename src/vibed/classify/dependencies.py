"""What an app needs, compared with what its template has: the decision with its packages, or a refusal."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from vibed.classify import (
    calls_out,
    node_dependencies,
    node_install,
    python_dependencies,
    python_install,
    python_version,
    started,
)
from vibed.classify.decision import Decision
from vibed.classify.errors import DependenciesMissing
from vibed.classify.needs import Needs
from vibed.classify.project import Project

_PYTHON = re.compile(r"python-(\d)(\d+)")


def compared(project: Project, decision: Decision, installs: Collection[str] = ()) -> Decision:
    """Check what it needs against the template. `installs`: the kinds of app for which the rest can be installed.

    Raises `DependenciesMissing`, `BadRequirements`.
    """
    packages = project.packages(decision.template)
    can_install = decision.kind in installs
    if decision.kind == "python":
        match = _PYTHON.fullmatch(decision.template)
        python = f"{match[1]}.{match[2]}" if match else "3.13"
        files = started.entries(project, decision)
        tree, sources = project.tree, project.sources
        if can_install and packages is not None:
            ways = filter(None, (decision, decision.otherwise))
            commands = [" ".join(way.argv) or way.shell or "" for way in ways]
            found = python_install.needs(tree, sources, files, packages, python, commands)
        else:
            found = python_dependencies.dependencies(tree, sources, files, packages, python)
        if found.missing:
            _refuse(decision, found)
        told = (python_version.note(project.tree, python), calls_out.note(_texts(project, decision)))
        found.notes += filter(None, told)
        env = dict(decision.env)
        if found.vendored:
            env["PYTHONPATH"] = ":".join(filter(None, [env.get("PYTHONPATH"), *(f"/app/{f}" for f in found.vendored)]))
        return replace(
            decision,
            dependencies=tuple(found.names),
            packages=tuple(found.packages),
            install=found.install,
            env=env,
            notes=(*decision.notes, *found.notes),
        )
    if decision.made is not None:
        names = tuple(sorted(project.node.all_dependencies))
        return replace(decision, dependencies=names, install=node_install.for_build(project.node))
    if decision.kind in ("node", "worker"):
        files = started.entries(project, decision)
        worker = decision.kind == "worker"
        if can_install and packages is not None and not worker:
            found = node_install.needs(project.node, files, packages)
        else:
            found = node_dependencies.dependencies(project.node, files, packages, imported_only=worker)
        if found.missing:
            _refuse(decision, found)
        found.notes += filter(None, [calls_out.note(_texts(project, decision))])
        return replace(
            decision,
            dependencies=tuple(found.names),
            packages=tuple(name for name in found.names if name in (packages or {})),
            install=found.install,
            notes=(*decision.notes, *found.notes),
        )
    return decision


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
