"""Worker code: the modules, settings and bindings that the shim in a warm workerd is given to load.

Plain JavaScript modules are passed as they are. What needs more (TypeScript, JSX, packages, imports without a file
name) has to be bundled first; `plain` says so by returning None. Nothing here runs or parses app code beyond finding
its import statements.
"""

from __future__ import annotations

import base64
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vibed.apps.app import Runtime
from vibed.classify.host_rules import Rules
from vibed.drivers.media_types import TYPES, UNKNOWN
from vibed.drivers.workerd.compatibility import NODE_MODULES, date_of, flags_of
from vibed.sandboxes.driver import RunFailed

MAIN = "__vibed_main__.js"
SERVICE_WORKER = "__vibed_service_worker__.js"
BUNDLE = "__vibed_bundle__.js"
CACHE = "__vibed_cache__.js"
BINDINGS = "__vibed_bindings__.js"
MANIFEST = "__STATIC_CONTENT_MANIFEST"
"""What a worker of Workers Sites imports, or has as a variable: keys of its files by their paths."""
HEAP_MB = 96
"""What JavaScript objects may take; the sandbox bounds everything else (ArrayBuffers are outside V8's heap)."""
_SHIM = Path(__file__).parent / "shim"

# Sources are hostile, `re` keeps the whole process waiting while it looks, and what tries the same text again from each
# place in it takes hours for a megabyte: so white space is passed in one go, and only from where it begins.
_BEGIN = r"(?:\A|[;}]|(?<!\s)[^\S\n]*+\n)\s*+"
"""Where a statement may begin, as far as that is seen without parsing."""
_STATEMENT = re.compile(_BEGIN + r"(?:import|export)\b")
_EXPORT = re.compile(_BEGIN + r"export\s*+(?:default\b|\{|const\b|class\b|(?:async\s++)?function\b|\*)")
_CLAUSE = re.compile(r"""[^'"`;()]*+""")
_NAME = re.compile(r"""(['"])([^'"\n]++)\1""")
_FROM = re.compile(r"\bfrom\s*+\Z")
_DYNAMIC_IMPORT = re.compile(r"""\bimport\s*+\(\s*+(['"])([^'"\n]++)\1""")
_REQUIRE = re.compile(r"\brequire\s*\(|\bmodule\.exports\b")
_FETCH_LISTENER = re.compile(r"\baddEventListener\s*\(\s*['\"]fetch['\"]")
_BUILT_IN = ("cloudflare:", "node:", "workerd:")
_MAX_MODULES = 500
TEXTS = (".txt", ".html", ".sql", ".md")
BINARIES = {".wasm": "wasm", ".bin": "data"}
"""What Wrangler makes modules of besides JavaScript, and the kind of module that a worker gets."""
MODULES = (".js", ".mjs", ".cjs", *TEXTS, *BINARIES)
"""How the names of files end that can be modules as they are."""


@cache
def _shipped(name: str) -> str:
    return (_SHIM / name).read_text()


def shim(assets: str = "/assets") -> dict[str, str]:
    """The files of the shim itself, by name. `assets` is the folder in which it finds a worker's, below `site`."""
    return {
        "shim.capnp": _shipped("shim.capnp").replace("@HEAP_MB@", str(HEAP_MB)).replace("@ASSETS@", assets),
        "shim.js": _shipped("shim.js").replace("@TYPES@", json.dumps(TYPES)).replace("@UNKNOWN@", json.dumps(UNKNOWN)),
    }


def built(files: Mapping[str, bytes], entry: str) -> dict[str, object]:
    """The modules of a worker that was bundled: all that lie in the folder of its entry, whoever imports them."""
    folder = entry.partition("/")[0]
    modules: dict[str, object] = {}
    for name, content in files.items():
        kind = posixpath.splitext(name)[1]
        if not name.startswith(f"{folder}/"):
            continue
        if kind in BINARIES:
            modules[name] = binary(kind, content)
        else:
            modules[name] = {"text" if kind in TEXTS else "js": content.decode("utf-8", "replace")}
    return modules


def plain(files: Mapping[str, bytes], entry: str) -> dict[str, object] | None:
    """The modules that `entry` reaches, for `modules` of worker code; None when they have to be bundled."""
    modules: dict[str, object] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name in modules:
            continue
        kind = posixpath.splitext(name)[1]
        content = files.get(name)
        if content is None or len(modules) >= _MAX_MODULES:
            return None
        if kind in TEXTS:
            modules[name] = {"text": content.decode("utf-8", "replace")}
            continue
        if kind in BINARIES:
            modules[name] = binary(kind, content)
            continue
        if kind not in (".js", ".mjs"):
            return None
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return None
        for wanted in _imports(text):
            if wanted.startswith(_BUILT_IN):
                continue
            if not wanted.startswith(("./", "../")):
                return None
            if "?" in wanted:
                return None  # `./a.wasm?module`: the module has that name, and the file has not
            waiting.append(posixpath.normpath(posixpath.join(posixpath.dirname(name), wanted)))
        if name != entry and _REQUIRE.search(text):
            return None
        if name == entry and not _EXPORT.search(text) and not _FETCH_LISTENER.search(text):
            return None
        modules[name] = {"js": text}
    return modules


def binary(kind: str, content: bytes) -> dict[str, object]:
    """A module that is no text, by its extension; the shim turns it into bytes again."""
    return {BINARIES[kind]: base64.b64encode(content).decode()}


def with_binaries(code: str, files: Mapping[str, bytes]) -> dict[str, object]:
    """The modules of a bundle that still imports files of the source that are no text. Raises `RunFailed`.

    esbuild leaves such names as they were written in whatever file, so that a file is found by the end of its path.
    """
    modules: dict[str, object] = {}
    for number, wanted in enumerate(dict.fromkeys(_imports(code))):
        path = wanted.partition("?")[0]
        kind = posixpath.splitext(path)[1]
        if kind not in BINARIES or wanted.startswith(_BUILT_IN):
            continue
        tail = posixpath.normpath(path).lstrip("./")
        found = {content for name, content in files.items() if name == tail or name.endswith(f"/{tail}")}
        if len(found) != 1:
            raise RunFailed(
                f"the worker imports {wanted!r}, "
                + ("which is not in the source" if not found else "and several files of the source end like this"),
                code="BundleFailed",
                hint=f"bring {tail} along with the source" if not found else "give each a name of its own",
            )
        name = f"__vibed_{number}{kind}"
        modules[name] = binary(kind, found.pop())
        importing = re.compile(rf"""(\b(?:from|import)\s*+\(?\s*+)(['"]){re.escape(wanted)}\2""")
        code = importing.sub(rf"\1\2./{name}\2", code)
    return {BUNDLE: {"js": code}, **modules}


def _imports(text: str) -> Iterator[str]:
    """The names of modules in a module's import and export statements, and in its calls of `import`."""
    for match in _DYNAMIC_IMPORT.finditer(text):
        yield match[2]
    at = 0
    while begun := _STATEMENT.search(text, at):
        last, at = begun.end(), _end_of_clause(text, begun.end())
        for another in _STATEMENT.finditer(text, last, at):
            last = another.end()
        name = _NAME.match(text, at)
        if name is not None and (not text[last:at].strip() or _FROM.search(text, begun.end(), at)):
            yield name[2]
            at = name.end()


def _end_of_clause(text: str, at: int) -> int:
    """Where the first character is that no import clause has."""
    match = _CLAUSE.match(text, at)
    assert match is not None, "it matches nothing as well"
    return match.end()


def build(
    runtime: Runtime,
    env: Mapping[str, str],
    modules: Mapping[str, object],
    entry: str,
    assets: Mapping[str, str] | None,
    rules: Rules | None = None,
) -> dict[str, object]:
    """The worker code. `assets` maps the paths of static files to their etags, `rules` are what these bring along.
    Raises `RunFailed`.
    """
    options = runtime.options
    code: dict[str, Any] = {
        "compatibilityDate": date_of(options.get("compatibility_date")),
        "compatibilityFlags": flags_of(options.get("compatibility_flags")),
        "env": {**_vars(options.get("vars")), **env},
        "modules": {},
        "mainModule": "",
    }
    if modules:
        code["modules"] = {**modules, **_main(entry, modules)}
        code["mainModule"] = MAIN
        code["modules"][BINDINGS] = {"js": _bindings(options.get("bindings"))}
    if assets is not None:
        rules = rules or Rules()
        given = options.get("assets")
        settings: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        sites = settings.get("sites") is True
        if sites and modules:
            manifest = json.dumps({path: f"{etag.strip(chr(34))}/{path}" for path, etag in assets.items()})
            # as a module beside whatever imports it: names are looked up from there
            folders = {posixpath.dirname(name) for name in modules}
            code["modules"] |= {posixpath.join(folder, MANIFEST): {"text": manifest} for folder in folders}
            code["env"] = {MANIFEST: manifest, **code["env"]}
        code["assets"] = {
            "sites": sites,
            "files": dict(assets),
            "binding": "" if sites else settings.get("binding") or "ASSETS",
            "html_handling": settings.get("html_handling") or "auto-trailing-slash",
            "not_found_handling": settings.get("not_found_handling")
            or ("single-page-application" if rules.single_page else "none"),
            "run_worker_first": settings.get("run_worker_first") or False,
            "redirects": [rule.data() for rule in rules.redirects if not rule.is_fallback],
            "headers": [rule.data() for rule in rules.headers],
        }
    return code


def esbuild_arguments(entry: str, runtime: Runtime) -> list[str]:
    """How a worker is bundled: as Wrangler does, for the conditions `workerd`, `worker` and `browser`."""
    arguments = [
        f"./{entry}",
        "--bundle",
        "--format=esm",
        "--target=es2024",
        "--platform=neutral",
        "--main-fields=workerd,worker,browser,module,main",
        "--conditions=workerd,worker,browser",
        "--external:cloudflare:*",
        "--external:node:*",
        "--external:workerd:*",
        f"--external:{MANIFEST}",
        *(f"--loader:{kind}=text" for kind in TEXTS),
        *(f"--external:*{kind}{query}" for kind in BINARIES for query in ("", "?module")),
        '--define:process.env.NODE_ENV="production"',
        "--keep-names",
        "--log-limit=20",
        "--color=false",
        "--charset=utf8",
    ]
    return [*arguments, *(f"--alias:{name}=node:{name}" for name in NODE_MODULES)]


def bundled(output: bytes) -> dict[str, object]:
    """The modules of worker code whose bundle is `output`."""
    text = output.decode("utf-8", "replace")
    if "Dynamic require of" in text:
        # packages in CommonJS that take a module of Node at run time (Express)
        text = 'import { createRequire as __vibed_require } from "node:module";\n' + (
            'const require = __vibed_require("/");\n' + text
        )
    return {BUNDLE: {"js": text}}


def _main(entry: str, modules: Mapping[str, object]) -> dict[str, object]:
    module = modules[entry]
    text = str(module["js"]) if isinstance(module, Mapping) else ""
    # how esbuild writes it is looked for first: a bundle is long
    exports = "\nexport {" in text or _EXPORT.search(text)
    as_service_worker = not exports and bool(_FETCH_LISTENER.search(text))
    # service workers register while they are evaluated, so the module that listens comes first
    cache = {CACHE: {"js": _shipped("cache.js")}}
    main = _shipped("main.js").replace("@MODULE@", f"./{entry}")
    if as_service_worker:
        main = main.replace("@PRELUDE@", f'import {{ handler as listened }} from "./{SERVICE_WORKER}";')
        main = main.replace("@HANDLER@", "listened")
        return {MAIN: {"js": main}, SERVICE_WORKER: {"js": _shipped("service_worker.js")}, **cache}
    return {MAIN: {"js": main.replace("@PRELUDE@", "").replace("@HANDLER@", "app.default")}, **cache}


def _bindings(value: object) -> str:
    """The module that puts what wrangler's file binds into `env`."""
    return _shipped("bindings.js").replace("@BINDINGS@", json.dumps(value if isinstance(value, list) else []))


def _vars(value: object) -> dict[str, object]:
    """`[vars]` of wrangler.toml: strings, or JSON values."""
    return json.loads(json.dumps(dict(value))) if isinstance(value, Mapping) else {}
