"""What the classifier decides, and what it may be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from vibed.apps.app import Build, Elsewhere, Install, Runtime, Start

PORT = 8080
"""What PORT says unless the user says otherwise."""

TEMPLATES = {
    "static": "static-nginx",
    "worker": "workerd",
    "python": "python-313",
    "node": "node-24",
    "go": "go-123",
    "binary": "base-debian",
}
"""The template of each kind of app."""

FAST = frozenset({"static", "worker"})
GENERAL = frozenset({"python", "node", "go", "binary"})
"""The kinds of app of each lane."""


class Override(Protocol):
    """What the user says about the runtime; None leaves it to the classifier."""

    @property
    def lane(self) -> str | None: ...
    @property
    def template(self) -> str | None: ...
    @property
    def entrypoint(self) -> str | None: ...
    @property
    def port(self) -> int | None: ...


class TemplateFacts(Protocol):
    """What the classifier has to know about a template."""

    @property
    def lane(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def packages(self) -> Mapping[str, str]: ...
    @property
    def version(self) -> str:
        """Of its language, empty where it has none."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """How a source runs."""

    kind: str
    """`static`, `worker`, `python`, `node`, `go` or `binary`."""
    entrypoint: str
    """For a person: the command, or the file of a worker, or the page of a site."""
    why: str
    """One sentence."""
    template: str = ""
    rule: str = ""
    """The rule that decided, as docs/reference/classifier.md names it."""
    argv: tuple[str, ...] = ()
    shell: str | None = None
    """A command for `sh -c` where a list of arguments cannot say it; `argv` is empty then."""
    build: tuple[tuple[str, ...], ...] = ()
    """Commands that run in the sandbox before the start."""
    port: int = PORT
    warm: bool = True
    expected_ports: tuple[int, ...] = ()
    """Where the source says that its site listens, the likeliest first."""
    stop_signal: str = ""
    """What tells it to stop, where SIGTERM does not."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables that make it listen where it is looked for; the app's own come after them."""
    strip: str = ""
    root: str = ""
    index: str = "index.html"
    spa: bool = False
    base: str = ""
    """Static: a prefix such as `/repo/` that the pages expect to be served under as well."""
    bundle: bool = False
    options: Mapping[str, object] = field(default_factory=dict)
    dependencies: tuple[str, ...] = ()
    """What it says it needs, by normalised name."""
    packages: tuple[str, ...] = ()
    """What it declares or imports of the template's packages, by the template's names."""
    install: Install | None = None
    """What has to be installed before it starts."""
    elsewhere: tuple[Elsewhere, ...] = ()
    """Other templates that it may run on, the likeliest first."""
    made: Build | None = None
    """What makes what is run of the source."""
    notes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    """Environment variables that its source reads and gives no value to."""
    fills: Mapping[str, str] = field(default_factory=dict)
    """What its source gives the value of such a variable, by name."""
    prepares: str = ""
    """What its source has for making its tables, and nothing runs."""
    otherwise: Decision | None = None
    """What the evidence that comes next says: tried once where the start ends before it serves."""

    @property
    def command(self) -> str:
        """What starts it, in one line."""
        return " ".join(self.argv) or self.shell or ""

    @property
    def lane(self) -> str:
        """`fast` or `general`."""
        return "fast" if self.kind in FAST else "general"

    def runtime(self) -> Runtime:
        """The decision as part of a version."""
        options = dict(self.options)
        if self.env:
            options["env"] = dict(self.env)
        if self.base:
            options["base"] = self.base
        return Runtime(
            lane=self.lane,
            template=self.template or TEMPLATES[self.kind],
            kind=self.kind,
            entrypoint=self.entrypoint,
            why=self.why,
            strip=self.strip,
            root=self.root,
            index=self.index,
            spa=self.spa,
            start=Start(
                argv=self.argv,
                shell=self.shell,
                build=self.build,
                port=self.port,
                warm=self.warm,
                expected_ports=self.expected_ports,
                stop_signal=self.stop_signal,
            ),
            bundle=self.bundle,
            options=options,
            packages=self.packages,
            install=self.install,
            build=self.made,
            elsewhere=self.elsewhere,
            notes=self.notes,
            reads=self.reads,
            fills=dict(self.fills),
            prepares=self.prepares,
            otherwise=self.otherwise.runtime() if self.otherwise else None,
        )
