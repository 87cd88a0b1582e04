"""Which programs a project's start script runs: its own, tools for development, or what the template does not have."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from vibed.classify import package_manager, shell_text
from vibed.classify.node_scripts import DEEPEST, Scripts, program
from vibed.classify.node_tools import DEV_SERVERS, FILE_SERVERS, PARALLEL, PROGRAMS, RUNNERS
from vibed.classify.npm_programs import package_of
from vibed.classify.wrappers import unwrapped
from vibed.sources.errors import quoted

_FILES = "python -m http.server"
_INTERPRETER = re.compile(r"python[\d.]*|node|bash|sh|ruby|php|deno|bun")
_FILE = re.compile(r"[\w./-]{1,200}\.(?:py|[cm]?js|[cm]?ts|sh|rb|php)")
_OTHERWISE = "let it start a file of the archive, for example node server.js; or name an entrypoint"


@dataclass(frozen=True)
class ScriptTools:
    """The programs behind the start script."""

    scripts: Scripts

    def only_development(self) -> bool:
        """Whether the start script only starts development servers."""
        tools = self.tools(self.scripts.node.scripts.get("start", ""), "", 0)
        return bool(tools & DEV_SERVERS) and not tools & (PROGRAMS | RUNNERS - {"sh", "bash"})

    def not_understood(self) -> tuple[str, str] | None:
        """Why the start script is none, and what to change; None where it only serves development or files."""
        text = self.scripts.node.scripts.get("start", "")
        tools = self.tools(text, "", 0)
        known = DEV_SERVERS | FILE_SERVERS | PROGRAMS | RUNNERS | {_FILES}
        unknown = next((tool for tool in sorted(tools) if tool not in known), None)
        if lacking := self._lacking(text):
            return lacking
        if unknown:
            package = package_of(unknown)
            if package and package not in self.scripts.node.all_dependencies:
                named = f"{quoted(unknown)} comes with the package {package}, which package.json does not name"
                return named, f"add {package} to the dependencies in package.json"
            return f"the template does not have {quoted(unknown)}", _OTHERWISE
        if tools & (DEV_SERVERS | FILE_SERVERS | {_FILES}) or tools <= {"echo"} or self.scripts.from_start_script():
            return None if tools else ("only a shell can tell what it starts", _OTHERWISE)
        return "what it starts is not in the archive", _OTHERWISE

    def _lacking(self, text: str) -> tuple[str, str] | None:
        """Of a file that an interpreter is to run and that is not there."""
        tree, folder = self.scripts.node.tree, ""
        for part in shell_text.parse(text) or ():
            words = unwrapped(part.words).words
            if words[:1] == ("cd",) and len(words) == 2:
                folder = posixpath.normpath(posixpath.join(folder, words[1])).removeprefix(".")
                continue
            file = next((word for word in words[1:] if not word.startswith("-")), "")
            if not words or not _INTERPRETER.fullmatch(words[0]) or not _FILE.fullmatch(file):
                continue
            path = posixpath.normpath(posixpath.join(folder, file))
            if path not in tree.paths and self.scripts.node.file(path) is None:
                return f"{quoted(path)} is not in the archive", "send that file, or have it start one that is there"
        return None

    def served_folder(self) -> str | None:
        """The folder that a start script serves as files (`serve dist`)."""
        words = self.scripts.node.scripts.get("start", "").split()
        if not words or not FILE_SERVERS & set(words[:2]):
            return None
        return next((w.strip("./") for w in words[1:] if w.strip("./") in self.scripts.node.tree.folders), None)

    def of_folders(self, name: str) -> bool:
        """Whether a script only runs scripts of projects in folders, and installs nothing there: a list of what lies
        below, and no project of its own."""
        return bool(found := self._folders(self.scripts.node.scripts.get(name, ""), 0)) and all(found)

    def _folders(self, text: str, depth: int) -> list[bool]:
        """Of each command, whether it runs a script of a project in a folder."""
        found: list[bool] = []
        folder = ""
        for part in (shell_text.parse(text) or ()) if depth <= DEEPEST else ():
            words = part.words
            if words[0] == "cd" and len(words) == 2:
                folder = posixpath.normpath(posixpath.join(folder, words[1])).removeprefix(".")
                continue
            call = package_manager.read(words[0], words[1:]) if words[0] in package_manager.NAMES else None
            at = posixpath.normpath(posixpath.join(folder, call.folder)).removeprefix(".") if call else ""
            if call and call.script and not at and not call.workspace:
                found += self._folders(self.scripts.node.scripts.get(call.script, ""), depth + 1) or [False]
            else:
                found.append(bool(call and at and self.scripts.node.tree.has(f"{at}/package.json")))
        return found

    def tools(self, text: str, folder: str, depth: int) -> set[str]:
        """The programs that a script runs, those of the scripts that it calls included."""
        found: set[str] = set()
        for part in (shell_text.parse(text) or ()) if depth <= DEEPEST else ():
            words = unwrapped(part.words).words
            tool = program(words[0]) if words else ""
            call = package_manager.read(tool, words[1:]) if tool in package_manager.NAMES else None
            if tool in PARALLEL:
                names = [word.removeprefix("npm:") for word in words[1:]]
                scripts = self.scripts.scripts(folder)
                for name in names:
                    found |= self.tools(scripts.get(name, name if " " in name else ""), folder, depth + 1)
            elif call and call.script and not call.folder and not call.workspace:
                found |= self.tools(self.scripts.scripts(folder).get(call.script, ""), folder, depth + 1)
            elif tool.startswith("python") and {"http.server", "SimpleHTTPServer"} & set(words):
                found.add(_FILES)
            elif tool:
                found.add(tool)
        return found
