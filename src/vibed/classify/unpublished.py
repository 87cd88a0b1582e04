"""What of a site's folder is not for its visitors: a host's configuration, a project's tools, other hosts' functions.

docs/reference/classifier.md has the list for people. What a page or script of the site names is published all the same
where it is a tool's (a page may show the version in its package.json); the rest never is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from fnmatch import translate

from vibed.sources import lock_files


def _named(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)))


_HOSTS = _named(
    "_redirects", "_headers", "_routes.json", "_worker.js", "netlify.toml", "vercel.json", "now.json", "firebase.json",
    "staticwebapp.config.json", "wrangler.toml", "wrangler.json", "wrangler.jsonc", "web.config", "fly.toml",
    "render.yaml", "railway.json", "railway.toml", "app.yaml", "amplify.yml", "appspec.yml", "Procfile", "Dockerfile*",
    "docker-compose*.yml", "docker-compose*.yaml", "compose.yml", "compose.yaml", "nginx.conf", "Caddyfile",
    "buildspec.yml", "cloudbuild.yaml", "bitbucket-pipelines.yml", "Jenkinsfile", "vibed.toml",
)  # fmt: skip
"""Files at a site's root that configure who serves it."""
_TOOLS = _named(
    *lock_files.NODE, *lock_files.PYTHON, lock_files.BINARY, "package.json", "pnpm-workspace.yaml", "deno.json",
    "deno.lock", "tsconfig*.json", "jsconfig.json", "turbo.json", "lerna.json", "nx.json", "angular.json",
    "components.json", "*.config.js", "*.config.ts", "*.config.mjs", "*.config.cjs", "gulpfile.js", "Gruntfile.js",
    "Makefile", "Rakefile", "Gemfile", "Gemfile.lock", "*.gemspec", "composer.json", "composer.lock",
    "requirements*.txt", "pyproject.toml", "Pipfile", "go.mod", "go.sum", "Cargo.toml", "Cargo.lock", "pubspec.yaml",
    "pubspec.lock", "pom.xml", "build.gradle*", "*.csproj", "*.fsproj", "*.vbproj", "*.sln",
)  # fmt: skip
"""Files at a site's root that its project is made with."""
_SCRIPTS = (".php", ".phtml", ".jsp", ".asp", ".aspx", ".cgi")
"""Ends of the names of what another server would run, wherever it lies: it may hold passwords."""
_CODE = (".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".jsx", ".tsx", ".py", ".go", ".rb")
_READ = (".html", ".htm", ".js", ".mjs")
_HANDLER = re.compile(
    r"\bonRequest(?:Get|Post|Put|Patch|Delete|Head|Options)?\b|\bexports\.handler\b|\bmodule\.exports\b"
    r"|\bexport\s{1,9}default\b|\bexport\s{1,9}(?:const|async\s{1,9}function|function)\s{1,9}(?:handler|GET|POST|PUT"
    r"|PATCH|DELETE)\b|^class handler\b|^def (?:handler|main)\b|\bfunc Handler\b|\bHandler\.new\b|\bDeno\.serve\b",
    re.MULTILINE,
)
FUNCTIONS = ("api/", "functions/", "netlify/functions/", "netlify/edge-functions/", "supabase/functions/")
"""Where other hosts look for functions, from the root of a project."""

Text = Callable[[str], str]


def functions(paths: Collection[str], text: Text) -> list[str]:
    """The sources of functions of other hosts among `paths`."""
    found: list[str] = []
    for folder in FUNCTIONS:
        sources = sorted(path for path in paths if path.startswith(folder) and path.endswith(_CODE))
        if not any(_HANDLER.search(text(path)) for path in sources):
            continue
        # a script of the page's own may lie in a folder of that name
        if not any(_names(paths, text, path) for path in sources):
            found += sources
    return found


def unpublished(paths: Collection[str], text: Text) -> frozenset[str]:
    """Which of a site's `paths`, relative to its root, its visitors do not get; `text` gives a file's beginning."""
    found = {path for path in paths if _is_never_shown(path)}
    found.update(functions(paths, text))
    found.update(path for path in paths if _is_at_root(_TOOLS, path) and not _names(paths, text, path))
    modules = [path for path in paths if path.startswith("node_modules/")]
    if modules and not _names(paths, text, "node_modules/"):
        found.update(modules)
    return frozenset(found)


def _is_never_shown(path: str) -> bool:
    return (
        _is_hidden(path)
        or path.lower().endswith(_SCRIPTS)
        or path.startswith("_worker.js/")
        or _is_at_root(_HOSTS, path)
    )


def _is_hidden(path: str) -> bool:
    return (path[0] == "." or "/." in path) and not path.startswith(".well-known/")


def _is_at_root(names: re.Pattern[str], path: str) -> bool:
    return "/" not in path and names.match(path) is not None


def _names(paths: Collection[str], text: Text, name: str) -> bool:
    """Whether a page or a script of the site, other than that file, names it as a browser would ask for it."""
    asked = re.compile(rf"""["'(=/]\s{{0,5}}(?:\.{{0,2}}/)?{re.escape(name)}""")
    return any(
        asked.search(text(path))
        for path in paths
        if path.lower().endswith(_READ) and path != name and not path.startswith(("node_modules/", *FUNCTIONS))
    )
