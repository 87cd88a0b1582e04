"""A project of several packages: which of them is the app, and which of the others have to be built before it."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from vibed.apps.app import Build
from vibed.classify import server_rules, site_rules, started
from vibed.classify.decision import TEMPLATES, Decision
from vibed.classify.errors import AmbiguousProject, BuildRequired, ClassifyError
from vibed.classify.project import Project
from vibed.classify.workspaces import Member
from vibed.sources.errors import quoted

_INSIDE = (
    server_rules.node_framework,
    server_rules.node_start,
    server_rules.node_entry,
    site_rules.built_site,
    site_rules.front_end,
    site_rules.index_page,
)
"""The rules that say how one package is run, in their order."""
_ASIDE = re.compile(r"(?:^|[/_-])(?:tests?|e2e|docs?|examples?|storybook|tools?|config|tooling|desktop|mobile|native)$")
"""Packages that are no app where another one may be."""
_OUTPUTS = ("dist", "build", "out")


def member(p: Project) -> Decision | None:
    """The package that is the app, where the root is none itself."""
    spaces = p.node.workspaces
    if not spaces.members or p.site.page("") or p.node.front_end() or p.node.framework():
        return None
    needed = {one.folder for each in spaces.members.values() for one in spaces.needed(each)}
    apps = [each for folder, each in spaces.members.items() if folder not in needed]
    found = _decided(p, [each for each in apps if not _ASIDE.search(each.folder)] or apps)
    servers = [(each, decision) for each, decision in found if decision.lane == "general"]
    if len(servers) == 1:
        served = _served(p, started.sources(p, servers[0][1]))
        if all(each.folder in served for each, decision in found if decision.lane != "general"):
            found = servers
    if not found:
        return None
    if len(found) > 1:
        names = [each.name or each.folder for each, _ in found]
        raise AmbiguousProject(
            f"it is a project of several packages, and {', '.join(map(quoted, names[:5]))} could each be the app",
            hint=f"name one as the entrypoint, for example {names[0]}; each can be deployed under a name of its own",
            details={"candidates": names[:20]},
        )
    return found[0][1]


def named(p: Project, name: str) -> Decision | None:
    """The package that a user named as what is started, by its folder or by its own name."""
    spaces = p.node.workspaces
    one = spaces.members.get(posixpath.normpath(name)) or spaces.by_name.get(name)
    if one is None:
        return None
    return _inside(p, one)


def prepared(p: Project, decision: Decision) -> Decision:
    """With what has to be built first of the packages that an app needs, or whose pages it serves.

    Raises `BuildRequired` where nothing can be built here.
    """
    spaces = p.node.workspaces
    entry = next(iter(started.entries(p, decision)), "") if decision.kind == "node" else ""
    if not entry:
        return decision
    start = spaces.of(entry) or spaces.at(_nearest(p, entry))
    files = started.sources(p, decision)
    first = [one for one in spaces.needed(start) if spaces.unbuilt(one)]
    for folder, output in _served(p, files).items():
        page = spaces.members[folder]
        if output in p.tree.folders:
            continue
        first += [one for one in (*spaces.needed(page), page) if one is page or spaces.unbuilt(one)]
    made = decision.made
    # what its own build does is not done again
    first = [one for one in dict.fromkeys(first) if made is None or _line(one) not in made.script]
    if not first or (made is not None and decision.rule != "workspace" and made.script.startswith("npm run")):
        return decision
    if not p.builds:
        raise BuildRequired(
            f"the package {quoted(first[0].name or first[0].folder)} of this project has to be built first",
            hint=f"build it (npm run {first[0].build}) and deploy what that makes with the rest",
        )
    script = " && ".join([*map(_line, first), *([made.script] if made is not None else [])])
    made = replace(made, script=script) if made is not None else Build("", script, TEMPLATES["node"], site=False)
    return replace(decision, made=made, why=f"{decision.why} What it needs of its own packages is built first.")


def _decided(p: Project, members: Sequence[Member]) -> list[tuple[Member, Decision]]:
    found = []
    trouble: ClassifyError | None = None
    for one in members:
        try:
            decision = _inside(p, one)
        except ClassifyError as error:
            trouble = trouble or error
            continue
        if decision is not None:
            found.append((one, decision))
    if not found and trouble is not None:
        raise trouble
    return found


def _inside(p: Project, one: Member) -> Decision | None:
    """How a package is run, as the rules for a project say it, from the root on."""
    inner = Project(p.tree.below(one.folder), p.templates, p.port, installs=p.installs)
    decision = next((found for rule in _INSIDE if (found := rule(inner)) is not None), None)
    if decision is None:
        return None
    folder = one.folder
    made = decision.made
    if made is not None:
        first = [each for each in p.node.workspaces.needed(one) if p.node.workspaces.unbuilt(each)]
        script = " && ".join([*map(_line, first), f"cd {shlex.quote(folder)} && {made.script}"])
        outputs = tuple(posixpath.normpath(posixpath.join(folder, output)) for output in made.outputs)
        made = replace(made, script=script, outputs=outputs)
    why = f"The package {quoted(one.name or folder)} of this project is the app. {decision.why}"
    decision = replace(decision, made=made, why=why, rule="workspace")
    if decision.lane != "general":
        return replace(decision, root=f"{folder}/{decision.root}" if made is None else decision.root)
    line = decision.shell or f"exec {' '.join(_word(word, folder) for word in decision.argv)}"
    shell = f"cd {shlex.quote(folder)} && {line}"
    return replace(decision, argv=(), shell=shell, entrypoint=shell)


def _word(word: str, folder: str) -> str:
    """A word for the shell; a program of a package is looked for upwards, since it may lie in the root's folder."""
    if word.startswith("node_modules/.bin/"):
        return shlex.quote(word.rpartition("/")[2])
    if word.startswith("node_modules/"):
        places = " ".join("../" * depth + word for depth in range(folder.count("/") + 2))
        return f'"$(ls -d {places} 2>/dev/null | head -n 1)"'
    return shlex.quote(word)


def _line(one: Member) -> str:
    return f"(cd {shlex.quote(one.folder)} && npm run {one.build})"


def _nearest(p: Project, path: str) -> str:
    folder = posixpath.dirname(path)
    while folder and not p.tree.has(f"{folder}/package.json"):
        folder = posixpath.dirname(folder)
    return folder


def _served(p: Project, files: Sequence[str]) -> dict[str, str]:
    """The folders of packages whose built pages a server serves, and where it expects those."""
    text = "\n".join(p.tree.text(path) for path in files)
    found: dict[str, str] = {}
    for folder, one in p.node.workspaces.members.items():
        name = re.escape(folder.rpartition("/")[2])
        if "build" not in one.scripts or not p.tree.has(f"{folder}/index.html"):
            continue
        for output in _OUTPUTS:
            if re.search(rf"""{name}(?:/|["'`],\s{{0,5}}["'`]){output}\b""", text):
                found.setdefault(folder, f"{folder}/{output}")
    return found
