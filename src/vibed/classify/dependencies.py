"""What an app needs, compared with what its template has: the decision with its packages, or a refusal."""

from __future__ import annotations

import re
from dataclasses import replace

from vibed.classify import calls_out, node_dependencies, python_dependencies, python_version
from vibed.classify.decision import Decision
from vibed.classify.errors import DependenciesMissing
from vibed.classify.needs import Needs
from vibed.classify.project import Project
from vibed.classify.started import entries, sources

_PYTHON = re.compile(r"python-(\d)(\d+)")


def compared(project: Project, decision: Decision) -> Decision:
    """Check what it needs against the template. Raises `DependenciesMissing`, `BadRequirements`."""
    packages = project.packages(decision.template)
    if decision.kind == "python":
        match = _PYTHON.fullmatch(decision.template)
        python = f"{match[1]}.{match[2]}" if match else "3.13"
        files = entries(project, decision)
        found = python_dependencies.dependencies(project.tree, project.sources, files, packages, python)
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
            env=env,
            notes=(*decision.notes, *found.notes),
        )
    if decision.kind in ("node", "worker"):
        files = entries(project, decision)
        worker = decision.kind == "worker"
        found = node_dependencies.dependencies(project.node, files, packages, imported_only=worker)
        if found.missing:
            _refuse(decision, found)
        found.notes += filter(None, [calls_out.note(_texts(project, decision))])
        used = tuple(name for name in found.names if name in (packages or {}))
        return replace(decision, dependencies=tuple(found.names), packages=used, notes=(*decision.notes, *found.notes))
    return decision


def _texts(project: Project, decision: Decision) -> list[str]:
    return [project.tree.text(path) for path in sources(project, decision)]


def _refuse(decision: Decision, found: Needs) -> None:
    missing = list(found.missing.values())
    several = len(missing) > 1
    shown = ", ".join(missing[:12]) + (f" and {len(missing) - 12} more" if len(missing) > 12 else "")
    raise DependenciesMissing(
        f"it needs {len(missing)} package{'s' if several else ''} that the template does not have: {shown}",
        hint=found.hint(decision.template),
        details={"missing": missing[:200], "unused": found.unused[:200], "template": decision.template},
    )
