"""Every command of `vibed`: its name, where its code is, and one line of help; code is imported when it is called."""

from __future__ import annotations

from dataclasses import dataclass

PROCESSES = "vibed.cli.processes"
"""What is there is run without a parser of options where there are none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """`attribute` of `module` is a typer function, or a `typer.Typer` for a group of commands."""

    name: str
    module: str
    attribute: str
    help: str
    section: str


ENTRIES: tuple[Entry, ...] = (
    Entry("up", "vibed.cli.machine", "up", "Bring vibeD up on this machine", "This machine"),
    Entry("down", "vibed.cli.machine", "down", "Stop vibeD and its sandboxes; data stays", "This machine"),
    Entry("clean", "vibed.cli.machine", "clean", "Stop vibeD and remove all that it made", "This machine"),
    Entry("doctor", "vibed.cli.machine", "doctor", "Explain what is missing, and its cure", "This machine"),
    Entry("deploy", "vibed.cli.deploy", "deploy", "Put a folder at a live URL", "Apps"),
    Entry("apps", "vibed.cli.apps", "apps", "List your apps", "Apps"),
    Entry("status", "vibed.cli.apps", "status", "Show how an app stands", "Apps"),
    Entry("open", "vibed.cli.apps", "open_app", "Print an app's URL and open it in a browser", "Apps"),
    Entry("logs", "vibed.cli.logs", "logs", "Show what an app prints; -f follows", "Apps"),
    Entry("events", "vibed.cli.logs", "events", "Show what happened to an app", "Apps"),
    Entry("source", "vibed.cli.source", "source", "List an app's files as deployed, or print some", "Apps"),
    Entry("versions", "vibed.cli.versions", "versions", "List an app's versions", "Apps"),
    Entry("rollback", "vibed.cli.versions", "rollback", "Make an earlier version serve again", "Apps"),
    Entry("redeploy", "vibed.cli.versions", "redeploy", "Deploy an app's current version again", "Apps"),
    Entry("delete", "vibed.cli.apps", "delete", "Delete an app with all it has", "Apps"),
    Entry("domains", "vibed.cli.domains", "app", "Give an app domains of your own", "Apps"),
    Entry("templates", "vibed.cli.templates", "templates", "Show the runtimes and what is in them", "Apps"),
    Entry("layers", "vibed.cli.layers", "app", "Show what was installed for apps, or have it be made", "This machine"),
    Entry("keys", "vibed.cli.keys", "app", "Create, list and revoke API keys", "Access"),
    Entry("export", "vibed.cli.moving", "export", "Write all apps, sources and keys to a file", "This machine"),
    Entry("import", "vibed.cli.moving", "take_in", "Take in what another vibeD has exported", "This machine"),
    Entry("whoami", "vibed.cli.keys", "whoami", "Show whose key is used", "Access"),
    Entry("mcp", "vibed.cli.machine", "mcp", "Serve MCP on standard input and output, for AI agents", "Processes"),
    Entry("serve", PROCESSES, "serve", "Run the API (a part of `vibed up`)", "Processes"),
    Entry("controller", PROCESSES, "controller", "Run the controller (a part of `vibed up`)", "Processes"),
    Entry("router", PROCESSES, "router", "Run a router (a part of the chart)", "Processes"),
    Entry("crds", "vibed.cli.crds", "app", "Bring vibeD's definitions into a cluster, or show them", "Kubernetes"),
    Entry("version", "vibed.cli.machine", "version", "Show vibeD's version", "Processes"),
)
