"""Packages that are there in a version that does not fit: which one it is, and what of the app's list to change."""

from __future__ import annotations

import re

from vibed.sandboxes.diagnosis.about import About, Cause
from vibed.sandboxes.diagnosis.fault import Fault

_IN_PYTHON = re.compile(r"/(?:site|dist)-packages/([A-Za-z_]\w*)")
_IN_NODE = re.compile(r"node_modules/((?:@[\w.-]+/)?[\w.-]+)")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")

_PYTHON_PART = re.compile(r"No module named '([A-Za-z_]\w*)\.([\w.]+)'(?!;)")
_PYTHON_NAME = re.compile(r"cannot import name '(\w+)' from '([\w.]+)' \((\S+?)\)")
_PYTHON_ATTRIBUTE = re.compile(r"module '([A-Za-z_][\w.]*)' has no attribute '(\w+)'")
_NAMESPACES = frozenset({
    "google", "azure", "zope", "ruamel", "backports", "opentelemetry", "llama_index", "airflow", "jaraco", "paste",
    "sphinxcontrib", "haystack_integrations", "mpl_toolkits",
})  # fmt: skip
"""Names that many packages share: what lacks in one of them is a package that is not there."""
_NODE_PATH = re.compile(
    r"Package subpath '\./([^']+)' is not defined by \"exports\" in \S*?node_modules/((?:@[\w.-]+/)?[\w.-]+)/"
)
_NODE_FILE = re.compile(r"Cannot find module '((?:@[\w.-]+/)?[\w.-]+)/([^']+)'")
_REQUIRED_BY = re.compile(r"^- \S*node_modules/((?:@[\w.-]+/)?[\w.-]+)/")
_NODE_MAIN = re.compile(r"No \"exports\" main defined in \S*?node_modules/((?:@[\w.-]+/)?[\w.-]+)/")
_NODE_EXPORT = re.compile(r"The requested module '([^'./][^']*)' does not provide an export named '(\S+?)'")
_NODE_NAMED = re.compile(r"Named export '(\S+?)' not found\. The requested module '([^'./][^']*)' is a CommonJS module")


def lacks(fault: Fault, about: About) -> Cause | None:
    """The cause, when a package is there and does not have what is imported from it."""
    return _python(fault, about) or _node(fault, about)


def blamed(fault: Fault, about: About) -> tuple[str, str]:
    """The package whose line raised the error and its version, each empty where it is not known."""
    for line in reversed(fault.context):
        if match := _IN_PYTHON.search(line):
            name = canonical(match[1])
            return name, about.installed.get(name, "")
    return "", ""


def newer(name: str, about: About, *, fits: str, why: str) -> str:
    """What to change of the app's list, for a package that is too old for this language. `fits`: the version that is
    new enough; `why`: for what.
    """
    line = listed(name, about)
    to = f"{fits} or later" if fits else f"a version that is made for {why}"
    if line:
        return f"raise `{line}` in the app's list of packages to {to}"
    return f"ask for {name} in {to}" if name else f"ask for newer versions of its packages, which are made for {why}"


def listed(name: str, about: About) -> str:
    """The line of the app's own list that asks for a package, without its hashes."""
    lines = (line.partition(" --hash")[0].strip() for line in about.wanted)
    return next((line for line in lines if name and (m := _NAME.match(line)) and canonical(m[0]) == name), "")


def canonical(name: str) -> str:
    """As PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _python(fault: Fault, about: About) -> Cause | None:
    if match := _PYTHON_PART.search(fault.text):
        top, what = match[1], f"no module `{match[2]}`"
        if top in _NAMESPACES:
            return None
    elif (match := _PYTHON_NAME.search(fault.text)) and _IN_PYTHON.search(match[3]) and "partially" not in fault.text:
        top, what = match[2].partition(".")[0], f"no `{match[1]}` in `{match[2]}`"
    elif (match := _PYTHON_ATTRIBUTE.search(fault.text)) and canonical(match[1].partition(".")[0]) in about.installed:
        top, what = match[1].partition(".")[0], f"no `{match[1]}.{match[2]}`"
    else:
        return None
    name = canonical(top)
    by = next((m[1] for line in reversed(fault.context) if (m := _IN_PYTHON.search(line))), "") if fault.library else ""
    return _another(top, about.installed.get(name, ""), what, canonical(by), about)


def _node(fault: Fault, about: About) -> Cause | None:
    text = "\n".join((fault.text, *fault.context))
    if match := _NODE_PATH.search(text):
        name, what = match[2], f"no `{match[1]}` that can be imported"
    elif (match := _NODE_FILE.search(text)) and match[1] in about.installed:
        name, what = match[1], f"no file `{match[2]}`"
        importers = [found[1] for line in fault.context if (found := _REQUIRED_BY.search(line))]
        if importers:
            return _another(name, about.installed[name], what, importers[0], about)
    elif match := _NODE_MAIN.search(text):
        name, what = match[1], "nothing that can be loaded in this way (`import` and `require` are two)"
    elif match := _NODE_EXPORT.search(text):
        name, what = _package(match[1]), f"no export `{match[2]}`"
    elif match := _NODE_NAMED.search(text):
        hint = f"import the whole of it: `import pkg from '{match[2]}'; const {{ {match[1]} }} = pkg`"
        return Cause(f"imports `{match[1]}` by name from {match[2]}, which is a CommonJS module", hint, complete=True)
    else:
        return None
    importer = next((m[1] for line in fault.context if (m := _IN_NODE.search(line))), "") if not fault.place else ""
    return _another(name, about.installed.get(name, ""), what, importer, about)


def _another(name: str, version: str, what: str, by: str, about: About) -> Cause:
    """The cause: a package has not what is imported from it, by the package `by` where it is not the app."""
    node = about.kind in ("node", "worker")
    line = listed(canonical(name), about)
    if version:
        told = f"imports what it does not find: {name} is there in version {version}, which has {what}"
    else:
        told = f"imports what it does not find: the {name} that is there has {what}"
    if not (version or line or by or node):
        hint = (
            f"where {name} is a folder of the app's own, send what is missing of it, or mend the import; where it is a"
            f" package, ask for another version of it in requirements.txt, most often an older one"
        )
        return Cause(told, hint, complete=True)
    older = f" (`{name}{'@' if node else ''}<{_series(version)}`)" if version else ""
    hints = [
        f"change `{line}` in the app's list of packages to a version that has it"
        if line
        else f"ask for another version of {name} in {'package.json' if node else 'requirements.txt'}, most often an"
        f" older one{older}"
    ]
    if by and canonical(by) != canonical(name):
        hints.append(f"or raise `{listed(canonical(by), about) or by}`, which imports it")
    elif not by:
        hints.append("or mend the import")
    return Cause(told, "; ".join(hints), complete=True)


def _series(version: str) -> str:
    """Where the series of a version begins, at which what it lacks went at the latest: `3.1` of 3.1.6, `3` of 3.0.2."""
    found = re.match(r"(\d+)(?:\.(\d+))?", version)
    if found is None:
        return version
    return f"{found[1]}.{found[2]}" if found[2] and found[2] != "0" else found[1]


def _package(name: str) -> str:
    return "/".join(name.split("/")[: 2 if name[0] == "@" else 1])
