"""What a Python app needs beyond Python, compared with what the template has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from vibed.classify.errors import BadRequirements
from vibed.classify.needs import DATABASES, Needs
from vibed.classify.python_source import Sources, is_standard
from vibed.classify.tree import Tree, strings, table
from vibed.sources.errors import quoted

DISTRIBUTIONS = {
    "PIL": "pillow", "cv2": "opencv-python", "sklearn": "scikit-learn", "skimage": "scikit-image", "yaml": "pyyaml",
    "bs4": "beautifulsoup4", "dotenv": "python-dotenv", "dateutil": "python-dateutil", "jwt": "pyjwt",
    "jose": "python-jose", "flask_cors": "flask-cors", "flask_sqlalchemy": "flask-sqlalchemy",
    "flask_login": "flask-login", "flask_wtf": "flask-wtf", "flask_socketio": "flask-socketio",
    "socketio": "python-socketio", "engineio": "python-engineio", "wtforms": "wtforms",
    "multipart": "python-multipart", "python_multipart": "python-multipart", "docx": "python-docx",
    "pptx": "python-pptx", "fitz": "pymupdf", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient",
    "serial": "pyserial", "usb": "pyusb", "Crypto": "pycryptodome", "OpenSSL": "pyopenssl",
    "google.generativeai": "google-generativeai", "google.genai": "google-genai", "google.cloud": "google-cloud",
    "google.oauth2": "google-auth", "google.auth": "google-auth", "google.protobuf": "protobuf",
    "googleapiclient": "google-api-python-client", "azure.identity": "azure-identity",
    "azure.storage": "azure-storage-blob",
    "telegram": "python-telegram-bot", "telebot": "pytelegrambotapi", "discord": "discord-py",
    "slack_bolt": "slack-bolt", "rest_framework": "djangorestframework", "corsheaders": "django-cors-headers",
    "environ": "django-environ", "decouple": "python-decouple", "magic": "python-magic", "slugify": "python-slugify",
    "markdown2": "markdown2", "fasthtml": "python-fasthtml", "pydantic_settings": "pydantic-settings",
    "sse_starlette": "sse-starlette", "attr": "attrs", "pkg_resources": "setuptools", "git": "gitpython",
    "github": "pygithub", "ruamel": "ruamel-yaml", "win32api": "pywin32", "win32com": "pywin32",
    "barcode": "python-barcode", "kafka": "kafka-python", "nacl": "pynacl", "email_validator": "email-validator",
    "xlsxwriter": "xlsxwriter", "web": "web-py", "gi": "pygobject", "wx": "wxpython", "fpdf": "fpdf2",
    "mpl_toolkits": "matplotlib", "pylab": "matplotlib", "bson": "pymongo", "gridfs": "pymongo", "playhouse": "peewee",
    "mysql": "mysql-connector-python", "cassandra": "cassandra-driver", "pdfminer": "pdfminer-six", "odf": "odfpy",
    "tabula": "tabula-py", "camelot": "camelot-py", "markdown_it": "markdown-it-py",
    "frontmatter": "python-frontmatter", "websocket": "websocket-client", "paho": "paho-mqtt", "zmq": "pyzmq",
    "socks": "pysocks", "dns": "dnspython", "argon2": "argon2-cffi", "Cryptodome": "pycryptodomex",
    "ldap": "python-ldap", "speech_recognition": "speechrecognition", "whisper": "openai-whisper",
    "faiss": "faiss-cpu", "imblearn": "imbalanced-learn", "umap": "umap-learn", "Bio": "biopython", "talib": "ta-lib",
    "st_aggrid": "streamlit-aggrid", "flask_security": "flask-security-too",
    "strawberry": "strawberry-graphql", "tortoise": "tortoise-orm", "ninja": "django-ninja",
    "allauth": "django-allauth", "crispy_forms": "django-crispy-forms", "django_filters": "django-filter",
    "debug_toolbar": "django-debug-toolbar", "storages": "django-storages", "import_export": "django-import-export",
    "widget_tweaks": "django-widget-tweaks", "taggit": "django-taggit", "simple_history": "django-simple-history",
    "rest_framework_simplejwt": "djangorestframework-simplejwt", "binance": "python-binance",
    "newsapi": "newsapi-python", "gitlab": "python-gitlab", "pyrebase": "pyrebase4", "nmap": "python-nmap",
    "whois": "python-whois", "sseclient": "sseclient-py", "ulid": "python-ulid", "Levenshtein": "levenshtein",
    "deepgram": "deepgram-sdk", "tavily": "tavily-python",
}  # fmt: skip
"""Names to import whose distribution has another name."""

_NAMESPACES = frozenset({"google", "azure"})
"""Names to import that belong to many distributions, all called `NAME-…`."""

_SAME = {
    "psycopg2": "psycopg2-binary", "psycopg-binary": "psycopg", "fpdf": "fpdf2", "bs4": "beautifulsoup4",
    "dotenv": "python-dotenv", "opencv-python-headless": "opencv-python", "opencv-contrib-python": "opencv-python",
    "pinecone-client": "pinecone", "python-levenshtein": "levenshtein",
}  # fmt: skip
"""Distributions that bring the same module as another: one name for both."""

NOT_NEEDED = frozenset(
    {
        "pip", "setuptools", "wheel", "build", "twine", "tox", "nox", "pytest", "pytest-cov", "pytest-asyncio",
        "pytest-mock", "coverage", "black", "ruff", "flake8", "isort", "pylint", "mypy", "pre-commit", "autopep8",
        "bandit", "pyright", "ipykernel", "ipython", "jupyter", "jupyterlab", "notebook", "ipdb", "pip-tools",
        "virtualenv", "pipenv", "poetry", "pywin32", "pypiwin32", "pywin32-ctypes", "pywinpty", "comtypes", "wmi",
        "appnope", "pyobjc", "pyreadline3", "types-requests", "watchdog", "colorama", "honcho", "python",
    }
)  # fmt: skip
"""Tools for writing an app, and what only Windows or macOS has: not needed unless the app imports them."""

UNNOTICED = {
    "flask": 2, "werkzeug": 2, "markupsafe": 1, "itsdangerous": 1, "gunicorn": 19, "pillow": 8, "certifi": 0,
    "attrs": 0, "packaging": 20, "charset-normalizer": 2, "pyyaml": 5, "blinker": 1, "zipp": 1,
    "importlib-metadata": 3, "pytz": 0, "tzdata": 0, "anyio": 3, "idna": 2, "async-timeout": 3, "cachetools": 4,
    "urllib3": 1, "websockets": 9, "markdown": 3, "python-dotenv": 0, "h11": 0, "flask-cors": 3, "flask-login": 0,
    "flask-wtf": 0, "flask-sqlalchemy": 3, "whitenoise": 5, "asgiref": 3, "pyjwt": 2, "email-validator": 1,
    "qrcode": 6, "setuptools": 0, "openpyxl": 2, "reportlab": 3, "plotly": 4, "xlsxwriter": 1, "tornado": 6,
    "cffi": 1, "pycparser": 2, "wrapt": 1, "tenacity": 7, "rich": 10, "protobuf": 4, "fsspec": 0, "soupsieve": 2,
    "multidict": 4, "frozenlist": 1, "greenlet": 1, "pyparsing": 2, "contourpy": 1, "fonttools": 4, "narwhals": 1,
    "pyarrow": 12, "toml": 0, "gitpython": 3, "gitdb": 4, "smmap": 4, "referencing": 0, "jsonschema": 4, "rpds-py": 0,
    "altair": 4, "blobfile": 1, "typing-extensions": 4, "httptools": 0, "watchfiles": 0, "uvloop": 0, "dnspython": 2,
    "six": 1, "aiosignal": 1, "aiohappyeyeballs": 2, "propcache": 0, "yarl": 1,
}  # fmt: skip
"""Packages whose major version small apps do not notice, from the one given here on."""

_DATABASE = re.compile(
    r"\b(?:postgres(?:ql)?|mysql|mariadb|mongodb|rediss?|mssql|oracle)(?:\+\w{1,20})?://|\bDATABASE_UR[LI]\b"
    r"|\bbackends\.(?:postgresql|mysql|oracle)\b|\b(?:DB|PG|POSTGRES|MYSQL|MONGO|REDIS)_?(?:HOST|UR[LI])\b"
)
"""The address of a database server, or the variable that holds it."""
_INCLUDE = re.compile(r"(?:-r|--requirement)[ =]?\s*(\S+)")
_ADDRESS = re.compile(r"^(?:git\+|hg\+|svn\+|https?://|file:|ssh:|\.{1,2}/|/|[\w.-]+\.(?:whl|tar\.gz|zip)$)")
_REQUIREMENTS = ("requirements.txt", "requirements/production.txt", "requirements/prod.txt", "requirements/base.txt")
_MOST_FILES = 10
_LONGEST_LINE = 2000


@dataclass(frozen=True)
class _Wanted:
    name: str
    shown: str
    specifier: SpecifierSet


def dependencies(
    tree: Tree, sources: Sources, entry: str | None, packages: Mapping[str, str] | None, python: str
) -> Needs:
    """Compare what is declared, or else imported from `entry` on, with `packages` (name to version; None: do not).

    `python` is the template's version, for environment markers. Raises `BadRequirements`.
    """
    found = Needs()
    wanted, addresses = _declared(tree, python)
    imported = _imported(tree, sources, entry)
    if not wanted and not addresses:
        wanted = [_Wanted(name, name, SpecifierSet()) for name in sorted(imported - _NAMESPACES)]
    have: dict[str, str] = {canonicalize_name(name): version for name, version in (packages or {}).items()}
    used = imported.union(name for want in wanted for name in (want.name, _SAME.get(want.name, want.name)))
    found.packages = [name for name in packages or {} if canonicalize_name(name) in used]
    for want in wanted:
        if want.name not in found.names:
            found.names.append(want.name)
        if packages is not None:
            _compare(want, have, imported, tree, found)
    if packages is not None:
        found.missing |= {address: address for address in addresses}
    return found


def _compare(want: _Wanted, have: Mapping[str, str], imported: set[str], tree: Tree, found: Needs) -> None:
    same = _SAME.get(want.name, want.name)
    used = same in imported or any(top in imported and want.name.startswith(f"{top}-") for top in _NAMESPACES)
    version = have.get(want.name)
    if version is None:
        if same in have:
            return
        module = next((m for m, d in DISTRIBUTIONS.items() if d == same), want.name.replace("-", "_"))
        folder = _vendored(tree, module) or _vendored(tree, want.name.replace("-", "_"))
        if folder is not None:
            if folder not in found.vendored:
                found.vendored.append(folder)
        elif used:
            found.missing[want.name] = want.shown
        elif want.name in DATABASES:
            # SQLAlchemy and Django import a driver by the address of its database.
            if _asks_for_database(tree):
                found.missing[want.name] = want.shown
            else:
                found.notes.append(f"{want.shown} was asked for and is not there; nothing was seen that uses it")
        elif not (want.name in NOT_NEEDED or is_standard(want.name)):
            found.missing[want.name] = want.shown
            found.unused.append(want.shown)
        return
    if _satisfied(want.specifier, version):
        return
    if _near(want, version) or not used:
        found.notes.append(f"{want.shown} was asked for; the template has {version}")
        return
    found.missing[want.name] = f"{want.shown} (the template has {version})"
    found.pinned[want.name] = version


def _asks_for_database(tree: Tree) -> bool:
    return not tree.complete or any(_DATABASE.search(tree.text(path)) for path in tree.known(".py"))


def _satisfied(specifier: SpecifierSet, version: str) -> bool:
    try:
        return specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


def _near(want: _Wanted, version: str) -> bool:
    """Whether some version with the template's major version, or an unnoticed other, was allowed."""
    try:
        major = Version(version).major
    except InvalidVersion:
        return True
    named = []
    for part in want.specifier:
        try:
            named.append(Version(part.version.removesuffix(".*")))
        except InvalidVersion:
            return True
    tried = [v for v in named if v.major == major] + [
        Version(f"{major}.0"),
        Version(f"{major}.9999"),
        Version(f"{major}.0.9999"),
    ]
    if any(want.specifier.contains(v, prereleases=True) for v in tried):
        return True
    least = UNNOTICED.get(want.name)
    return least is not None and bool(named) and all(least <= v.major for v in named)


def _vendored(tree: Tree, module: str) -> str | None:
    for folder in ("vendor", "vendored", "site-packages", "libs", "lib", "packages", "third_party", "_vendor"):
        if f"{folder}/{module}" in tree.folders or f"{folder}/{module}.py" in tree.paths:
            return folder
    return None


def _imported(tree: Tree, sources: Sources, entry: str | None) -> set[str]:
    """Distributions that the app's files import, from `entry` on; without one, of all files that are known."""
    files = sources.reached(entry) if entry else [sources[path] for path in tree.known(".py")[:60]]
    found: set[str] = set()
    for source in files:
        for name in source.needed:
            top = name.split(".")[0]
            if not top or name.startswith(".") or is_standard(top) or sources.is_local(top, source.path):
                continue
            two = ".".join(name.split(".")[:2])
            if top in _NAMESPACES:
                found.add(top)
                if name == top:
                    continue
            found.add(canonicalize_name(DISTRIBUTIONS.get(two) or DISTRIBUTIONS.get(top) or top))
    return found


def _declared(tree: Tree, python: str) -> tuple[list[_Wanted], list[str]]:
    environment = {
        "python_version": python, "python_full_version": f"{python}.0", "implementation_version": f"{python}.0",
        "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64",
        "platform_python_implementation": "CPython", "implementation_name": "cpython", "platform_release": "",
        "platform_version": "", "extra": "",
    }  # fmt: skip
    wanted: list[_Wanted] = []
    addresses: list[str] = []
    for where, full in _lines(tree):
        line = full[:_LONGEST_LINE]
        text = line.split(" #")[0].split(" --")[0].strip().rstrip("\\").strip()
        if _ADDRESS.match(text):
            addresses.append(text[:100])
            continue
        try:
            parsed = Requirement(text)
            applies = parsed.marker is None or parsed.marker.evaluate(environment)
        except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName) as error:
            reason = str(error).splitlines()[0][:120]
            raise BadRequirements(
                f"{where} is not a requirement: {quoted(line)} ({reason})",
                hint="write one package a line, for example flask>=3, and nothing else but # comments",
                details={"line": line[:200]},
            ) from None
        if not applies:
            continue
        name = canonicalize_name(parsed.name)
        if parsed.url:
            addresses.append(f"{parsed.name} @ {parsed.url}"[:100])
        else:
            wanted.append(_Wanted(name, f"{name}{parsed.specifier}", parsed.specifier))
    return wanted, addresses


def _lines(tree: Tree) -> list[tuple[str, str]]:
    """Requirement lines of whichever list the app has, each with where it stands."""
    listed = tree.first(_REQUIREMENTS)
    if listed:
        return _requirement_lines(tree, listed)
    if tree.has("pyproject.toml"):
        data = tree.toml("pyproject.toml")
        project = table(data.get("project")).get("dependencies")
        if isinstance(project, list):
            return [("pyproject.toml: an entry of dependencies", text) for text in project if isinstance(text, str)]
        poetry = table(table(table(data.get("tool")).get("poetry")).get("dependencies"))
        if poetry:
            return _tables("pyproject.toml: a dependency of Poetry", poetry)
    if tree.has("Pipfile"):
        return _tables("Pipfile: a package", table(tree.toml("Pipfile").get("packages")))
    other = next((name for name in tree.root if name.startswith("requirements") and name.endswith(".txt")), None)
    return _requirement_lines(tree, other) if other else []


def _requirement_lines(tree: Tree, first: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    waiting = [first]
    seen: set[str] = set()
    while waiting and len(seen) < _MOST_FILES:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        text = tree.text(path).replace("\\\n", " ")
        for number, line in enumerate(text.split("\n"), 1):
            stripped = line.strip()[:_LONGEST_LINE]
            if not stripped or stripped[0] == "#":
                continue
            if stripped[0] == "-":
                include = _INCLUDE.match(stripped)
                if include:
                    folder = path.rpartition("/")[0]
                    waiting.append(f"{folder}/{include[1]}" if folder else include[1].removeprefix("./"))
                continue
            found.append((f"line {number} of {path}", stripped))
    return found


def _tables(where: str, entries: Mapping[str, object]) -> list[tuple[str, str]]:
    found = []
    for name, value in entries.items():
        if name.lower() == "python":
            continue
        if isinstance(value, dict):
            if strings(value).keys() & {"git", "path", "url", "file"} or value.get("optional") is True:
                if value.get("optional") is not True:
                    address = strings(value)
                    found.append((where, address.get("git") or address.get("url") or f"./{name}"))
                continue
            value = value.get("version", "*")
        text = value.strip() if isinstance(value, str) else "*"
        found.append((where, name + _poetry(text)))
    return found


def _poetry(text: str) -> str:
    """Poetry's and Pipfile's version syntax as PEP 440: `^1.2`, `~1.2`, `1.2`, `*`."""
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
