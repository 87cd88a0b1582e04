"""What the scripts of package.json come to: the command behind npm, nodemon, tsx and the like."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from vibed.classify.decision import Decision
from vibed.classify.errors import BuildRequired
from vibed.classify.node_app import NodeApp
from vibed.classify.node_tools import DEV_SERVERS, FILE_SERVERS, RUN_TYPESCRIPT
from vibed.sources.errors import quoted

_DEEPEST = 4
_LONGEST_SCRIPT = 4000


@dataclass(frozen=True)
class Command:
    """What a script comes to."""

    argv: tuple[str, ...] = ()
    shell: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scripts:
    """The scripts of one package.json."""

    node: NodeApp

    def from_start_script(self) -> tuple[Command, str] | None:
        """What `scripts.start` comes to, with the script's name. Raises `BuildRequired` where its file has to be
        built."""
        for name in ("start", "start:prod", "prod", "serve"):
            if name in self.node.scripts:
                command = self.command(self.node.scripts[name], 0)
                if command:
                    return command, name
        return None

    def from_dev_script(self) -> tuple[Command, str] | None:
        """What `scripts.dev` comes to when it runs a server file that exists (`tsx server.ts`, `nodemon app.js`)."""
        for name in ("dev", "develop", "watch"):
            if name in self.node.scripts:
                command = self.command(self.node.scripts[name], 0)
                if command and command.argv and self.node.serves(command.argv[-1]):
                    return Command(command.argv, None, {"NODE_ENV": "production", **command.env}), name
        return None

    def only_development(self) -> bool:
        """Whether the start script is a development server."""
        words = self.node.scripts.get("start", "").split()
        return bool(words) and any(word in DEV_SERVERS for word in words[:4])

    def served_folder(self) -> str | None:
        """The folder that a start script serves as files (`serve dist`)."""
        words = self.node.scripts.get("start", "").split()
        if not words or not FILE_SERVERS & set(words[:2]):
            return None
        return next((w.strip("./") for w in words[1:] if w.strip("./") in self.node.tree.folders), None)

    def command(self, text: str, depth: int) -> Command | None:
        """What one script comes to; None for what only serves development, or cannot be told."""
        if depth > _DEEPEST or len(text) > _LONGEST_SCRIPT:
            return None
        parts = [part.strip() for part in re.split(r"&&|;", text) if part.strip()]
        if not parts:
            return None
        if len(parts) > 1:
            commands = [self._one(part, depth) for part in parts]
            if all(command and command.argv for command in commands):
                return Command((), " && ".join(shlex.join(c.argv) for c in commands if c), _merged(commands))
            # What comes before the last command prepares: a build that is committed needs it no more.
            return commands[-1] if commands[-1] and commands[-1].argv else None
        return self._one(parts[0], depth)

    def _one(self, text: str, depth: int) -> Command | None:
        try:
            words = shlex.split(text)
        except ValueError:
            return None
        if any(mark in word for word in words for mark in ("|", "&", ">", "<", "`", "$(")):
            return None
        env: dict[str, str] = {}
        while words and (
            words[0] in ("cross-env", "env", "npx", "exec", "dotenv", "--") or re.match(r"[A-Za-z_]\w*=", words[0])
        ):
            name, equals, value = words.pop(0).partition("=")
            if equals:
                env[name] = value
        if not words:
            return None
        tool, rest = words[0].rpartition("/")[2] if words[0].startswith("node_modules") else words[0], words[1:]
        if tool in ("npm", "yarn", "pnpm"):
            rest = [word for word in rest if word not in ("run", "--silent", "-s")]
            inner = (
                self.command(self.node.scripts[rest[0]], depth + 1) if rest and rest[0] in self.node.scripts else None
            )
            return Command(inner.argv, inner.shell, {**env, **inner.env}) if inner else None
        if tool == "node":
            return self._node(rest, env)
        if tool == "nodemon" or tool in RUN_TYPESCRIPT:
            file = next((word for word in rest if not word.startswith("-") and self.node.file(word)), None)
            if file is None:
                main = self.node.package.get("main")
                file = main if tool == "nodemon" and not rest and isinstance(main, str) else None
            path = self.node.file(file) if file else None
            return Command(self.node.run(path), None, env) if path else None
        return None

    def _node(self, words: list[str], env: dict[str, str]) -> Command | None:
        flags: list[str] = []
        while words and words[0].startswith("-"):
            flag = words.pop(0)
            if flag in ("-r", "--require", "--import", "--loader", "--experimental-loader", "--env-file") and words:
                value = words.pop(0)
                if any(tool in value for tool in RUN_TYPESCRIPT):
                    continue
                flags += [flag, value]
            elif not flag.startswith(("--watch", "--inspect")):
                flags.append(flag)
        if not words:
            return None
        path = self.node.file(words[0])
        if path is None:
            built = words[0].removeprefix("./").partition("/")[0]
            if "build" in self.node.scripts or built in ("dist", "build", "lib", "out", ".output"):
                raise BuildRequired(
                    f"the start script runs {quoted(words[0])}, which is not in the archive",
                    hint=(
                        f"run the build first (npm run build) and deploy {built}/ with the rest, also if .gitignore"
                        " names it"
                    ),
                    details={"output": built},
                )
            return None
        return Command((*self.node.run(path, tuple(flags)), *words[1:]), None, env)


def decision(command: Command, why: str) -> Decision:
    """The decision for a command."""
    return Decision(
        kind="node", argv=command.argv, shell=command.shell, env=dict(command.env),
        entrypoint=command.shell or " ".join(command.argv), why=why,
    )  # fmt: skip


def _merged(commands: list[Command | None]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for command in commands:
        if command:
            merged |= command.env
    return merged
