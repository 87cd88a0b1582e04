"""Where a Python app says what it needs: requirements files, pyproject.toml, Pipfile, setup.py, a script's own header.

Only text is read. The first kind that says anything is the app's list; a lock beside it binds versions.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vibed.classify import conda_environment, python_locks
from vibed.classify.errors import BadRequirements
from vibed.classify.tree import Tree, strings, table
from vibed.sources import lock_files
from vibed.sources.errors import quoted

Line = tuple[str, str]
"""Where it stands, for a person, and a requirement."""

REQUIREMENTS = (
    "requirements.txt", "requirements/production.txt", "requirements/prod.txt", "requirements/base.txt",
    "requirements.in",
)  # fmt: skip

_OPTION = re.compile(r"(--[a-z-]+|-[a-zA-Z])[ =]?\s*(\S.*)?$")
_THIS = re.compile(r"\.(?:\[[^\]]*\])?|\./")
"""The project itself, as something to install."""
_INCLUDES = ("-r", "--requirement")
_BOUNDS = ("-c", "--constraint")
_EDITABLE = ("-e", "--editable")
_INDEXES = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links")
_MOST_FILES = 10
_LONGEST_LINE = 2000
_ASIDE = re.compile(r"\.|(?:tests?|docs?|examples?|scripts|tools|samples?)/", re.IGNORECASE)
"""Folders whose lists are not the app's."""
_MOST_MEMBERS = 100
_INLINE = re.compile(r"^# /// script\s*$\n((?:#[^\n]*\n)*?)# ///\s*$", re.MULTILINE)
_INSTALL_REQUIRES = re.compile(r"\binstall_requires\s{0,9}=\s{0,9}[\[(]([^\])]{0,20000})[\])]")
_LITERAL = re.compile(r"""(["'])([^"'\n]{1,300})\1""")
_COMMENT = re.compile(r"#[^\n]*")
_DEVELOPMENT = re.compile(r"dev|test|lint|doc|typ|format|check|debug|bench|release|ci\b", re.IGNORECASE)


@dataclass
class Lists:
    """What was found, still as text."""

    folder: str = ""
    """Where the lists lie, with its slash."""
    lines: list[Line] = field(default_factory=list)
    further: list[Line] = field(default_factory=list)
    """Of groups and extras of the project that its list does not include."""
    bounds: list[Line] = field(default_factory=list)
    """Of constraints files."""
    pins: list[str] = field(default_factory=list)
    """`name==version`, of a lock."""
    hashed: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def found(tree: Tree, folders: Sequence[str] = ("",)) -> Lists:
    """The lines of whichever list the app has: of the first of `folders` (each with its slash; the root is empty) that
    has one, else of the only list of requirements that there is. Raises `BadRequirements`, `BadConfiguration`."""
    lists = Lists()
    for folder in folders:
        lists = _in_folder(tree, folder)
        if lists.lines:
            return lists
    elsewhere = [path for path in tree.known("requirements.txt") if path.count("/") == 1 and not _ASIDE.match(path)]
    if len(elsewhere) == 1:
        _requirements(tree, elsewhere[0], lists)
    else:
        lists.lines = _inline(tree)
    return lists


def _in_folder(tree: Tree, folder: str) -> Lists:
    """The lines of whichever list there is in one folder."""
    lists = Lists(folder)
    files = [folder + name for name in REQUIREMENTS if tree.has(folder + name)]
    files += [path for path in tree.inside(folder) if re.fullmatch(r"requirements[^/]*\.txt", path[len(folder) :])]
    for path in files[:1]:
        _requirements(tree, path, lists)
    for read in (_pyproject, _pipfile, _conda, _setup_cfg, _setup_py):
        if lists.lines:
            break
        read(tree, lists)
    if folder:
        # its own paths are relative to where it lies; an installer reads them from the root
        lists.lines = [
            (where, f"./{posixpath.normpath(folder + text)}" if re.match(r"\.{1,2}/", text) else text)
            for where, text in lists.lines
        ]
    return lists


def _requirements(tree: Tree, first: str, lists: Lists) -> None:
    waiting = [(first, lists.lines)]
    seen: set[str] = set()
    hashed: list[str] = []
    while waiting and len(seen) < _MOST_FILES:
        path, lines = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        text = tree.text(path).replace("\\\n", " ")
        if " --hash=" in text and lines is lists.lines:
            hashed.append(path)
        for number, line in enumerate(text.split("\n"), 1):
            stripped = line.strip()[:_LONGEST_LINE]
            if not stripped or stripped[0] == "#":
                continue
            where = f"line {number} of {path}"
            if _THIS.fullmatch(stripped):
                stripped = f"-e {stripped}"
            if stripped[0] != "-":
                lines.append((where, stripped))
                continue
            option = _OPTION.match(stripped.split(" #")[0].strip())
            name, value = (option[1], (option[2] or "").strip()) if option else ("", "")
            if name in (*_INCLUDES, *_BOUNDS) and value:
                other = posixpath.normpath(posixpath.join(posixpath.dirname(path), value))
                if not tree.has(other):
                    raise BadRequirements(
                        f"{where} names {quoted(value)}, which is not in the archive",
                        hint="send that file as well, or write what is in it into this one",
                        details={"line": stripped[:200]},
                    )
                waiting.append((other, lists.bounds if name in _BOUNDS else lines))
            elif name in _EDITABLE and value:
                lines += _project(tree, where, value, lists)
            elif name in _INDEXES:
                note = f"{name} in {path} is passed over: packages come from the registries that the operator chose"
                lists.notes.append(note)
    # those that it includes come along with it
    lists.hashed = (first,) if hashed else ()
    lists.notes = list(dict.fromkeys(lists.notes))


def _project(tree: Tree, where: str, value: str, lists: Lists) -> list[Line]:
    """What `-e VALUE` asks for: what the project itself needs where it is this one, else what lies there."""
    if _THIS.fullmatch(value):
        own = Lists(lists.folder)
        for read in (_pyproject, _setup_cfg, _setup_py):
            if not own.lines:
                read(tree, own)
        lists.further += own.further
        return own.lines
    return [(where, value if re.match(r"[\w+]+:|\.{1,2}/|/", value) else f"./{value}")]


def _pyproject(tree: Tree, lists: Lists) -> None:
    own_file = f"{lists.folder}pyproject.toml"
    if not tree.has(own_file):
        return
    data = tree.toml(own_file)
    project, tool = table(data.get("project")), table(data.get("tool"))
    where = f"{own_file}: an entry of dependencies"
    own = project.get("dependencies")
    lists.lines += _entries(where, own)
    if "dependencies" in _strings(project.get("dynamic")):
        dynamic = table(table(table(tool.get("setuptools")).get("dynamic")).get("dependencies")).get("file")
        for path in [dynamic] if isinstance(dynamic, str) else _strings(dynamic):
            if tree.has(path := posixpath.normpath(lists.folder + path)):
                _requirements(tree, path, lists)
    lists.lines = _with_sources(lists.lines, _uv_sources(tree, lists.folder, tool), tree, lists.folder)
    for groups in (project.get("optional-dependencies"), data.get("dependency-groups")):
        for group in table(groups).values():
            lists.further += _entries(f"{own_file}: a group of dependencies", group)
    poetry = table(tool.get("poetry"))
    if not lists.lines:
        lists.lines += _tables(f"{own_file}: a dependency of Poetry", table(poetry.get("dependencies")))
    for name, group in table(poetry.get("group")).items():
        entries = _tables(f"{own_file}: a dependency of Poetry", table(table(group).get("dependencies")))
        # Poetry installs its groups; those for developing are of use only where the app imports them
        unasked = _DEVELOPMENT.search(name) or table(group).get("optional") is True
        (lists.further if unasked else lists.lines).extend(entries)
    lists.pins += python_locks.pins(tree, [lists.folder + name for name in lock_files.PYPROJECT])


def _pipfile(tree: Tree, lists: Lists) -> None:
    own_file = f"{lists.folder}Pipfile"
    if tree.has(own_file):
        data = tree.toml(own_file)
        lists.lines += _tables(f"{own_file}: a package", table(data.get("packages")))
        lists.further += _tables(f"{own_file}: a package", table(data.get("dev-packages")))
        lists.pins += python_locks.pins(tree, [f"{own_file}.lock"])


def _conda(tree: Tree, lists: Lists) -> None:
    path, found = conda_environment.lines(tree, lists.folder)
    for where, text in found:
        option = _OPTION.match(text)
        if option is None or text[0] != "-":
            lists.lines.append((where, text))
        elif option[1] in _INCLUDES and option[2]:
            other = posixpath.normpath(posixpath.join(posixpath.dirname(path), option[2].strip()))
            if tree.has(other):
                _requirements(tree, other, lists)
        elif option[1] in _EDITABLE and option[2]:
            lists.lines += _project(tree, where, option[2].strip(), lists)


def _setup_cfg(tree: Tree, lists: Lists) -> None:
    inside = False
    for line in tree.text(f"{lists.folder}setup.cfg").split("\n"):
        text = line.strip()
        if inside and (line[:1] in (" ", "\t") or not text or text[0] == "#"):
            entry = text
        else:
            name, equals, entry = text.partition("=")
            inside = bool(equals) and name.strip() == "install_requires"
        if inside and entry.strip() and entry.strip()[0] != "#":
            lists.lines.append(
                (f"{lists.folder}setup.cfg: an entry of install_requires", entry.strip()[:_LONGEST_LINE])
            )


def _setup_py(tree: Tree, lists: Lists) -> None:
    text = tree.text(f"{lists.folder}setup.py")
    inside = _INSTALL_REQUIRES.search(text)
    if inside is None:
        named = re.search(r"\binstall_requires\s{0,9}=\s{0,9}(\w{1,80})\s{0,9},?", text)
        if named is not None:
            inside = re.search(rf"^{named[1]}\s{{0,9}}=\s{{0,9}}[\[(]([^\])]{{0,20000}})[\])]", text, re.MULTILINE)
    if inside is not None:
        where = f"{lists.folder}setup.py: an entry of install_requires"
        lists.lines += [(where, literal[2]) for literal in _LITERAL.finditer(_COMMENT.sub("", inside[1]))]


def _inline(tree: Tree) -> list[Line]:
    """What a script says of itself in its first lines (`# /// script`); of the first that does."""
    for path in tree.known(".py"):
        if (header := _INLINE.search(tree.text(path)[: 16 << 10])) is None:
            continue
        body = "\n".join(line.removeprefix("#").removeprefix(" ") for line in header[1].splitlines())
        listed = re.search(r"^dependencies[ \t]*=[ \t]*\[([^\]]{0,20000})\]", body, re.MULTILINE)
        if listed is not None:
            return [(f"{path}: an entry of dependencies", literal[2]) for literal in _LITERAL.finditer(listed[1])]
    return []


def _entries(where: str, value: object) -> list[Line]:
    return [(where, text) for text in _strings(value)]


def _strings(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _uv_sources(tree: Tree, folder: str, tool: Mapping[str, object]) -> Mapping[str, object]:
    """What [tool.uv.sources] says of a project; as a member of a workspace, what its root says too."""
    own = table(table(tool.get("uv")).get("sources"))
    if not folder or not tree.has("pyproject.toml"):
        return own
    root = table(table(tree.toml("pyproject.toml").get("tool")).get("uv"))
    return {**table(root.get("sources")), **own} if "workspace" in root else own


def _member(tree: Tree, name: str) -> str | None:
    """The folder of the package of a workspace that has a name."""
    for path in tree.known("/pyproject.toml")[:_MOST_MEMBERS]:
        own = table(tree.toml(path).get("project")).get("name")
        if isinstance(own, str) and _plain(own) == name:
            return posixpath.dirname(path)
    return None


def _with_sources(lines: list[Line], sources: Mapping[str, object], tree: Tree, folder: str) -> list[Line]:
    """Lines of [project] as uv reads them: [tool.uv.sources] says for some where they come from."""
    if not sources:
        return lines
    at = {_plain(name): strings(source) for name, source in sources.items()}
    members = {_plain(name) for name, source in sources.items() if table(source).get("workspace") is True}
    found = []
    for where, text in lines:
        name = _plain(re.split(r"[^\w.-]", text.strip(), maxsplit=1)[0])
        if name in members and (at_ := _member(tree, name)) is not None:
            found.append((where, f"./{posixpath.relpath(at_, folder or '.')}"))
            continue
        source = at.get(name, {})
        address = source.get("git") or source.get("url")
        if source.get("path"):
            text = f"./{posixpath.normpath(source['path'])}"
        elif address:
            text = address if address.startswith("git+") or "url" in source else f"git+{address}"
        found.append((where, text))
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _tables(where: str, entries: Mapping[str, object]) -> list[Line]:
    return list(_each(where, entries))


def _each(where: str, entries: Mapping[str, object]) -> Iterator[Line]:
    for name, value in entries.items():
        if name.lower() == "python":
            continue
        extras = ""
        if isinstance(value, list):
            # one for each version of Python or each platform; the first that is plain will do
            value = next((entry for entry in value if isinstance(entry, (str, dict))), "*")
        if isinstance(value, dict):
            if value.get("optional") is True:
                continue
            address = strings(value)
            if address.keys() & {"git", "path", "url", "file"}:
                yield where, address.get("git") or address.get("url") or _path(address.get("path") or address["file"])
                continue
            extras = f"[{','.join(_strings(value.get('extras')))}]" if _strings(value.get("extras")) else ""
            value = value.get("version", "*")
        text = value.strip() if isinstance(value, str) else "*"
        yield where, name + extras + poetry_version(text)


def _path(path: str) -> str:
    return path if "://" in path else f"./{posixpath.normpath(path)}"


def poetry_version(text: str) -> str:
    """Poetry's and Pipfile's version syntax as PEP 440: `^1.2`, `~1.2`, `1.2`, `*`, and several with commas."""
    return ",".join(filter(None, (_poetry_part(part.strip()) for part in text.split(","))))


def _poetry_part(text: str) -> str:
    if text in ("", "*"):
        return ""
    if text[0] in "^~" and text[:2] != "~=":
        number = text[1:].strip()
        parts = number.split(".")
        if text[0] == "^":
            digits = [_digits(p) for p in parts]
            at = next((i for i, d in enumerate(digits) if d), len(digits) - 1)
            upper = [*digits[:at], digits[at] + 1]
        else:
            upper = [_digits(p) for p in parts[:2]]
            upper[-1] += 1
        return f">={number},<{'.'.join(map(str, upper))}"
    return f"=={text}" if text[0].isdigit() else text


def _digits(part: str) -> int:
    return int(part) if re.fullmatch(r"[0-9]{1,9}", part) else 0
