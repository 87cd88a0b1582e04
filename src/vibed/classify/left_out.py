"""What an archive asks for beside its one server, and does not get: notes, so that it is not left out silently."""

from __future__ import annotations

import re

from vibed.classify.decision import Decision
from vibed.classify.node_tools import FRAMEWORKS, FRONT_ENDS, SERVERS
from vibed.classify.tree import Tree
from vibed.sources.errors import quoted
from vibed.sources.table import ArchiveTable

_APT = re.compile(
    r"(?:apt-get|apt|apk)[ ](?:-\S{1,20}[ ])*(?:install|add)\b((?:[ \t]{1,20}|\\\r?\n|[\w.+=-]{1,60}){1,200})"
)
_USUAL = re.compile(
    r"curl|wget|git|ca-certificates|gcc|g\+\+|make|build-essential|bash|tini|dumb-init|python3.*|.*-dev|gnupg.*|install"
)
"""What a Dockerfile installs to build, or the template has as well."""
_COMPOSE = ("docker-compose.yml", "docker-compose.yaml", "compose.yml", "compose.yaml")
_LARGEST_COMPOSE = 64 << 10
_PROCESS = re.compile(r"^([A-Za-z][\w-]{0,40})[ \t]*:[ \t]*(\S.{0,500})", re.MULTILINE)
_TARGET = re.compile(r"[\w.]+:[\w.()]+")
_VARIABLES = (".env", "ENV", ".env.production", ".env.local", ".flaskenv", "env.list")
_READS = re.compile(
    r"\b(?:dotenv|decouple|environs|environ\.Env|env_file|loadEnvFile|godotenv|dynaconf)\b|['\"/]\.env\b"
)
"""What reads a file of variables."""
_KEY = re.compile(r"""^([ ]{0,40})["']?([\w.-]{1,80})["']?[ ]*:""")
_APP = frozenset({"app", "web", "api", "backend", "server"})
_SERVER_FILES = (".py", ".js", ".mjs", ".cjs", ".ts", ".mts", ".go")
_MOST = 8
_MOST_TOPS = 30
_PAGES = frozenset({"frontend", "front-end", "front", "client", "web", "ui", "www", "website"})
"""Folders whose pages are an app's, by their names; what frameworks serve by themselves is not among them."""
_BUILT = ("dist", "build", "out")


def notes(tree: Tree, decision: Decision) -> tuple[str, ...]:
    """For a server of the general lane; a site and a worker are all there is of them."""
    if decision.lane != "general":
        return ()
    said = (
        _procfile(tree, decision),
        _variables(tree, decision),
        _compose(tree),
        _installed(tree),
        _front_end(tree, decision),
    )
    return tuple(filter(None, said))


def links(table: ArchiveTable) -> tuple[str, ...]:
    """Links of tools that are not part of what is deployed."""
    names = table.passed_over
    if not names:
        return ()
    shown = list(dict.fromkeys(name.rpartition("/")[0] or name for name in names))
    return (
        f"left out: {len(names)} link{'s' if len(names) > 1 else ''} of tools, in {', '.join(map(quoted, shown[:3]))}",
    )


def _installed(tree: Tree) -> str:
    """What a Dockerfile installs beside the app: it is not built."""
    names = [name for line in _APT.findall(tree.text("Dockerfile")[:65536]) for name in line.split()]
    asked = [name for name in dict.fromkeys(names) if re.fullmatch(r"[a-z0-9][a-z0-9.+-]{1,60}", name)]
    wanted = [name for name in asked if not _USUAL.fullmatch(name)][:_MOST]
    return f"Dockerfiles are not built here: {', '.join(wanted)} of it are not there" if wanted else ""


def _procfile(tree: Tree, decision: Decision) -> str:
    """Lines of the Procfile that are processes of their own: not a target that is served (`wsgi: app:app`), nor what
    is done before the start."""
    prepared = " ".join(word for step in decision.build for word in step)
    names = []
    for name, line in _PROCESS.findall(tree.text("Procfile")):
        done = name == "release" and re.search(r"manage\.py[ ]+(migrate|collectstatic)\b", line)
        if name == "web" or _TARGET.fullmatch(line.strip()) or (done and done[1] in prepared):
            continue
        names.append(name)
    if not names:
        return ""
    return f"not started here: {', '.join(list(dict.fromkeys(names))[:_MOST])} of the Procfile"


def _variables(tree: Tree, decision: Decision) -> str:
    """A file of variables that nothing reads."""
    found = tree.first(_VARIABLES)
    command = " ".join(decision.argv) or decision.shell or ""
    if found is None or (found != "ENV" and re.search(r"env-file|\bdotenv\b|flask", command)):
        return ""
    if found != "ENV" and any(_READS.search(tree.text(path)) for path in tree.known(*_SERVER_FILES)):
        return ""
    return f"nothing reads {quoted(found)}: pass the variables that the app needs of it as env"


def _compose(tree: Tree) -> str:
    path = tree.first(_COMPOSE)
    services = _services(tree.text(path)[:_LARGEST_COMPOSE]) if path else {}
    app = next((name for name, keys in services.items() if "build" in keys or name in _APP), None)
    others = [name for name in services if name != app and len(services) > 1][:_MOST]
    said = []
    if others:
        said.append(f"not started here: {', '.join(others)} of {path}")
    if any(keys & {"environment", "env_file"} for keys in services.values()):
        said.append(f"the environment in {path} is not set; pass what the app needs of it as env")
    return "; ".join(said)


def _services(text: str) -> dict[str, set[str]]:
    """The services of a compose file, each with its keys: by indentation, which is how everybody writes them."""
    found: dict[str, set[str]] = {}
    inside, depths, name = False, [0, 0], ""
    for line in text.split("\n"):
        match = _KEY.match(line)
        if not match or line.lstrip().startswith("#"):
            continue
        depth = len(match[1])
        if depth == 0:
            inside, depths = match[2] == "services", [0, 0]
        elif inside and depths[0] in (0, depth):
            depths, name = [depth, 0], match[2]
            found[name] = set()
        elif inside and depths[1] in (0, depth):
            depths[1] = depth
            found[name].add(match[2])
    return found


def _front_end(tree: Tree, decision: Decision) -> str:
    """A folder with pages, or with a front-end project, that no file outside of it mentions; or whose built pages are
    mentioned, and not there."""
    started = " ".join((*decision.argv, *(word for step in decision.build for word in step))) + (decision.shell or "")
    servers = tree.known(*_SERVER_FILES)
    for top in tree.tops[:_MOST_TOPS]:
        name = rf"(?<![\w-]){re.escape(top)}(?![\w-])"
        project = _is_front_end(tree.text(f"{top}/package.json"))
        pages = top in _PAGES and {f"{top}/index.html", f"{top}/package.json"} & tree.paths == {f"{top}/index.html"}
        if not (project or pages) or re.search(name, started):
            continue
        outside = "\n".join(tree.text(path) for path in servers if not path.startswith(f"{top}/"))
        built = next((f"{top}/{folder}" for folder in _BUILT if f"{top}/{folder}/index.html" in tree.paths), "")
        if not re.search(rf"""['"`/]{re.escape(top)}['"`/]|go:embed[^\n]{{0,200}}{name}""", outside):
            if built or not project:
                ready = quoted(built or top)
                return (
                    f"{quoted(top)} is a front end that the server does not serve: let the server serve {ready}, or"
                    " deploy that folder as an app of its own"
                )
            return (
                f"{quoted(top)} is a front end that the server does not serve: run npm run build in it and let the"
                " server serve the folder that this makes, or deploy that folder as an app of its own"
            )
        wanted = re.search(rf"""['"`/]{re.escape(top)}(?:/|['"][ ]?,[ ]?['"])({"|".join(_BUILT)})\b""", outside)
        if wanted and f"{top}/{wanted[1]}" not in tree.folders:
            return (
                f"the server serves {quoted(f'{top}/{wanted[1]}')}, which is not in the archive: run npm run build in"
                f" {quoted(top)} and deploy the folder that this makes with the rest, also if .gitignore names it"
            )
    return ""


def _is_front_end(package: str) -> bool:
    names = set(re.findall(r'"(@?[\w./-]{1,100})"\s{0,5}:', package))
    return bool(names & {*FRONT_ENDS, *FRAMEWORKS}) and not names & SERVERS
