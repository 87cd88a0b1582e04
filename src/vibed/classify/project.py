"""What the rules look at: a tree with its views."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property

from vibed.classify import below
from vibed.classify.decision import PORT, Decision, TemplateFacts
from vibed.classify.go_app import GoApp
from vibed.classify.node_app import NodeApp
from vibed.classify.node_scripts import Scripts
from vibed.classify.node_tools import SERVERS
from vibed.classify.python_app import PythonApp
from vibed.classify.python_source import Sources
from vibed.classify.script_tools import ScriptTools
from vibed.classify.site import Site
from vibed.classify.tree import Tree
from vibed.classify.worker_app import WorkerApp
from vibed.sources.errors import quoted


class Project:
    """A tree with its views; what is costly is found once, and only when a rule asks."""

    def __init__(
        self,
        tree: Tree,
        templates: Mapping[str, TemplateFacts] | None,
        port: int = PORT,
        *,
        installs: Collection[str] = (),
    ) -> None:
        """`installs`: the kinds of app for which packages can be installed; `build`: what has to be built first can."""
        self.tree = tree
        self.templates = templates
        self.port = port
        self.installs = installs
        self.builds = "build" in installs
        self.passed_over: list[str] = []
        """What said how to start it and could not be followed, in words."""
        self.sources = Sources(tree)
        self.python = PythonApp(tree, self.sources, port)
        self.node = NodeApp(tree, "tsx" in (self.packages("node-24") or {}), "node" in installs)
        self.scripts = Scripts(self.node, port)
        self.script_tools = ScriptTools(self.scripts)
        self.worker = WorkerApp(tree, self.node, self.builds)
        self.go = GoApp(tree)
        self.site = Site(tree)
        self.servers_below: Mapping[str, Decision] | None = None
        """How the servers in its folders are run, once `vibed.classify.halves` has looked."""

    @cached_property
    def folders(self) -> Mapping[str, Project]:
        """Those that hold a project each, none inside another."""
        return {
            folder: Project(self.tree.below(folder), self.templates, self.port, installs=self.installs)
            for folder in below.projects(self.tree)
        }

    def packages(self, template: str) -> Mapping[str, str] | None:
        """What a template has; None when nothing is known of any template."""
        if self.templates is None:
            return None
        return self.templates[template].packages if template in self.templates else {}

    @cached_property
    def python_server(self) -> str | None:
        """The Python file that is a server. Raises `AmbiguousProject`."""
        return self.python.server() if self.tree.known(".py") else None

    @cached_property
    def node_server(self) -> str | None:
        """What makes it a Node server, in words; development tools make none."""
        if self.script_tools.only_development():
            return None
        found = self.node.entry()
        if found:
            return quoted(found[0])
        if SERVERS & self.node.dependencies.keys() and "start" in self.node.scripts:
            return "the start script in package.json"
        return None
