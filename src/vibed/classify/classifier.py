"""The classifier: a pure function from an archive's table to how the app runs, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from vibed.classify import (
    command_line,
    contents,
    dependencies,
    left_out,
    named,
    not_kept,
    own_tls,
    ports,
    prisma,
    started,
    table_scripts,
    workspace_rules,
)
from vibed.classify import variables as environment
from vibed.classify.decision import FAST, GENERAL, PORT, TEMPLATES, Decision, Override, TemplateFacts
from vibed.classify.errors import BadOverride, NoEntrypoint, ProjectBelow
from vibed.classify.project import Project
from vibed.classify.python_command import as_it_is_installed
from vibed.classify.python_frameworks import best
from vibed.classify.rules import first, following
from vibed.classify.tree import Tree
from vibed.sources.errors import quoted
from vibed.sources.table import ArchiveTable


def classify(
    table: ArchiveTable,
    override: Override | None = None,
    templates: Mapping[str, TemplateFacts] | None = None,
    installs: Collection[str] = (),
) -> Decision:
    """Decide how the app in an archive runs.

    `templates` by name say which packages are there; None skips the comparison. `installs`: the kinds of app for which
    other packages can be installed; `build`: what has to be built is built.
    Raises subclasses of `ClassifyError`.
    """
    tree = Tree.of(table)
    try:
        return _classified(table, tree, override, templates, installs)
    except ProjectBelow as found:
        try:
            inside = _classified(table, tree.below(found.folder), override, templates, installs)
        except NoEntrypoint:
            raise found from None
        return replace(inside, notes=(_where(found), *inside.notes))


def _where(found: ProjectBelow) -> str:
    """In which folder the app is, and what becomes of the others."""
    if not found.beside:
        return f"the app is in {quoted(found.folder)}, the only folder that holds one: what lies beside it is not there"
    pages = ", ".join(map(quoted, found.beside))
    return (
        f"the app is in {quoted(found.folder)}, the only folder that holds a server. The pages in {pages} are not"
        f" there: deploy them under a name of their own (vibed deploy {found.beside[0]}), or have the server serve them"
    )


def _classified(
    table: ArchiveTable,
    tree: Tree,
    override: Override | None,
    templates: Mapping[str, TemplateFacts] | None,
    installs: Collection[str],
) -> Decision:
    asked = override is not None and override.port is not None
    project = Project(tree, templates, (override.port if override else None) or PORT, installs=installs)
    decision = _decided(project, override)
    texts = _texts(project, decision)
    if not asked and (instead := _other_port(decision, texts)) is not None:
        beside = Project(tree, templates, instead, installs=installs)
        other = _decided(beside, override)
        if str(project.port) not in _command(other):  # else it is written out in the command, and the project's own
            project, decision, texts = beside, other, _texts(beside, other)
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
        reads=environment.unset(project, decision),
        fills=environment.filled(project, decision),
        prepares=table_scripts.command(project, decision),
    )
    shown = decision.root + decision.index if decision.kind == "static" else decision.entrypoint
    shown = "" if decision.made is not None else shown
    contents.check(project.tree, [*started.sources(project, decision), shown])
    decision = replace(
        decision,
        expected_ports=_expected_ports(project, decision, texts, asked=asked),
        stop_signal=_stop_signal(project, decision),
    )
    named_template = override is not None and override.template is not None
    compared = dependencies.compared(project, decision, installs, named=named_template)
    return _with_second(project, compared, asked=asked)


def _with_second(project: Project, decision: Decision, *, asked: bool) -> Decision:
    """With what it needs in its second start as well."""
    second = decision.otherwise
    if second is None:
        return decision
    second = replace(
        second,
        argv=as_it_is_installed(second.argv, decision.install),
        template=decision.template,
        strip=decision.strip,
        port=decision.port,
        env={**decision.env, **second.env},
        # what is prepared for the first (tables, settings) is needed by the second
        build=second.build or (decision.build if decision.kind == "python" else ()),
        packages=decision.packages,
        reads=decision.reads,
        fills=decision.fills,
        prepares=decision.prepares,
        install=decision.install,
        otherwise=None,
    )
    ports_ = _expected_ports(project, second, _texts(project, second), asked=asked)
    second = replace(second, expected_ports=ports_, stop_signal=_stop_signal(project, second))
    return replace(decision, otherwise=second)


def _decided(project: Project, override: Override | None) -> Decision:
    """What the rules say where PORT says `project.port`."""
    kinds, template = _asked(override, project.templates)
    entrypoint = override.entrypoint.strip() if override and override.entrypoint else ""
    if entrypoint:
        decision = named.decide(project, entrypoint, kinds)
    else:
        decision = first(project, kinds)
        decision = replace(decision, otherwise=following(project, kinds, decision))
    decision = prisma.prepared(project, workspace_rules.prepared(project, decision))
    template = template or TEMPLATES[decision.kind]
    return replace(decision, template=template, strip=project.tree.strip, port=project.port)


def _command(decision: Decision) -> str:
    return command_line.with_port(" ".join(decision.argv) or decision.shell or "", decision.port)


def _texts(project: Project, decision: Decision) -> list[str]:
    """Of the files that run, where it opens ports."""
    if decision.lane != "general":
        return []
    return [project.tree.text(path) for path in started.sources(project, decision)]


def _other_port(decision: Decision, texts: list[str]) -> int | None:
    """What PORT should say instead, where the source opens that port for something else."""
    return ports.given_instead(texts, decision.port, told=str(decision.port) in _command(decision))


def _expected_ports(project: Project, decision: Decision, texts: list[str], *, asked: bool) -> tuple[int, ...]:
    """The ports on which its site is to be expected; `asked`: the user said what PORT says."""
    if decision.lane != "general":
        return ()
    found = ports.expected(_command(decision), texts, project.tree.text("Dockerfile"), project.port)
    if asked:
        return tuple(dict.fromkeys((project.port, *found)))
    return found if project.port == PORT else tuple(port for port in found if port != PORT)


def _stop_signal(project: Project, decision: Decision) -> str:
    """What ends the server that the command starts, whoever says that it is started so."""
    if decision.kind != "python":
        return ""
    found = (project.sources.frameworks(path) for path in started.entries(project, decision))
    return next((row.stop for frameworks in found if (row := best(frameworks))), "")


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
