"""The rules for servers: each answers with a decision, refuses, or has no answer (None)."""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace

from vibed.apps.app import Build
from vibed.classify import (
    command_line,
    django_app,
    foreign,
    framework_build,
    front_build,
    given_command,
    go_build,
    shell_text,
)
from vibed.classify.decision import Decision
from vibed.classify.errors import AmbiguousProject, BuildRequired, ClassifyError, NotAWebApp, UnsupportedRuntime
from vibed.classify.evidence import favoured
from vibed.classify.host_commands import HostCommand, host_commands, vercel_entries
from vibed.classify.host_commands import dockerfile as dockerfile_command
from vibed.classify.node_command import Command, decision
from vibed.classify.project import Project
from vibed.sources.errors import quoted


def worker_config(p: Project) -> Decision | None:
    return p.worker.configured()


def worker_module(p: Project) -> Decision | None:
    return p.worker.unconfigured()


def procfile(p: Project) -> Decision | None:
    command = command_line.procfile(p.tree)
    return None if command is None else given_command.decide(p, command, "the web line of its Procfile")


def two_servers(p: Project) -> Decision | None:
    if not (p.python_server and p.node_server and p.node.foreign_runtime() is None):
        return None
    entry = p.node.entry()
    found = favoured(p.tree, [p.python_server, entry[0]]) if entry else None
    if found is None:
        raise AmbiguousProject(
            f"both {quoted(p.python_server)} (Python) and {p.node_server} (Node) are servers, and nothing says which is"
            " started",
            hint="say which: template python-313 or node-24; or deploy each from a folder of its own",
            details={"candidates": [p.python_server, p.node_server]},
        )
    path, where = found
    if path == p.python_server:
        decided = p.python.decide(path)
    else:
        decided = decision(Command(p.node.run(path), file=path), f"It is a Node app: {where} starts {quoted(path)}.")
    told = f"{entry[0] if entry and path == p.python_server else p.python_server} is a server as well: {where} starts"
    return replace(decided, notes=(*decided.notes, f"{told} {path}"))


def django(p: Project) -> Decision | None:
    return django_app.django(p.python)


def python_server(p: Project) -> Decision | None:
    return p.python.decide(p.python_server) if p.python_server else None


def python_script(p: Project) -> Decision | None:
    return p.python.script()


def node_framework(p: Project) -> Decision | None:
    found = p.node.framework()
    if found is None:
        return None
    package, name, folder = found
    built = p.site.built(folder)
    if built:
        return p.site.decide(built, f"It is a {name} app, and {quoted(built)} holds its static export.")
    made = framework_build.framework(p, package, name, folder)
    if made is not None:
        return made
    raise BuildRequired(
        f"it is a {name} app: a server framework with a build step, which is not a static site",
        hint=(
            f"if it can be exported as static files, do so and deploy {folder}/; otherwise write the server with"
            " Express or Hono"
        ),
        details={"framework": name, "output": folder},
    )


def foreign_javascript(p: Project) -> Decision | None:
    name = p.node.foreign_runtime()
    if name:
        raise UnsupportedRuntime(f"it is written for {name}, which no template has", hint=foreign.hint(name))
    return None


def node_start(p: Project) -> Decision | None:
    if p.tree.package is None or not p.node.scripts:
        return None
    if _is_other_program(p):
        return None
    try:
        found = p.scripts.from_start_script()
    except BuildRequired as error:
        built = _built_start(p)
        if built is not None:
            return built
        developed = p.scripts.from_dev_script()
        if developed is None:
            raise
        command, script = developed
        made = _unbuilt(p, command.file)
        why = f"It is a Node app: what the script {quoted(script)} of package.json runs needs no build."
        note = f"not started as its start script says: {error.message}"
        return replace(decision(replace(command, notes=(*command.notes, note)), why), made=made)
    if found is None:
        return None
    command, script = found
    if p.node.only_builds(command.file):
        return None
    if (compiled := _compiled_once(p, command)) is not None:
        return compiled
    made = _unbuilt(p, command.file)
    why = f"It is a Node app: the script {quoted(script)} of package.json starts it."
    return replace(decision(command, why), made=made)


def _compiled_once(p: Project, command: Command) -> Decision | None:
    """What `nest start`, which compiles whenever it starts, comes to where the build script does that once."""
    made = front_build.whole(p, "") if command.argv[:2] == ("nest", "start") else None
    if made is None:
        return None
    scripts = replace(p.scripts, built=True)
    texts = [text for name in ("start:prod", "prod", "serve") if (text := p.node.scripts.get(name))]
    ready = [found for text in texts if (found := scripts.command(text)) and found.argv[:1] == ("node",)]
    why = f"It is a Nest app: it is built ({made.script}), and what that makes is started."
    return replace(decision(ready[0] if ready else Command(("node", "dist/main.js")), why), made=made)


def _built_start(p: Project) -> Decision | None:
    """What the start script starts once the build script has run, where that can be done here."""
    made = front_build.whole(p, "")
    found = replace(p.scripts, built=True).from_start_script() if made is not None else None
    if made is None or found is None:
        return None
    command, script = found
    why = f"It is a Node app: it is built ({made.script}), and the script {quoted(script)} of package.json starts it."
    return replace(decision(command, why), made=made)


def node_entry(p: Project) -> Decision | None:
    if _is_other_program(p):
        return None
    found = p.node.entry()
    if found:
        path, why = found
        made = _unbuilt(p, path)
        command = p.node.run(path)
        others = p.node.also_serving(path)
        told = f"{', '.join(map(quoted, others[:5]))} would serve as well: name an entrypoint if another is meant"
        started = Command(command, notes=(told,) if others else ())
        return replace(decision(started, f"It is a Node app: {quoted(path)} {why}."), made=made)
    script = p.scripts.from_dev_script()
    if script:
        command_, name = script
        watched = "build" in p.node.scripts and any(p.scripts.watches(text) for text in command_.left)
        made = front_build.whole(p, "") if watched else None
        built = f"it is built ({made.script}), and " if made else ""
        why = f"It is a Node app: {built}what the script {quoted(name)} runs is a server."
        return replace(decision(command_, why), made=made)
    for path in _entry_files(p):
        if argv := p.node.exported(path):
            return decision(Command(argv), f"It is a Node app: {quoted(path)} exports one, which is made to listen.")
    return None


def _entry_files(p: Project) -> list[str]:
    main = p.node.package.get("main")
    named = p.node.file(main) if isinstance(main, str) else None
    return [*([named] if named else []), *p.node.entries()]


def _is_other_program(p: Project) -> bool:
    for package, sort, instead in (
        ("electron", "a desktop program (Electron)", "deploy its pages as static files"),
        ("react-native", "a mobile app (React Native)", "export it for the web (expo export) and deploy dist/"),
        ("expo", "a mobile app (Expo)", "export it for the web (expo export) and deploy dist/"),
        ("discord.js", "a chat bot", "give it a web page: a server that listens on PORT"),
        ("telegraf", "a chat bot", "give it a web page: a server that listens on PORT"),
    ):
        if package in p.node.all_dependencies and not p.node.entry():
            raise NotAWebApp(f"it is {sort}", hint=instead)
    return False


def _unbuilt(p: Project, path: str) -> Build | None:
    """The build that makes the pages which a server serves and which are not there. Raises `BuildRequired` where it
    cannot be done here."""
    folder = p.node.unbuilt_folder(path)
    if folder:
        made = front_build.whole(p, "")
        if made is not None and "/" not in folder:
            return made
        raise BuildRequired(
            f"{quoted(path)} serves the pages in {quoted(folder)}, which its build script makes and which are not in"
            " the archive",
            hint=f"run npm run build and deploy {folder}/ with the rest, also if .gitignore names it",
            details={"output": folder},
        )
    return None


def go_server(p: Project) -> Decision | None:
    if not p.tree.known(".go"):
        return None
    folder = p.go.server()
    return None if folder is None else go_build.decide(p, folder)


def host_file(p: Project) -> Decision | None:
    for path in vercel_entries(p.tree):
        why = f"There is a vercel.json, whose host serves what ‘{path}’ exports"
        if path.endswith(".py") and p.python.serves(path):
            return replace(p.python.decide(path), why=f"{why}.")
        if not path.endswith(".py") and (argv := p.node.run(path) if p.node.serves(path) else p.node.exported(path)):
            return decision(Command(argv), f"{why}.")
    for one in host_commands(p.tree):
        if (told := _told(p, one)) is not None:
            return told
    return None


def dockerfile(p: Project) -> Decision | None:
    found = dockerfile_command(p.tree)
    return _told(p, found) if found else None


def _told(p: Project, one: HostCommand) -> Decision | None:
    """What a command of a host's file comes to here; None where it starts what is not there, or what nothing here
    has: what else there is decides then."""
    command = re.sub(r"(?<![\w./-])/(?:usr/src/)?(?:app|code|workspace|srv)/", "", one.command)
    parts = shell_text.parse(command) or ()
    command = (shell_text.inside_shell(parts[0].words) if len(parts) == 1 else None) or command
    kind, language = command_line.kind_of(command)
    if language or kind in (None, "go") or foreign.language(p.tree):
        return None
    if kind == "binary" and not any(word.removeprefix("./") in p.tree.paths for word in command.split()):
        return None
    if not _names_a_file(p, command):
        return None
    try:
        return given_command.decide(p, command, f"the start command in its {one.file}")
    except ClassifyError:
        return None


def _names_a_file(p: Project, command: str) -> bool:
    """Whether a file that it names is there, if it names any."""
    parts = shell_text.parse(command) or ()
    folders = given_command.folders(parts)
    named = [
        posixpath.normpath(posixpath.join(folder, word))
        for part, folder in zip(parts, folders, strict=True)
        for word in part.words
        if re.fullmatch(r"[\w./-]+\.(?:py|[cm]?[jt]s|sh)", word)
    ]
    return not named or any(path in p.tree.paths for path in named)


def program(p: Project) -> Decision | None:
    programs = [path for path in p.tree.root if p.tree.raw(path)[:4] == b"\x7fELF"]
    fitting = [path for path in programs if p.tree.raw(path)[18:20] == b"\x3e\x00"]
    if programs and not fitting:
        raise UnsupportedRuntime(
            f"{quoted(programs[0])} is a program for another processor", hint="compile it for x86-64 Linux"
        )
    if len(fitting) == 1:
        path = fitting[0]
        return Decision(
            kind="binary", argv=(f"./{path}",), entrypoint=f"./{path}", why=f"{quoted(path)} is a program for Linux."
        )
    if fitting:
        raise AmbiguousProject(
            f"{', '.join(map(quoted, fitting[:5]))} are all programs",
            hint="name the one to start in a Procfile: web: ./NAME",
        )
    return None
