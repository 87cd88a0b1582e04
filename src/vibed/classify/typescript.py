"""Why Node cannot run TypeScript by stripping its types, and what of the project's own, or else what, does it.

Each reason is a sentence's rest (`it uses decorators`). The firm ones are certain; the others are what programs stumble
over that were written for a compiler, and count only where a runner can be installed: it is slower and never wrong.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from vibed.classify.tree import Tree

DECORATOR = re.compile(r"^[ \t]*@[A-Z]\w*\(", re.MULTILINE)
_TYPES_OF_DECORATORS = re.compile(r"\"emitDecoratorMetadata\"\s{0,9}:\s{0,9}true")
_ALIASES = re.compile(r"\"paths\"\s{0,9}:\s{0,9}\{([^{}]{1,4000})\}")
_ALIAS = re.compile(r"\"([^\"*]{1,100})\*?\"\s{0,9}:")
_SYNTAX_OF_MODULES = re.compile(r"^[ \t]*(?:import[ \t\n]{1,9}[\w{*'\"]|export[ \t]{1,9}\w)", re.MULTILINE)
_OF_COMMONJS = re.compile(r"\b__dirname\b|\b__filename\b|(?<![.\w])require\(")
_JSON = re.compile(r"\bfrom[ \t]{1,9}['\"]\.[^'\"\n]{1,200}\.json['\"](?![ \t]{0,9}(?:with|assert)\b)")
_NAMED = re.compile(r"^[ \t]*import[ \t]+(?!type\b)(?:\w+[ \t]*,[ \t]*)?\{([^{}]{1,1000})\}[ \t\n]*from", re.MULTILINE)
_AS_TYPE = re.compile(r"(?:[:<|&]|\b(?:as|extends|implements|keyof|satisfies|is|readonly))\s{0,9}$")
_WORD = re.compile(r"(?<![\w.$])[A-Za-z_$][\w$]*")
_BEFORE = 24


@dataclass(frozen=True, slots=True)
class Runner:
    """What runs a file in Node's place, or in Node."""

    package: str
    """Of npm."""
    flags: tuple[str, ...]
    """Of the program."""
    beside: tuple[str, ...] = ()
    """What else it wants."""
    program: str = "node"


_TSX = Runner("tsx", ("--import", "tsx"))
_TS_NODE = Runner("ts-node", ("--require", "ts-node/register/transpile-only"), ("typescript",))
_SWC = Runner("@swc-node/register", ("--require", "@swc-node/register"))


def runner(tree: Tree, dependencies: Collection[str], *, modules: bool) -> Runner:
    """The project's own where it has one that does, else tsx. `modules`: its files are ES modules."""
    typed = bool(_TYPES_OF_DECORATORS.search(tree.text("tsconfig.json")))
    compiling = next((one for one in (_TS_NODE, _SWC) if one.package in dependencies), None)
    if compiling is None and "ts-node-dev" in dependencies:
        compiling = _TS_NODE
    if modules or (compiling is None and not typed) or ("tsx" in dependencies and not typed):
        return _TSX  # ts-node loads no ES modules in this Node
    chosen = compiling or _TS_NODE
    if "tsconfig-paths" in dependencies and aliases(tree):
        return Runner(chosen.package, (*chosen.flags, "--require", "tsconfig-paths/register"), chosen.beside)
    return chosen


def aliases(tree: Tree) -> tuple[str, ...]:
    """How imports begin that tsconfig.json leads elsewhere: `@/`."""
    found = _ALIASES.search(tree.text("tsconfig.json"))
    return tuple(_ALIAS.findall(found[1])) if found else ()


def only_compiled(tree: Tree, texts: Mapping[str, str], imports: Sequence[str], *, modules: bool) -> str:
    """What of the files, by path, is no fault for a compiler, and for Node's stripping is; empty where it sees nothing.
    `imports`: of all of them.
    """
    led = [prefix for prefix in aliases(tree) if any(name.startswith(prefix) for name in imports)]
    if led:
        return f"it imports {led[0]}… by the paths of tsconfig.json"
    for text in texts.values():
        if not modules and _SYNTAX_OF_MODULES.search(text) and (found := _OF_COMMONJS.search(text)):
            return f"it uses {found[0].rstrip('(')} in a file with import"
        if _JSON.search(text):
            return "it imports JSON without saying so"
        if name := _unmarked_type(text):
            return f"it imports the type {name} without the word type"
    return ""


def _unmarked_type(text: str) -> str:
    """A name that is imported as a value and only used as a type."""
    names = {}
    for part in (part for group in _NAMED.findall(text) for part in group.split(",")):
        words = part.split()
        if words and words[0] != "type":
            names[words[-1]] = words[0]
    rest = _NAMED.sub("", text) if names else ""
    as_type: set[str] = set()
    as_value: set[str] = set()
    for use in _WORD.finditer(rest):
        if use[0] in names:
            before = rest[max(0, use.start() - _BEFORE) : use.start()]
            (as_type if _AS_TYPE.search(before) else as_value).add(use[0])
    return next((names[name] for name in names if name in as_type - as_value), "")
