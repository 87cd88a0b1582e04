"""Which programs a project's start script runs: its own, tools for development, or what the template does not have."""

from __future__ import annotations

from dataclasses import dataclass

from vibed.classify import package_manager, shell_text
from vibed.classify.node_scripts import DEEPEST, Scripts, program
from vibed.classify.node_tools import DEV_SERVERS, FILE_SERVERS, PARALLEL, PROGRAMS, RUNNERS
from vibed.classify.wrappers import unwrapped
from vibed.sources.errors import quoted

_FILES = "python -m http.server"


@dataclass(frozen=True)
class ScriptTools:
    """The programs behind the start script."""

    scripts: Scripts

    def only_development(self) -> bool:
        """Whether the start script only starts development servers."""
        tools = self.tools(self.scripts.node.scripts.get("start", ""), "", 0)
        return bool(tools & DEV_SERVERS) and not tools & (PROGRAMS | RUNNERS - {"sh", "bash"})

    def not_understood(self) -> str | None:
        """Why the start script is none, in words; None where it only serves development or files."""
        text = self.scripts.node.scripts.get("start", "")
        tools = self.tools(text, "", 0)
        known = DEV_SERVERS | FILE_SERVERS | PROGRAMS | RUNNERS | {_FILES}
        unknown = next((tool for tool in sorted(tools) if tool not in known), None)
        if unknown:
            return f"the template does not have {quoted(unknown)}"
        if tools & (DEV_SERVERS | FILE_SERVERS | {_FILES}) or tools <= {"echo"} or self.scripts.from_start_script():
            return None if tools else "only a shell can tell what it starts"
        return "what it starts is not in the archive"

    def served_folder(self) -> str | None:
        """The folder that a start script serves as files (`serve dist`)."""
        words = self.scripts.node.scripts.get("start", "").split()
        if not words or not FILE_SERVERS & set(words[:2]):
            return None
        return next((w.strip("./") for w in words[1:] if w.strip("./") in self.scripts.node.tree.folders), None)

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
