"""The classifier: a pure function from an archive's table to how the app runs, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vibed.classify import contents, dependencies, left_out, named, not_kept, own_tls, ports, started
from vibed.classify.decision import FAST, GENERAL, PORT, TEMPLATES, Decision, Override, TemplateFacts
from vibed.classify.errors import BadOverride
from vibed.classify.project import Project
from vibed.classify.rules import first
from vibed.classify.tree import Tree
from vibed.sources.errors import quoted
from vibed.sources.table import ArchiveTable


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
        decision = named.decide(project, entrypoint, kinds)
    else:
        decision = first(project, kinds)
    decision = replace(decision, template=template or TEMPLATES[decision.kind], strip=project.tree.strip, port=port)
    decision = replace(
        decision,
        notes=(
            *decision.notes,
            *dict.fromkeys(project.passed_over),
            *left_out.links(table),
            *left_out.notes(project.tree, decision),
            *not_kept.notes(project, decision),
            *own_tls.notes(project, decision),
            *contents.notes(project.tree),
        ),
    )
    shown = decision.root + decision.index if decision.kind == "static" else decision.entrypoint
    contents.check(project.tree, [*started.sources(project, decision), shown])
    decision = _with_ports(project, decision, asked=override is not None and override.port is not None)
    return dependencies.compared(project, decision)


def _with_ports(project: Project, decision: Decision, *, asked: bool) -> Decision:
    """With the ports on which its site is to be expected; `asked`: the user said what PORT says."""
    if decision.lane != "general":
        return decision
    command = " ".join(decision.argv) or decision.shell or ""
    texts = [project.tree.text(path) for path in started.sources(project, decision)]
    port = decision.port
    instead = None if asked or str(port) in command else ports.given_instead(texts, port)
    found = ports.expected(command, texts, project.tree.text("Dockerfile"), instead or port)
    if instead:
        found = tuple(other for other in found if other != port)
        port = instead
    if asked:
        found = tuple(dict.fromkeys((port, *found)))
    return replace(decision, port=port, expected_ports=found)


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
        return (None if lane is None else FAST if lane == "fast" else GENERAL), None
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
