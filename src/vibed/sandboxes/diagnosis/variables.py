"""Environment variables whose absence ended an app, as the libraries of each language say it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from vibed.sandboxes.diagnosis.about import About, Cause
from vibed.sandboxes.diagnosis.fault import Fault

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_KEY_ERROR = re.compile(rf"KeyError: '({_NAME})'")
_ENVIRON = re.compile(r"os\.environ|<frozen os>|getenv|/os\.py|\benviron\[")
# a name as variables are written, where a sentence says that it is missing
_CAPITALS = re.compile(r"(?<![\w\[.])([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?![\w\]])")
_MISSING = re.compile(
    r"\b(?:not set|isn't set|missing|required|requires|must be (?:set|defined|provided|specified|given)|must have|unset"
    r"|not defined|undefined|is empty|be empty|not found|not provided|not specified|unbound variable|parameter not set"
    r"|declare it|please (?:set|provide|add|define)|you must set|set the|provide|not configured|no value)\b",
    re.IGNORECASE,
)
_SPOKEN = (
    re.compile(rf"(?:[Ee]nvironment variable not found|Cannot resolve environment variable): ({_NAME})"),
    re.compile(rf"^(?:\w+\.)*UndefinedValueError: ({_NAME}) not found"),
    re.compile(rf"ImproperlyConfigured: Set the ({_NAME}) environment variable"),
    re.compile(rf"(?:^|: )({_NAME}): (?:unbound variable|parameter not set)"),
    re.compile(
        r"[Ee]nv(?:ironment)?(?: var(?:iable)?s?)?:? \W?([A-Z][A-Z0-9_]*)\W? (?:is |was )?(?:not|missing|unset)"
    ),
    re.compile(r"\b([A-Z][A-Z0-9_]*)\W? env(?:ironment)? var(?:iable)? (?:is |was )?(?:not|missing|unset|must)"),
)
# one word in capitals, where nothing stands between it and what says that it is missing
_WORD = re.compile(
    r"(?<![\w\[.])([A-Z][A-Z0-9]{2,})(?: is)? (?:not set|missing|unset|must be set|is required|required|not defined)\b"
    r"|(?:[Mm]issing|[Pp]lease set|[Rr]equired)(?: the| required)?(?: env(?:ironment)?(?: var(?:iable)?s?)?)?:? "
    r"([A-Z][A-Z0-9]{2,})(?![\w.])"
)
_NO_WORD = frozenset({
    "JSON", "HTTP", "HTTPS", "HTML", "XML", "YAML", "CSV", "PDF", "SQL", "TLS", "SSL", "CSS", "API", "URL", "URI",
    "UUID", "NULL", "TRUE", "FALSE", "NONE", "GET", "POST",
})  # fmt: skip
_NO_VARIABLE = re.compile(
    r"^(?:ERR_|EAI_|E[A-Z]+$|GLIBC|GLIBCXX|CXXABI)|_(?:ERROR|FAILED|NOT_FOUND|EXCEPTION|SYNTAX|REJECTION|ASSERTION)$|^(?:MODULE|ALLOWED_HOSTS"
    r"|INSTALLED_APPS|ROOT_URLCONF|DJANGO_SETTINGS_MODULE|STATIC_ROOT|LC_[A-Z]+|LD_LIBRARY_PATH|HTTP_HOST)"
)
_READS = re.compile(rf"(?:os\.getenv\(|os\.environ\.get\(|process\.env\.|process\.env\[|os\.Getenv\()[\"'`]?({_NAME})")
_READS_SOME = re.compile(r"\.get\(\s?[\"']([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)[\"']\s?\)")
"""From what may be the environment, or a copy of it: by a name as variables are written."""
_ABSENT = re.compile(r"NoneType|None\b|undefined|null|Invalid URL|must have a value|is required|Received an instance")
_GIVEN_NOTHING = re.compile(r"\b(?:got|received|was given)\s{1,3}[\"'`]?(?:undefined|null|None)\b", re.IGNORECASE)
"""What is said of a value that nobody set, also where only the words of an error are printed."""
_PYDANTIC = re.compile(r"validation errors? for (\w+)")
_FIELD = re.compile(rf"^({_NAME})$")
_ZOD = re.compile(
    r"\bpath\"?: \[\s*[\"']([A-Z][A-Z0-9_]+)[\"']\s*\][^}]*(?:received undefined|[\"']Required[\"'])"
    r"|^\W{0,20}([A-Z][A-Z0-9_]+)\"?: \[\s*[\"'](?:Required|Invalid input: expected \w+, received undefined)[\"']",
    re.MULTILINE,
)
"""An issue of zod's, as JSON and as Node prints it; and its issues by their fields."""
_MADE = re.compile(r"^\s*at (?:new )?(?:\w+\.)*([A-Za-z_]\w+) \(\S*node_modules/")
_NEITHER = re.compile(r"\b(?:[Nn]either|[Nn]o) [^\n]{1,100} (?:provided|given|specified|set)\b")
_THEIRS = {
    "node_modules/@clerk/": ("CLERK_PUBLISHABLE_KEY", "CLERK_SECRET_KEY"),
    "node_modules/@auth/": ("AUTH_SECRET",),
}
_COMMON = frozenset({"error", "required", "requires", "missing", "option", "options", "must", "the", "value", "type"})
_SHORT = 5
_NAMELESS = {
    "The SECRET_KEY setting must not be empty": "SECRET_KEY",
    "MissingSecretError": "NEXTAUTH_SECRET",
    "MissingSecret:": "AUTH_SECRET",
}
"""What frameworks say of one of theirs without its name."""
_BUILT = re.compile(r"(?:^|[ (/])(?:\.output|\.next|\.svelte-kit|build|dist)/")


def variable(fault: Fault, about: About) -> Cause | None:
    """The cause, when the error is about variables that are not set."""
    if passed := _passed(fault, about):
        return passed
    if names := _surely(fault) or _of_its_own(fault):
        plural = "s" if len(names) > 1 else ""
        return Cause(
            f"needs the environment variable{plural} {listed(names)}",
            f"deploy again with {'them' if plural else 'it'} among the app's environment variables, or have the app do"
            f" without",
            complete=True,
        )
    if name := _perhaps(fault):
        return Cause(
            f"probably needs the environment variable {name}, which is not set",
            "deploy again with it among the app's environment variables, or give it a default",
        )
    if about.unset and _GIVEN_NOTHING.search(fault.text):
        return Cause(
            f"may need {unset(about)}",
            f"deploy again with {_them(about)} among the app's environment variables, or give {_them(about)} a default",
        )
    return None


def of_env(fault: Fault, about: About) -> Cause | None:
    """What a worker that uses something undefined may lack: it is not told what; its source reads it from `env`."""
    if about.kind != "worker" or not about.unset or not _ABSENT.search(fault.text):
        return None
    return Cause(f"may need {unset(about)}", f"deploy again with {_them(about)} among the app's environment variables")


def demanded(said: str) -> list[str]:
    """The variables that the output of a build names as missing."""
    if found := _of_zod(said):
        return found
    for line in said.splitlines():
        if "rror" in line and (names := _surely(Fault(0, 1, line.strip()))):
            return names
    return []


def _of_zod(text: str) -> list[str]:
    return list(dict.fromkeys(one or other for one, other in _ZOD.findall(text)))[:8]


def unset(about: About) -> str:
    """The variables that an app's source reads and that it was not given, as the object of a sentence."""
    are = "are" if len(about.unset) > 1 else "is"
    return f"{listed(about.unset)}, which its source reads and which {are} not set"


def _them(about: About) -> str:
    return "them" if len(about.unset) > 1 else "it"


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them; empty without any."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _passed(fault: Fault, about: About) -> Cause | None:
    """The cause, when a package got nothing for what the source gives it of a variable that is not set."""
    got_nothing = any(pattern.search(fault.text) for pattern in (_MISSING, _ABSENT, _NEITHER))
    if not got_nothing or not _of_a_package(fault):
        return None
    said = {_letters(word) for word in re.findall(r"[A-Za-z_]\w+", fault.text)} - _COMMON
    option = next((option for option in about.fills if _letters(option) in said), "")
    if not option:
        made = {match[1] for line in fault.context if (match := _MADE.search(line))}
        option = next((option for option in about.fills if option in made), "")
    name = about.fills.get(option) or next(
        (name for name in about.unset if any(_letters(name).endswith(word) for word in said if len(word) > _SHORT)), ""
    )
    if not name:
        return None
    # its fellows would be missed next
    family = name.partition("_")[0] + "_"
    names = [name, *(n for n in dict.fromkeys((*about.fills.values(), *about.unset)) if n.startswith(family))]
    names = list(dict.fromkeys(names))[:5]
    them = "them" if len(names) > 1 else "it"
    by = f", which its source gives as `{option}`" if option else ""
    return Cause(
        f"needs the environment variable{'s' if len(names) > 1 else ''} {listed(names)}{by if len(names) == 1 else ''}",
        f"deploy again with {them} among the app's environment variables"
        f"{f' (its source gives {name} as `{option}`)' if by and len(names) > 1 else ''}",
    )


def _of_its_own(fault: Fault) -> list[str]:
    """Those that a package reads itself, and whose name it does not say."""
    if not _MISSING.search(fault.text):
        return []
    return next((list(names) for folder, names in _THEIRS.items() if any(folder in at for at in fault.context)), [])


def _of_a_package(fault: Fault) -> bool:
    """Whether a package raised it, and not a line of the app's own; what was built of both may be either."""
    at = next((line for line in fault.context if line.lstrip().startswith("at ")), "")
    return fault.library or "node_modules/" in at or bool(_BUILT.search(at))


def _letters(name: str) -> str:
    return name.replace("_", "").lower()


def _surely(fault: Fault) -> list[str]:
    text, context = fault.text, "\n".join(fault.context)
    if (match := _KEY_ERROR.search(text)) and _ENVIRON.search(context):
        return [match[1]]
    if _PYDANTIC.search(text) and "pydantic_settings" in context:
        return _fields(fault.context)
    if found := _of_zod(context):
        return found
    for pattern in _SPOKEN:
        if match := pattern.search(text):
            return [match[1]]
    if name := next((name for words, name in _NAMELESS.items() if words in text), ""):
        return [name]
    if _MISSING.search(text):
        named = [name for name in dict.fromkeys(_CAPITALS.findall(text)) if not _NO_VARIABLE.search(name)]
        if named:
            return named[:5]
    words = [word for pair in _WORD.findall(text) if (word := pair[0] or pair[1]) not in _NO_WORD]
    return list(dict.fromkeys(words))[:5]


def _perhaps(fault: Fault) -> str | None:
    """A variable that the line reads in which something absent was used."""
    if not _ABSENT.search(fault.text) and "'undefined'" not in "\n".join(fault.context):
        return None
    reads = [match[1] for line in fault.context if (match := _READS.search(line) or _READS_SOME.search(line))]
    return reads[-1] if reads else None


def _fields(lines: Sequence[str]) -> list[str]:
    """pydantic-settings: the names of the fields, as variables (any case is taken)."""
    return [
        match[1].upper()
        for line, following in itertools.pairwise(lines)
        if (match := _FIELD.match(line)) and "Field required" in following
    ][:5]
