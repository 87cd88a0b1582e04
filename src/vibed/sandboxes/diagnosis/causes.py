"""What is behind an error: a table of causes, from the most particular to the most general."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vibed.sandboxes.diagnosis import modules, programs, python_past, services, variables
from vibed.sandboxes.diagnosis.about import About, Cause
from vibed.sandboxes.diagnosis.fault import Fault

_LISTEN_ONCE = (
    "have it listen once, on the port in PORT: often a second server starts, or `app.run()` is called beside the server"
    " that the start command names"
)
_WRITABLE = "apps may write in /app, /tmp, /data and $HOME; what they write there ends with the sandbox"
_GIVE = "deploy again with {variable} among the app's environment variables, or give it a default"
_ESM = 'a package.json with "type": "module" makes every .js file an ES module'


@dataclass(frozen=True, slots=True)
class _Row:
    """A cause that a pattern finds; `{1}` is the pattern's first group, `{memory}` and `{disk}` are the app's limits,
    `{variable}` are those that its source reads and that are not set.
    Nothing is told where the error's own words say it all.
    """

    pattern: re.Pattern[str]
    told: str
    hint: str
    anywhere: bool = False
    """Whether the lines around the error count too, and not only its own words."""
    complete: bool = False


def _row(pattern: str, told: str, hint: str, *, anywhere: bool = False, complete: bool = False) -> _Row:
    return _Row(re.compile(pattern), told, hint, anywhere, complete)


_ROWS = (
    _row(
        r"JavaScript heap out of memory|^MemoryError|[Cc]annot allocate memory|ENOMEM|out of memory",
        "needs more memory than it has ({memory} MB)",
        "have it load less at once, or deploy it with more memory (`resources`)",
    ),
    _row(
        r"No space left on device|ENOSPC|disk quota exceeded",
        "has filled its disk ({disk} MB, in memory)",
        "have it write less, or clear what it does not need",
    ),
    _row(
        r"EADDRINUSE|[Aa]ddress already in use|Port \d+ is (?:already )?in use|Only one usage of each socket",
        "opens a port that it has opened already",
        _LISTEN_ONCE,
        anywhere=True,
    ),
    _row(
        r"listen EACCES: permission denied \S*?:?(\d+)|bind: permission denied",
        "may not open a port below 1024",
        "listen on the port in PORT (8080)",
    ),
    _row(
        r"\butil\w{0,9}\.(is(?:Array|Boolean|Buffer|Date|Error|Function|Null|NullOrUndefined|Number|Object|Primitive|RegExp"
        r"|String|Symbol|Undefined)|_extend|log) is not a function",
        "uses `util.{1}`, which Node.js does not have any more since version 23",
        "write that line without it (`x == null`, `typeof x`, `Array.isArray(x)`), or ask for Node.js 22 in"
        ' package.json: `"engines": {"node": "22"}`',
        complete=True,
    ),
    _row(
        r"(?:Read-only file system|EROFS)[^'\"]*(?:['\"]([^'\"]+)['\"])?|[Rr]ead-only file system",
        "writes where it cannot",
        _WRITABLE,
    ),
    _row(r"(?:PermissionError|EACCES|permission denied).*['\"](/[^'\"]+)['\"]", "may not use {1}", _WRITABLE),
    _row(
        r"Invalid HTTP_HOST header: '([^']+)'|You must set settings\.ALLOWED_HOSTS",
        "",
        "allow it in Django's settings: `ALLOWED_HOSTS = ['*']`, or the host of the app's URL",
    ),
    _row(
        r"TemplateDoesNotExist: (\S+)|TemplateNotFound: (\S+)|Failed to lookup view \"([^\"]+)\"",
        "",
        "send the file in the folder where the framework looks (`templates/`: Flask and Django; `views/`: Express)",
    ),
    _row(
        r"unable to open database file|SQLITE_CANTOPEN",
        "opens a database in a folder that is not there, or where it may not write",
        f"create the folder before (`os.makedirs(…, exist_ok=True)`, `mkdirSync`): {_WRITABLE}",
    ),
    _row(
        r"Missing staticfiles manifest entry",
        "",
        "collect the static files before the server starts: `python manage.py collectstatic --noinput &&"
        " gunicorn …` as the start command, or a storage without a manifest",
    ),
    _row(
        r"unsupported locale setting",
        "",
        "use C.UTF-8, the one that is; `babel` or your own code can format numbers and dates",
    ),
    _row(
        r"secretOrPrivateKey must have a value|secret option required for sessions|supabaseUrl is required",
        "is given a secret that is undefined, most likely from an environment variable that is not set",
        _GIVE,
    ),
    _row(
        r"TypeError: Invalid URL",
        "makes a URL of something that is none: of `undefined`, where an environment variable is not set",
        _GIVE,
    ),
    _row(
        r"(?:require|module|exports|__dirname|__filename) is not defined in ES module scope",
        "mixes `require` and ES modules",
        f"use `import` and `import.meta.dirname`, or name the file .cjs: {_ESM}",
    ),
    _row(
        r"Cannot use import statement outside a module|Unexpected token 'export'",
        "uses `import` in a file that is not an ES module",
        'name the file .mjs, or put "type": "module" into package.json',
    ),
    _row(
        r"ReferenceError: (?:window|document|navigator|localStorage) is not defined",
        "runs in Node.js what is written for a browser",
        "deploy it as a page: index.html that loads the script",
    ),
    _row(
        r"Unexpected token '<'",
        "has JSX or HTML where JavaScript is expected",
        "build it first (`npm run build`) and deploy what that makes: node does not compile JSX",
    ),
    _row(
        r"(\S+\.so[\w.]*): cannot open shared object|cannot load library '([^']+)'|loading shared libraries: (\S+):",
        "needs the system library {1}, which its template does not have",
        "use a package that does without (opencv-python-headless for opencv-python), or leave it out",
    ),
    _row(
        r"version `?GLIBC\w*_[\d.]+' not found",
        "is built against a newer C library than its template has",
        "build it statically (Go: CGO_ENABLED=0; Rust: the musl target), or on Debian 13",
    ),
    _row(
        r"numpy\.dtype size changed|compiled using NumPy 1\.x|numpy\.core\.multiarray failed to import",
        "has a package that was compiled for another NumPy than the one that is there",
        "add `numpy<2` to the app's list of packages, or raise the package that imports it (pandas 2.2.2, scipy 1.13,"
        " scikit-learn 1.5, opencv-python 4.10 and later are made for NumPy 2)",
        anywhere=True,
    ),
    _row(
        r"invalid ELF header|file too short|NODE_MODULE_VERSION|mach-o|wrong architecture|not a valid Win32",
        "brings a compiled module that was built for another machine or another version",
        "build it for Linux on x86-64 and the template's version, or use a package without compiled parts",
    ),
    _row(
        r"Cannot assign requested address|EADDRNOTAVAIL|can't assign requested address",
        "binds an address that its machine does not have",
        "bind 0.0.0.0 or 127.0.0.1",
    ),
    _row(
        r"Operation not permitted|\bEPERM\b|operation not permitted",
        "does what only an administrator may (owners, users, mounts, priorities)",
        "leave it out: an app runs as a user of its own",
    ),
    _row(
        r"ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX|ERR_INVALID_TYPESCRIPT_SYNTAX",
        "uses TypeScript that has to be compiled (enum, namespace, parameter properties)",
        "node only strips types: write it without (`const X = { … } as const`), or deploy the compiled JavaScript",
    ),
    _row(
        r"Error loading ASGI app\. (?:Could not import|Attribute)|Failed to find (?:attribute|Flask application)"
        r"|Failed to parse '|Application object must be callable",
        "is not where the start command says",
        "name the file and the object in it (`main:app` is `app` in main.py)",
    ),
    _row(
        r"go\.mod requires go >= (\S+)",
        "",
        "lower the `go` line of go.mod to the template's version",
    ),
    _row(r"too many open files|EMFILE|ENFILE", "has too many files or connections open", "close what it does not use"),
    _row(
        r"Resource temporarily unavailable|can't start new thread|EAGAIN$|[Cc]annot fork",
        "starts more processes or threads than it may have",
        "start fewer workers: one or two do for an app of one processor",
    ),
    _row(
        r"(?:: error: |^Missing |^Invalid value|No such option|unrecognized arguments|unknown flag)",
        "",
        "mend the start command",
    ),
    _row(
        r"(?:^|[.\w]*)(?:SyntaxError|IndentationError|TabError)|syntax error",
        "",
        "mend that line",
    ),
)
_NO_TABLE = re.compile(
    r"no such table: (\S+)|relation \"([^\"]+)\" does not exist|[Tt]he table `([^`]+)` does not exist"
)
_NOTHING_THERE = re.compile(r"'NoneType' object (?:is not|has no)")
_ASKED = re.compile(r"\.(?:fetchone|first|one_or_none|scalar_one_or_none)\(")
"""What finds nothing in an empty database, where the source has what would fill it."""
_NO_FILE = re.compile(
    r"can't open file '([^']+)'|No such file or directory\)?: '([^']+)'|no such file or directory, \w+ '([^']+)'"
    r"|open (\S+): no such file or directory|File does not exist: (\S+)|pattern (\S+): no matching files found"
    r"|cd: can't cd to (\S+)|cd: (\S+): No such file"
)


def cause(fault: Fault, about: About) -> Cause | None:
    """What is behind an error, where that is known."""
    for known in (
        programs.not_there,
        programs.run_by_the_app,
        python_past.gone,
        modules.missing,
        variables.variable,
        _file,
        services.unreachable,
        _no_table,
        _table,
        variables.of_env,
    ):
        if found := known(fault, about):
            return found
    return None


def _table(fault: Fault, about: About) -> Cause | None:
    for row in _ROWS:
        match = row.pattern.search(fault.text)
        if match is None and row.anywhere:
            match = row.pattern.search("\n".join(fault.context))
        if match is not None:
            groups = next((group for group in match.groups() if group), "")
            told = row.told.replace("{1}", groups[:100] or "that file")
            told = told.replace("{memory}", str(about.memory_mb or "its")).replace(
                "{disk}", str(about.disk_mb or "its")
            )
            told = told.replace(" (its MB)", "").replace("its MB, ", "")
            hint = row.hint.replace("{variable}", variables.listed(about.unset) or "that variable")
            return Cause(told, hint, complete=row.complete)
    return None


def _no_table(fault: Fault, about: About) -> Cause | None:
    told = ""
    if _NO_TABLE.search(fault.text) is None:
        asked = _NOTHING_THERE.search(fault.text) and any(_ASKED.search(line) for line in fault.context)
        if not (about.prepares and asked):
            return None
        told = "does not find something in its database"
    if about.prepares:
        hint = (
            f"a database is empty in each new sandbox, and the source has what makes it: run `{about.prepares}` before"
            f" the server, by the entrypoint `{about.prepares} && {about.start}` or that line in a Procfile"
            f" (`web: …`)"
        )
    else:
        hint = (
            "create it when the app starts (`CREATE TABLE IF NOT EXISTS …`, `db.create_all()`, `python manage.py"
            " migrate` before the server): a database is empty in each new sandbox"
        )
    return Cause(told, hint)


def _file(fault: Fault, about: About) -> Cause | None:
    if (match := _NO_FILE.search(fault.text)) is None:
        return None
    name = next(group for group in match.groups() if group)[:200].rstrip(".,")
    if name.startswith("/data"):
        hint = "create it first: /data is empty in each new sandbox"
    elif name.startswith("/") and not name.startswith("/app/"):
        hint = "use a path relative to the app (it runs in /app), and send the file"
    else:
        hint = "send it, or mend the path: the app runs in /app"
    return Cause(f"looks for {name}, which is not there", hint, complete=True)
