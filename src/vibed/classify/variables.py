"""Environment variables that an app's source reads and has no value for: told when it ends without a word."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from vibed.classify import started
from vibed.classify.decision import Decision
from vibed.classify.project import Project
from vibed.classify.tree import table

_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,80}"
_READ = {
    "python": (
        re.compile(rf"""\benviron\[\s{{0,9}}["']({_NAME})["']\s{{0,9}}\](?!\s{{0,9}}=[^=])"""),
        re.compile(
            rf"""\b(?:getenv|environ\.get)\(\s{{0,9}}["']({_NAME})["']\s{{0,9}}(?:,\s{{0,9}}None\s{{0,9}})?\)"""
            r"""(?!\s{0,9}or\b)"""
        ),
    ),
    "node": (
        re.compile(rf"""\bprocess\.env\.({_NAME})\b(?!\s{{0,9}}(?:\?\?|\|\||=[^=]))"""),
        re.compile(rf"""\bprocess\.env\[\s{{0,9}}["'`]({_NAME})["'`]\s{{0,9}}\](?!\s{{0,9}}(?:\?\?|\|\||=[^=]))"""),
    ),
    "worker": (
        re.compile(
            r"""(?<![\w$])(?<!meta\.)env\s{0,3}\.\s{0,3}([A-Z][A-Z0-9_]{1,80})\b(?!\s{0,9}(?:\?\?|\|\||\?\.|=[^=]))"""
        ),
        re.compile(r"""(?<![\w$])(?<!meta\.)env\[\s{0,9}["'`]([A-Z][A-Z0-9_]{1,80})["'`]\s{0,9}\]"""),
    ),
    "go": (re.compile(rf"""\bos\.(?:Getenv|LookupEnv)\("({_NAME})"\)"""),),
}
_EMPTY = r"(?:''|\"\"|``|null|undefined|None)"
_FILLS = {
    "python": re.compile(
        rf"""(?:\bos\.)?\b(?:environ\[|getenv\(|environ\.get\()\s{{0,9}}["']({_NAME})["']\s{{0,9}}"""
        rf"""(?:,\s{{0,9}}{_EMPTY}\s{{0,9}})?[\])](?!\s{{0,9}}or\b(?!\s{{0,9}}{_EMPTY}))"""
    ),
    "node": re.compile(
        rf"""\bprocess\.env(?:\.|\[\s{{0,9}}["'`])({_NAME})\b(?:["'`]\s{{0,9}}\])?+"""
        rf"""(?!\s{{0,9}}(?:(?:\?\?|\|\|)(?!\s{{0,9}}{_EMPTY})|=[^=]))"""
    ),
}
_TYPED = r"(?:string|any|Optional\[\w{1,40}\]|str|int|bool|float|bytes|SecretStr)(?:[ \t]{0,9}\|[ \t]{0,9}\w{1,40})?"
_FILLED = re.compile(rf"""([A-Za-z_]\w{{1,60}})["']?\]?(?:\s{{0,9}}:\s{{0,9}}{_TYPED})?\s{{0,9}}[=:(]\s{{0,9}}$""")
_BEFORE = 100
"""Where the value of a variable is used as it is, and what stands before that: an option, an argument, a variable of
its own, or what is called."""
_TAKEN_APART = {
    "node": re.compile(r"\{([^{}]{1,400})\}\s{0,9}=\s{0,9}process\.env\b"),
    "worker": re.compile(r"\{([^{}]{1,400})\}\s{0,9}=\s{0,9}(?:\w{1,20}\s{0,3}\.\s{0,3}){0,2}(?<!meta\.)env\b(?!\.)"),
}
_GIVEN = re.compile(
    rf"""environ\[\s{{0,9}}["']({_NAME})["']\s{{0,9}}\]\s{{0,9}}=[^=]|environ\.setdefault\(\s{{0,9}}["']({_NAME})["']"""
    rf"""|process\.env\.({_NAME})\s{{0,9}}(?:\|\||\?\?)?=[^=]|os\.Setenv\("({_NAME})\""""
)
_USUAL = frozenset({
    "PORT", "HOST", "HOSTNAME", "HOME", "PATH", "PWD", "USER", "LANG", "TZ", "TMPDIR", "NODE_ENV", "DEBUG", "CI",
    "LOG_LEVEL", "ENV", "ENVIRONMENT", "FLASK_ENV", "FLASK_DEBUG",
})  # fmt: skip
"""What is set, or does without."""
_ENV_FILES = (".env", ".env.production", ".env.local", ".flaskenv")
"""What may give values: nobody reads them before the app does."""
_EXAMPLES = (".env.example", ".env.sample", ".env.template", ".env.local.example", "env.example", ".env.dist")
_EXAMPLED = re.compile(
    rf"""^[ \t]{{0,9}}(?:export[ \t]{{1,9}})?({_NAME})[ \t]{{0,9}}=[ \t]{{0,9}}["']?"""
    r"""(?:[\"' \t]{0,9}(?:#.{0,200})?$|[{<\[]|(?i:your|xxx|change|insert|replace|\.\.\.|todo\b|sk-\.|enter))""",
    re.MULTILINE,
)
"""One that is left empty, or filled with words for whoever fills it."""
_MOST = 8
_MOST_FILLED = 24


def unset(project: Project, decision: Decision) -> tuple[str, ...]:
    """Names in the order in which they are read; of a server of the general lane, or of a worker."""
    given = _bound(decision.options) if decision.kind == "worker" else decision.env
    texts = _texts(project, decision)
    read = read_in(texts, decision.kind, given)
    asked = _exampled(project) if texts else ()
    return tuple(dict.fromkeys((*read, *(name for name in asked if name not in given))))[:_MOST]


def filled(project: Project, decision: Decision) -> dict[str, str]:
    """What the source gives the value of a variable that may not be set, by name: `clientID` -> `GOOGLE_CLIENT_ID`."""
    return filled_in(_texts(project, decision), decision.kind, decision.env)


def filled_in(texts: Iterable[str], kind: str, given: Collection[str] = ()) -> dict[str, str]:
    """As `filled`, of sources of a kind of app."""
    found: dict[str, str] = {}
    for text in texts if kind in _FILLS else ():
        for use in _FILLS[kind].finditer(text):
            option = _FILLED.search(text, max(0, use.start() - _BEFORE), use.start())
            if option and use[1] not in _USUAL and use[1] not in given:
                found.setdefault(option[1], use[1])
    return dict(list(found.items())[:_MOST_FILLED])


def _texts(project: Project, decision: Decision) -> list[str]:
    worker = decision.kind == "worker"
    if decision.kind not in _READ or (not worker and any(project.tree.has(name) for name in _ENV_FILES)):
        return []
    files = list(started.sources(project, decision))
    if decision.kind == "python":
        files += [path for path in project.tree.known("settings.py", "config.py") if path not in files]
    return [project.tree.text(path) for path in files]


def _exampled(project: Project) -> tuple[str, ...]:
    """Those that a file says by example have to be given: a package may be what reads them."""
    name = next((name for name in _EXAMPLES if project.tree.has(name)), "")
    found = _EXAMPLED.findall(project.tree.text(name)) if name else []
    return tuple(name for name in found if name not in _USUAL)


def _bound(options: Mapping[str, object]) -> set[str]:
    """What a worker's `env` has whatever its owner says."""
    bindings, assets = options.get("bindings"), options.get("assets")
    names = {str(one["name"]) for one in bindings} if isinstance(bindings, list) else set()
    return names | set(table(options.get("vars"))) | {str(table(assets).get("binding") or "ASSETS") if assets else ""}


def read_in(texts: Iterable[str], kind: str, given: Collection[str] = ()) -> tuple[str, ...]:
    """Those that sources of a kind of app read; without those that are given, or that the sources set themselves."""
    found: dict[str, None] = {}
    own = {*_USUAL, *given}
    for text in texts:
        own |= {name for match in _GIVEN.findall(text) for name in match if name}
        found |= dict.fromkeys(name for pattern in _READ.get(kind, ()) for name in pattern.findall(text))
        if kind in _TAKEN_APART:
            for names in _TAKEN_APART[kind].findall(text):
                parts = (part.partition(":")[0].strip() for part in names.split(",") if "=" not in part)
                found |= dict.fromkeys(part for part in parts if re.fullmatch(_NAME, part))
    return tuple(name for name in found if name not in own)[:_MOST]
