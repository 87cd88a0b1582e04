"""What the scripts of package.json come to: the command behind npm, nodemon, tsx and the like."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from vibed.classify import bun, command_line, package_manager, shell_text
from vibed.classify.decision import PORT
from vibed.classify.errors import BuildRequired
from vibed.classify.node_app import NodeApp
from vibed.classify.node_build import refuse_unbuilt, source_of, stands_against
from vibed.classify.node_command import Command, beside_each_other, in_order
from vibed.classify.node_tools import COMMANDS, PARALLEL, PROGRAMS, RUN_TYPESCRIPT, TAKE_A_VALUE, WATCHES
from vibed.classify.tree import strings
from vibed.classify.wrappers import unwrapped
from vibed.sources.errors import quoted

DEEPEST = 4
_PM2_FILE = re.compile(r"\.config\.c?js$|\.json$")
_PM2_SCRIPT = re.compile(r"""\bscript["']?[ \t]{0,20}:[ \t]{0,20}["'`]([^"'`\n]{1,200})["'`]""")
_PM2_ARGS = re.compile(r"""\bargs["']?[ \t]{0,20}:[ \t]{0,20}["'`]([^"'`\n]{1,200})["'`]""")
_PRELOADS = ("-r", "--require", "--import", "--loader", "--experimental-loader")


@dataclass(frozen=True)
class Scripts:
    """The scripts of a tree's package.json files."""

    node: NodeApp
    port: int = PORT
    """What PORT says."""
    built: bool = False
    """Whether what is not there will be, once the build script has run."""

    def from_start_script(self) -> tuple[Command, str] | None:
        """What `scripts.start` comes to, with the script's name. Raises `BuildRequired` where its file has to be
        built."""
        for name in ("start", "start:prod", "prod", "serve"):
            if name in self.node.scripts:
                command = self.command(self.node.scripts[name]) or self._as_it_is(self.node.scripts[name])
                if command:
                    return command, name
        return None

    def from_dev_script(self) -> tuple[Command, str] | None:
        """What `scripts.dev` comes to when it runs a server file that exists (`tsx server.ts`, `nodemon app.js`)."""
        for name in ("dev", "develop", "watch", "start:dev"):
            if name not in self.node.scripts:
                continue
            try:
                command = self.command(self.node.scripts[name])
            except BuildRequired:
                continue
            if command and command.file and self.node.answers(command.file):
                return replace(command, env={"NODE_ENV": "production", **command.env}), name
        return None

    def watches(self, text: str) -> bool:
        """Whether a command builds, again at every change: in development what the build script does once."""
        call = re.fullmatch(r"(?:npm|pnpm|yarn)(?: run)? ([\w:.-]{1,60})", text)
        return bool(WATCHES.search(self.node.scripts.get(call[1], text) if call else text))

    def scripts(self, folder: str) -> Mapping[str, str]:
        """Those of the package.json in a folder. Raises `BadConfiguration`."""
        path = posixpath.join(folder, "package.json")
        return strings(self.node.tree.json(path).get("scripts")) if self.node.tree.has(path) else {}

    def command(self, text: str, folder: str = "", depth: int = 0) -> Command | None:
        """What a command in `folder` comes to; None for what only serves development, or cannot be told. Raises
        `BuildRequired`."""
        text = command_line.with_port(text, self.port)
        parts = shell_text.parse(text) if depth <= DEEPEST else None
        if not parts or any(part.then == "||" for part in parts):
            return None
        jobs: list[list[shell_text.Simple]] = [[]]
        for at, part in enumerate(parts):
            if at and parts[at - 1].then == "|":
                continue  # What formats a server's output is not needed for it.
            jobs[-1].append(part)
            if part.then == "&":
                jobs.append([])
        found = [
            (_text(text, job), self._in_order(job, folder, depth)) for job in jobs if job and job[0].words != ("wait",)
        ]
        return beside_each_other(found)

    def _in_order(self, parts: Sequence[shell_text.Simple], folder: str, depth: int) -> Command | None:
        at = folder
        commands: list[Command | None] = []
        left: list[str] = []
        for part in parts:
            if part.words[0] == "cd" and len(part.words) == 2:
                at = posixpath.normpath(posixpath.join(at, part.words[1]))
                at = "" if at == "." else at
                if at and at not in self.node.tree.folders:
                    return None
            else:
                commands.append(self._one(part.words, at, depth))
                left += [" ".join(part.words)] if commands[-1] is None else []
        known = [command for command in commands if command]
        if not known or commands[-1] is None:
            return None
        # What comes before the last command prepares: a build that is committed needs it no more.
        if len(known) == len(commands):
            return in_order(known)
        note = f"not run before the start: {', '.join(map(quoted, left[:5]))}"
        return replace(known[-1], notes=(*known[-1].notes, note))

    def _one(self, words: Sequence[str], folder: str, depth: int) -> Command | None:
        inner = unwrapped(words)
        if inner.folder:
            folder = posixpath.normpath(posixpath.join(folder, inner.folder))
        if not inner.words or depth > DEEPEST or any("$" in word for word in inner.words):
            return None
        found = self._tool(inner.words, folder, depth)
        if found is None:
            return None
        if inner.env_file and found.argv[:1] == ("node",):
            found = replace(found, argv=("node", f"--env-file-if-exists={inner.env_file}", *found.argv[1:]))
        return replace(found, env={**inner.env, **found.env})

    def _tool(self, words: tuple[str, ...], folder: str, depth: int) -> Command | None:
        tool, rest = program(words[0]), words[1:]
        if tool in package_manager.NAMES:
            return self._package_manager(tool, rest, folder, depth)
        if tool in PARALLEL:
            return self._parallel(tool, rest, folder, depth)
        if tool == "node":
            return self._node(list(rest), folder, depth)
        if tool == "nodemon" or tool in RUN_TYPESCRIPT or tool in ("pm2", "pm2-runtime", "forever"):
            file = next((word for word in _without_values(tool, rest) if self._file(word, folder)), None)
            if file is None and tool == "nodemon":
                told = next((after for word, after in pairwise(rest) if word in ("-x", "--exec")), "")
                if told:
                    return self.command(told, folder, depth + 1)
                file = None if rest else self._main_file(folder)
                return self._run(file, folder) if file else None
            inside = next((word for word in rest if file and " " in word and file in word), None)
            path = self._file(file, folder) if file else None
            if path and tool.startswith("pm2") and _PM2_FILE.search(path):
                return self._ecosystem(path, folder, depth)
            return self.command(inside, folder, depth + 1) if inside else self._run(path, folder) if path else None
        if text := shell_text.inside_shell(words):
            return self.command(text, folder, depth + 1)
        if COMMANDS.get(tool, tool) in self.node.all_dependencies and tool in COMMANDS:
            file = next((found for word in rest if (found := self._file(word, folder)) and "." in word), "")
            return Command((tool, *rest), None, {}, folder, file)
        if tool in ("sh", "bash") and len(rest) >= 1 and posixpath.join(folder, rest[0]) in self.node.tree.paths:
            return Command(tuple(words), None, {}, folder)
        return None

    def _ecosystem(self, path: str, folder: str, depth: int) -> Command | None:
        """What pm2's own file names, which is no program itself."""
        apps = re.split(_PM2_SCRIPT, self.node.tree.text(path))[1:]
        texts = []
        for script, rest in zip(apps[::2], apps[1::2], strict=True):
            name = script.strip()
            arguments = _PM2_ARGS.search(rest)
            texts.append(f"node {name}" if self._file(name, folder) else f"{name} {arguments[1] if arguments else ''}")
        return beside_each_other([(text, self.command(text, folder, depth + 1)) for text in texts[:8]])

    def _package_manager(self, tool: str, rest: Sequence[str], folder: str, depth: int) -> Command | None:
        call = package_manager.read(tool, rest)
        if call is None:
            named = bun.started(rest) if tool == "bun" and self.node.installs else None
            path = self._file(named[0], folder) if named else None
            return self._run(path, folder, (), named[1]) if named and path else None
        at = posixpath.normpath(posixpath.join(folder, call.folder)) if call.folder else folder
        if call.workspace:
            at = self._workspace(call.workspace) or at
        at = "" if at == "." else at
        if call.words:
            return self._one(call.words, at, depth + 1)
        text = self.scripts(at).get(call.script)
        if text is None:
            # npm's own meaning of a start script that is not there.
            path = self._file("server.js", at) if call.script == "start" else None
            return self._run(path, at) if path else None
        found = self.command(text, at, depth + 1)
        return replace(found, argv=(*found.argv, *call.arguments)) if found and found.argv else found

    def _workspace(self, name: str) -> str | None:
        """The folder of a workspace, by its path or by its package's name."""
        path = posixpath.normpath(name)
        if f"{path}/package.json" in self.node.tree.paths:
            return path
        pattern = re.compile(rf'"name"\s{{0,9}}:\s{{0,9}}"{re.escape(name)}"')
        known = (path for path in self.node.tree.known("/package.json") if pattern.search(self.node.tree.text(path)))
        return next((path.removesuffix("/package.json") for path in known), None)

    def _parallel(self, tool: str, words: Sequence[str], folder: str, depth: int) -> Command | None:
        """`concurrently "npm:a" "node b.js"`, `npm-run-all --parallel a b`, `run-p a b`."""
        scripts = self.scripts(folder)
        texts: list[str] = []
        skip = False
        for word in words:
            if skip or word.startswith("-"):
                skip = not skip and word in (
                    "-n",
                    "--names",
                    "-c",
                    "--prefix-colors",
                    "-p",
                    "--prefix",
                    "--prefixColors",
                )
                continue
            name = word.removeprefix("npm:") if tool in ("concurrently", "conc") else word.partition(" ")[0]
            asked = word.startswith("npm:") or tool not in ("concurrently", "conc")
            if asked and "*" in name:
                pattern = re.compile(re.escape(name).replace(r"\*", ".{0,200}"))
                texts += [text for script, text in scripts.items() if pattern.fullmatch(script)]
            elif asked:
                texts += [scripts[name]] if name in scripts else []
            else:
                texts.append(word)
        found = [(text, self.command(text, folder, depth + 1)) for text in texts[:8]]
        in_turn = tool == "run-s" or (tool.startswith("npm-run-all") and not {"-p", "--parallel"} & set(words))
        if in_turn:
            return found[-1][1] if found else None
        return beside_each_other(found)

    def _node(self, words: list[str], folder: str, depth: int) -> Command | None:
        flags: list[str] = []
        while words and words[0].startswith("-"):
            flag, equals, value = words.pop(0).partition("=")
            if flag == "--run":
                name = value or (words.pop(0) if words else "")
                text = self.scripts(folder).get(name)
                return self.command(text, folder, depth + 1) if text else None
            if flag in ("-e", "--eval", "-p", "--print") and words:
                return Command(("node", *flags, flag, *words), None, {}, folder)
            if flag in (*_PRELOADS, "--env-file", "--env-file-if-exists"):
                value = value if equals else words.pop(0) if words else ""
                if flag in _PRELOADS and any(tool in value for tool in RUN_TYPESCRIPT):
                    continue
                if flag == "--env-file" and posixpath.join(folder, value) not in self.node.tree.paths:
                    flag = "--env-file-if-exists"
                flags += [f"{flag}={value}"] if equals or flag.startswith("--env") else [flag, value]
            elif not flag.startswith(("--watch", "--inspect")):
                flags.append(f"{flag}{equals}{value}")
        if not words:
            return None
        path = self._file(words[0], folder) or (self._main_file(folder) if words[0] in (".", "./") else None)
        notes: tuple[str, ...] = ()
        if path is None:
            path = source_of(self.node, posixpath.normpath(posixpath.join(folder, words[0])))
            reason = stands_against(self.node, path) if path else ""
            if self.built and (path is None or reason):
                return Command(("node", *flags, *words), None, {}, folder)
            if path is None or reason:
                refuse_unbuilt(words[0], "build" in self.scripts(folder), reason)
                return None
            notes = (f"started from its source: {quoted(path)} for {quoted(words[0])}, which is not there",)
        return self._run(path, folder, tuple(flags), words[1:], notes)

    def _main_file(self, folder: str) -> str | None:
        package = posixpath.join(folder, "package.json")
        main = self.node.tree.json(package).get("main") if self.node.tree.has(package) else None
        return (self._file(main, folder) if isinstance(main, str) else None) or self._file("index.js", folder)

    def _file(self, name: str, folder: str) -> str | None:
        return self.node.file(posixpath.join(folder, name))

    def _run(
        self,
        path: str,
        folder: str,
        flags: tuple[str, ...] = (),
        arguments: Sequence[str] = (),
        notes: tuple[str, ...] = (),
    ) -> Command:
        argv = self.node.run(path, flags)
        shown = posixpath.relpath(path, folder) if folder else path
        return Command((*argv[:-1], shown, *arguments), None, {}, folder, path, notes)

    def _names_what_is_there(self, words: Sequence[str]) -> bool:
        """False for `node FILE` where there is no such file."""
        file = next((word for word in words[1:] if not word.startswith("-")), "$")
        return words[0] != "node" or "$" in file or self.node.file(file) is not None

    def _as_it_is(self, text: str) -> Command | None:
        """A script that runs nothing but what the template or the archive has, as the shell command that it is."""
        parts = shell_text.parse(text)
        programs = [unwrapped(part.words).words[:1] for part in parts or ()]
        if not programs or not all(programs):
            return None
        there = [self.node.file(name) or name in PROGRAMS for (name,) in programs]
        moves = [part.words[1] for part in parts or () if part.words[0] == "cd" and len(part.words) == 2]
        there += [posixpath.normpath(folder) in self.node.tree.folders for folder in moves]
        there += [self._names_what_is_there(unwrapped(part.words).words) for part in parts or ()]
        runs = any(name == "node" or self.node.file(name) or name in ("sh", "bash") for (name,) in programs)
        return Command(shell=text) if all(there) and runs else None


def _without_values(tool: str, words: Sequence[str]) -> list[str]:
    """The words of a tool's command that are no options and no values of options."""
    valued = TAKE_A_VALUE | ({"-w", "--watch"} if tool == "nodemon" else set())
    return [word for before, word in pairwise(("", *words)) if not word.startswith("-") and before not in valued]


def _text(text: str, parts: Sequence[shell_text.Simple]) -> str:
    return text[parts[0].starts[0] : parts[-1].end]


def program(word: str) -> str:
    return word.rpartition("/")[2] if word.startswith(("node_modules/", "./node_modules/")) else word
