"""What lists of packages ask for by themselves: a layer that is made before any app asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vibed.apps.app import Install
from vibed.classify import node_install, node_sharing, python_install
from vibed.classify.decision import TEMPLATES, TemplateFacts
from vibed.classify.errors import BadOverride, BadRequirements
from vibed.classify.node_app import NodeApp
from vibed.classify.python_source import Sources
from vibed.classify.tree import Tree
from vibed.sources.errors import quoted
from vibed.sources.table import ArchiveTable


def installs(
    table: ArchiveTable, templates: Mapping[str, TemplateFacts], template: str | None = None, *, development: bool
) -> tuple[str, list[tuple[str, Install]]]:
    """The folder that wraps everything, and what its lists ask for, each with the template that it is for: `template`,
    or the usual one of its language. `development`: with what an app is built with.

    Raises `BadRequirements`, `BadOverride`, `DependenciesMissing`.
    """
    tree = Tree.of(table)
    kinds = ("python", "node") if template is None else (_kind(templates, template),)
    found = []
    for kind in kinds:
        on = template or TEMPLATES[kind]
        install = _python(tree, templates[on]) if kind == "python" else _node(tree, development=development)
        if install is not None:
            found.append((on, install))
    if not found:
        raise BadRequirements(
            "nothing has to be installed for what is listed: no list asks for a package that the template has not",
            hint="give a requirements.txt, pyproject.toml, Pipfile or package.json, with its lock if it has one",
        )
    return tree.strip, found


def _kind(templates: Mapping[str, TemplateFacts], template: str) -> str:
    kind = templates[template].kind if template in templates else ""
    if kind not in ("python", "node"):
        named = sorted(name for name, facts in templates.items() if facts.kind in ("python", "node"))
        raise BadOverride(
            f"nothing is installed for the template {quoted(template)}", hint=f"one of {', '.join(named)}"
        )
    return kind


def _python(tree: Tree, facts: TemplateFacts) -> Install | None:
    found = python_install.needs(tree, Sources(tree), [], facts.packages, facts.version, [""])
    if found.install is None or not (found.install.wanted or found.install.files):
        return None
    if found.install.private:
        _refuse("a folder or a file of its own source")
    return replace(found.install, optional=())


def _node(tree: Tree, *, development: bool) -> Install | None:
    if tree.package is None:
        return None
    node = NodeApp(tree)
    if not (node.all_dependencies if development else node.dependencies):
        return None
    if node.workspaces.members or node_sharing.belongs_to_source(node):
        _refuse("its own folders, scripts or settings")
    return node_install.alone(node, development=development)


def _refuse(what: str) -> None:
    raise BadRequirements(
        f"it cannot be made beforehand: {what} decide what is installed, and nobody else could have it",
        hint="leave those out; what registries have can be made beforehand",
    )
