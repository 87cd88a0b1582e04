"""What went wrong with an app, told so that its author knows what to change."""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import Any

import pytest

from vibed.apps.app import Runtime
from vibed.sandboxes.diagnosis import About, diagnose, error_in, packages, slips, why_it_answered_so, why_it_ended
from vibed.sandboxes.diagnosis.fault import Fault
from vibed.sandboxes.driver import Exit, Limits, Run, RunFailed

OUTPUTS = Path(__file__).parent / "last_words"
KINDS = {"py": "python", "node": "node", "go": "go", "sh": "binary"}
TEMPLATES = {"python": "python-313", "node": "node-24", "go": "go-123", "binary": "base-debian"}


def told(
    code: str, *tail: str, kind: str = "python", message: str = "", ended: dict[str, Any] | None = None
) -> RunFailed:
    runtime = Runtime("general", TEMPLATES.get(kind, "x"), kind, "app", "test")
    run = Run("a", 1, 1, Path("/x"), runtime, {}, Limits(disk_mb=64, memory_mb=256), start_timeout_s=20)
    account = {"code": 1, "signal": None, "oom": False, "at": 1.0, "tail": list(tail), **(ended or {})}
    return diagnose(code, message, {"exit": account}, run)


def told_of(name: str) -> RunFailed:
    """What is told of an app that wrote one of the outputs in last_words/."""
    lines = (OUTPUTS / f"{name}.txt").read_text().splitlines()
    return told("StartFailed", *lines[-300:], kind=KINDS[name.partition("-")[0]])


# What is behind an error, of real outputs: the error's code, words of the message, words of the hint

CAUSES = [
    # environment variables
    ("py-environ", "StartFailed", "the app needs the environment variable API_TOKEN (app.py, line 2)", "variables"),
    ("py-gunicorn-import", "StartFailed", "needs the environment variable API_TOKEN (app.py, line 4)", "variables"),
    ("py-gunicorn-preload", "StartFailed", "needs the environment variable API_TOKEN (app.py, line 4)", "variables"),
    ("py-uvicorn-import", "StartFailed", "needs the environment variable API_TOKEN (main.py, line 2)", "variables"),
    ("py-django-secret-env", "StartFailed", "variable DJANGO_SECRET_KEY (settings.py, line 2)", "variables"),
    ("py-pydantic-settings", "StartFailed", "variables DATABASE_URL and API_KEY (app.py, line 5)", "variables"),
    ("py-getenv-none", "StartFailed", "probably needs the environment variable APP_PORT", "default"),
    ("py-get-of-values", "StartFailed", "probably needs the environment variable POSTGRES_PORT", "default"),
    ("py-getenv-concat", "StartFailed", "probably needs the environment variable API_HOST", "default"),
    ("py-sysexit", "StartFailed", "needs the environment variable API_KEY", "variables"),
    ("node-env-len", "StartFailed", "probably needs the environment variable SECRET_KEY", "default"),
    ("node-env-tpl", "StartFailed", "TypeError: Invalid URL (index.js, line 1)", "variable"),
    ("node-esm-throw", "StartFailed", "needs the environment variable API_TOKEN (a.js, line 2)", "variables"),
    ("node-exit-words", "StartFailed", "needs the environment variable DISCORD_TOKEN", "variables"),
    ("py-assert-env", "StartFailed", "needs the environment variable TOKEN (app.py, line 3)", "variables"),
    ("node-env-colon", "StartFailed", "needs the environment variable TOKEN", "variables"),
    ("node-assert", "StartFailed", "needs the environment variable API_KEY", "variables"),
    ("node-zod", "StartFailed", "needs the environment variables DATABASE_URL and API_KEY", "variables"),
    ("node-prisma", "StartFailed", "needs the environment variable DATABASE_URL", "variables"),
    ("node-prisma-config", "StartFailed", "needs the environment variable DATABASE_URL", "variables"),
    ("node-jwt", "StartFailed", "secretOrPrivateKey must have a value (index.js, line 1)", "variable"),
    ("go-fatal-env", "StartFailed", "needs the environment variable API_TOKEN", "variables"),
    ("sh-unset", "StartFailed", "needs the environment variable API_TOKEN (run.sh, line 3)", "variables"),
    ("sh-unset2", "StartFailed", "needs the environment variable API_TOKEN (run.sh, line 2)", "variables"),
    # modules, packages and files
    ("py-missing-pkg", "DependenciesMissing", "needs the Python module 'nltk_missing_thing'", "template has"),
    ("py-gunicorn-uvicorn", "DependenciesMissing", "Python module 'nope_pkg'", "template has"),
    ("py-pg-driver", "DependenciesMissing", "'psycopg'", "use SQLite"),
    ("py-helpers", "StartFailed", "a file is missing from what was sent: there is no helpers.py", "helpers.py"),
    ("py-gunicorn-nomodule", "StartFailed", "there is no wsgi.py", "wsgi.py"),
    ("py-module-main", "StartFailed", "there is no server.py", "server.py"),
    ("node-cjs-module", "DependenciesMissing", "needs the npm package 'left-pad-x'", "bundle"),
    ("node-esm-pkg", "DependenciesMissing", "needs the npm package 'left-pad-x'", "bundle"),
    ("node-better-sqlite", "DependenciesMissing", "'better-sqlite3'", "node:sqlite"),
    ("node-cjs-own", "StartFailed", "imports ./routes/users, which is not in the source (index.js, line 1)", "send"),
    ("node-esm-own", "StartFailed", "imports routes/users.js, which is not in the source (index.js)", "send"),
    ("node-esm-noext", "StartFailed", "imports users, which is not in the source", "write ./users.js"),
    ("node-nofile", "StartFailed", "starts server.js, which is not in the source", "send"),
    ("go-nopkg", "DependenciesMissing", "Go package 'github.com/gin-gonic/gin'", "go mod vendor"),
    ("go-sum", "DependenciesMissing", "Go package 'github.com/gin-gonic/gin'", "go mod vendor"),
    ("py-nofile", "StartFailed", "looks for config/settings.json, which is not there (app.py, line 2)", "/app"),
    ("py-during", "StartFailed", "looks for settings.yaml, which is not there (app.py, line 4)", "/app"),
    ("py-nofile-main", "StartFailed", "looks for /app/server.py", "/app"),
    ("py-streamlit-noent", "StartFailed", "looks for app.py", "/app"),
    ("node-enoent", "StartFailed", "looks for config.json, which is not there (index.js, line 1)", "/app"),
    ("go-tmpl", "StartFailed", "looks for templates/index.html, which is not there (main.go, line 6)", "/app"),
    ("go-embed", "StartFailed", "looks for index.html, which is not there (main.go, line 5)", "/app"),
    # programs
    ("sh-notfound", "StartFailed", "the program poetry is not there", "leave `poetry run` out"),
    ("node-npm-noscript", "StartFailed", "the program npm is not there", "node server.js"),
    ("sh-nofile", "StartFailed", "the program bin/app is not there", "nothing builds it here"),
    ("sh-bash", "StartFailed", "the program python3 is not there (run.sh, line 3)", "choose a template"),
    ("sh-interp", "StartFailed", "the program ruby is not there", "base-debian"),
    ("sh-crlf", "StartFailed", "the program ./run.sh is not there", "carriage return"),
    ("sh-perm2", "StartFailed", "may not run ./a: it is not executable (run.sh, line 2)", "chmod"),
    ("sh-execfmt", "StartFailed", "another kind of machine", "GOARCH=amd64"),
    ("go-nomain", "StartFailed", "its package is not `main`", "func main()"),
    # other machines and servers
    ("node-pg", "StartFailed", "it needs PostgreSQL, and no such server", "SQLite"),
    ("node-pg-local", "StartFailed", "it needs PostgreSQL, and no such server", "SQLite"),
    ("go-dial", "StartFailed", "it needs PostgreSQL, and no such server", "SQLite"),
    ("node-redis-log", "StartFailed", "it needs Redis, and no such server", "in memory"),
    ("py-redis-refused", "StartFailed", "it needs Redis, and no such server", "in memory"),
    ("py-requests-out", "StartFailed", "the app called api.example.com when it started, and apps have no net", "catch"),
    ("py-httpx-out", "StartFailed", "called api.example.com", "catch"),
    ("py-aiohttp-out", "StartFailed", "called api.example.com", "catch"),
    ("py-urllib-out", "StartFailed", "called api.example.com", "catch"),
    ("py-ip-out", "StartFailed", "called another machine", "catch"),
    ("node-fetch", "StartFailed", "called api.example.com", "catch"),
    ("node-axios", "StartFailed", "called api.example.com", "catch"),
    ("go-get", "StartFailed", "called api.example.com", "catch"),
    # the rest of the machine
    ("py-port", "StartFailed", "it opens a port that it has opened already", "listen once"),
    ("py-port-http", "StartFailed", "it opens a port that it has opened already", "listen once"),
    ("node-port", "StartFailed", "EADDRINUSE: address already in use :::8080 (index.js, line 1)", "listen once"),
    ("go-fatal-listen", "StartFailed", "bind: address already in use", "listen once"),
    ("node-oom", "StartFailed", "it needs more memory than it has (256 MB)", "resources"),
    ("py-locale", "StartFailed", "unsupported locale setting (app.py, line 2)", "C.UTF-8"),
    ("node-enoent-data", "StartFailed", "looks for /data/x", "/data is empty"),
    ("py-uvicorn-port", "StartFailed", "it opens a port that it has opened already", "listen once"),
    ("py-assign", "StartFailed", "it binds an address that its machine does not have", "0.0.0.0"),
    ("node-addr", "StartFailed", "it binds an address that its machine does not have", "0.0.0.0"),
    ("py-subprocess", "StartFailed", "runs the program ffmpeg, which the template python-313 does not have", "static"),
    ("node-spawn", "StartFailed", "runs the program ffmpeg, which the template node-24 does not have", "static"),
    ("go-exec", "StartFailed", "runs the program ffmpeg, which the template go-123 does not have", "static"),
    ("py-lib", "StartFailed", "needs the system library libGL.so.1", "headless"),
    ("sh-glibc", "StartFailed", "a newer C library", "CGO_ENABLED=0"),
    ("node-elf", "StartFailed", "built for another machine", "x86-64"),
    ("sh-cd", "StartFailed", "looks for server, which is not there", "mend the path"),
    # frameworks and languages
    ("py-lxml", "DependenciesMissing", "'lxml'", "template has"),
    ("py-pandas-optional", "DependenciesMissing", "'tables'", "template has"),
    ("py-logged-then-exit", "StartFailed", "looks for conf/app.yml, which is not there (app.py, line 4)", "/app"),
    ("node-window", "StartFailed", "what is written for a browser", "as a page"),
    ("node-dirname", "StartFailed", "(index.js, line 2)", "import.meta.dirname"),
    ("node-jsx", "StartFailed", "it has JSX or HTML", "npm run build"),
    ("py-sqlite-table", "StartFailed", "no such table: users (app.py, line 2)", "CREATE TABLE"),
    ("py-django-table", "StartFailed", "no such table: auth_user (urls.py, line 3)", "migrate"),
    ("py-django-secret", "StartFailed", "You must set settings.ALLOWED_HOSTS", "ALLOWED_HOSTS = ['*']"),
    ("py-flask-500", "StartFailed", "TemplateNotFound: index.html (app.py, line 4)", "templates/"),
    ("py-uvicorn-attr", "StartFailed", 'Attribute "app" not found in module "main"', "main:app"),
    ("py-gunicorn-noattr", "StartFailed", "Failed to find attribute 'app' in 'app'", "main:app"),
    ("py-argparse", "StartFailed", "the following arguments are required: --config", "start command"),
    ("py-click", "StartFailed", "Missing option '--config'", "start command"),
    ("py-syntax", "StartFailed", "SyntaxError: invalid syntax (app.py, line 1)", "that line"),
    ("py-nested-syntax", "StartFailed", "'(' was never closed (views.py, line 1)", "that line"),
    ("node-require-in-esm", "StartFailed", "it mixes `require` and ES modules", ".cjs"),
    ("node-import-in-cjs", "StartFailed", "not an ES module", '"type": "module"'),
    ("node-ts", "StartFailed", "TypeScript that has to be compiled", "strips types"),
    ("go-version", "StartFailed", "go.mod requires go >= 1.26", "`go` line"),
    ("go-errors", "StartFailed", "declared and not used: a; and 9 more (main.go, line 6)", "deploy again"),
    ("go-panic", "StartFailed", "panic: assignment to entry in nil map (main.go, line 6)", "deploy again"),
    ("node-throw", "StartFailed", "exited with status 1: Error: bad port (index.js, line 3)", "deploy again"),
    ("node-exit-silent", "StartFailed", "wrote nothing that says why", "deploy again"),
]


@pytest.mark.parametrize(("name", "code", "message", "hint"), CAUSES, ids=[row[0] for row in CAUSES])
def test_the_cause_is_told_with_what_to_change(name: str, code: str, message: str, hint: str) -> None:
    error = told_of(name)
    assert error.error_code == code
    assert message in error.message
    assert hint in (error.hint or "")
    assert not error.may_retry


# The same of lines that are not in last_words/


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("decouple.UndefinedValueError: SECRET_KEY not found. Declare it as envvar or define a default.", "SECRET_KEY"),
        ('environs.exceptions.EnvError: Environment variable "SMTP_HOST" not set', "SMTP_HOST"),
        ("django.core.exceptions.ImproperlyConfigured: Set the DB_URL environment variable", "DB_URL"),
        ("django.core.exceptions.ImproperlyConfigured: The SECRET_KEY setting must not be empty.", "SECRET_KEY"),
        ("ValueError: Missing required environment variables: DATABASE_URL, REDIS_URL", "DATABASE_URL and REDIS_URL"),
        ("openai.OpenAIError: The OPENAI_API_KEY environment variable is missing or empty", "OPENAI_API_KEY"),
        ("RuntimeError: STRIPE_KEY must be set", "STRIPE_KEY"),
        ("ERROR: Please set the environment variable SMTP", "SMTP"),
        ("2026/11/29 10:00:00 env PORTAL not set", "PORTAL"),
    ],
)
def test_a_variable_that_is_missing_is_named_however_it_is_said(line: str, name: str) -> None:
    assert f"needs the environment variable{'s' if ' and ' in name else ''} {name}" in told("StartFailed", line).message


@pytest.mark.parametrize(
    "line",
    [
        "KeyError: 'NAME'",
        "Error [ERR_MODULE_NOT_FOUND]: something is not found",
        "ssl.SSLError: CERTIFICATE_VERIFY_FAILED is missing",
        "ValueError: a name is missing",
        "ValueError: JSON is required",
    ],
)
def test_what_is_no_variable_is_not_told_to_be_one(line: str) -> None:
    assert "environment variable" not in told("StartFailed", "Traceback (most recent call last):", "  x", line).message


@pytest.mark.parametrize(
    ("line", "service"),
    [
        (
            'psycopg2.OperationalError: could not translate host name "db" to address: Name or service not known',
            "a data",
        ),
        ('connection to server at "localhost" (127.0.0.1), port 5432 failed: Connection refused', "PostgreSQL"),
        ("pymysql.err.OperationalError: (2003, \"Can't connect to MySQL server on 'localhost'\")", "MySQL"),
        ("pymongo.errors.ServerSelectionTimeoutError: localhost:27017: [Errno 111] Connection refused", "MongoDB"),
        (
            "redis.exceptions.ConnectionError: Error -3 connecting to redis:6379. Name or service not known.",
            "Redis",
        ),
        ("Error: getaddrinfo EAI_AGAIN mongo", "MongoDB"),
        (
            "MongoError: failed to connect to server [undefined:27017] on first connect [Error: getaddrinfo EAI_AGAIN"
            " undefined",
            "MongoDB",
        ),
    ],
)
def test_a_server_that_an_app_expects_beside_it_is_named(line: str, service: str) -> None:
    assert f"it needs {service}" in told("StartFailed", line).message


CAUGHT = """MongooseError: The `uri` parameter to `openUri()` must be a string, got "undefined". Make sure.
    at _createMongoClient (/layers/node/node_modules/mongoose/lib/connection.js:768:11)
    at Mongoose.connect (/layers/node/node_modules/mongoose/lib/index.js:406:15)
    at dbConnection (/app/database/config.js:7:24)
    at new Server (/app/models/server.js:25:14)
/app/database/config.js:12
        throw new Error('Database Error on initialization')
              ^

Error: Database Error on initialization
    at dbConnection (/app/database/config.js:12:15)
    at process.processTicksAndRejections (node:internal/process/task_queues:104:5)

Node.js v24.19.0"""


def test_an_error_that_was_printed_before_another_was_raised_for_it_is_told_with_it() -> None:
    error = told("StartFailed", *CAUGHT.splitlines(), kind="node")
    assert "Database Error on initialization, after MongooseError: The `uri` parameter" in error.message


def test_of_two_errors_of_python_in_a_row_the_second_is_told_after_the_first() -> None:
    lines = ["Traceback (most recent call last):", '  File "/app/db.py", line 3, in <module>', "    open('x.toml')"]
    lines += ["FileNotFoundError: [Errno 2] No such file or directory: 'x.toml'", "Traceback (most recent call last):"]
    lines += ['  File "/app/db.py", line 6, in <module>', "    raise RuntimeError('no settings') from None"]
    assert "looks for x.toml" in told("StartFailed", *lines, "RuntimeError: no settings").message
    # the second is still being written
    assert error_in(lines) == "FileNotFoundError: [Errno 2] No such file or directory: 'x.toml' (db.py, line 3)"


def test_an_error_that_was_printed_long_before_is_not_taken_for_the_cause() -> None:
    lines = CAUGHT.splitlines()
    error = told("StartFailed", *lines[:5], "serving without a cache", *lines[5:], kind="node")
    assert "Mongoose" not in error.message


def test_a_file_that_a_framework_looks_for_is_named() -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "/app/app.py", line 7, in <module>',
        '    application.config.from_pyfile("config.py")',
        "FileNotFoundError: [Errno 2] Unable to load configuration file (No such file or directory):"
        " '/app/instance/config.py'",
    ]
    assert (
        "looks for /app/instance/config.py, which is not there (app.py, line 7)" in told("StartFailed", *lines).message
    )


def test_a_folder_of_the_apps_own_that_lacks_a_module_is_no_dependency() -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "/app/shop/__init__.py", line 1, in <module>',
        "    from shop.basket import Basket",
        "ModuleNotFoundError: No module named 'shop.basket'",
    ]
    error = told("StartFailed", *lines)
    assert error.error_code == "StartFailed"
    assert "there is no shop/basket.py" in error.message


@pytest.mark.parametrize(
    ("version", "below"), [("3.1.6", "3.1"), ("3.0.2", "3"), ("0.28.1", "0.28"), ("2026.7", "2026.7"), ("5", "5")]
)
def test_an_older_package_is_asked_for_from_before_its_series(version: str, below: str) -> None:
    fault = Fault(
        0, 1, "ImportError: cannot import name 'x' from 'jinja2' (/lib/dist-packages/jinja2/__init__.py)", None
    )
    cause = packages.lacks(fault, About("python", installed={"jinja2": version}))
    assert cause is not None
    assert f"(`jinja2<{below}`)" in cause.hint


def test_an_error_in_a_log_of_its_server_is_told_with_the_variable_that_its_example_names() -> None:
    lines = [
        "[nuxt] [request error] [unhandled] [500] supabaseUrl is required.",
        "  at new SupabaseClient (./.output/server/chunks/app/server.mjs:7363:13)",
        "  at createClient (./.output/server/chunks/app/server.mjs:7468:10)",
    ]
    said = why_it_answered_so(lines, About("node", unset=("SUPABASE_URL", "SUPABASE_KEY")))
    assert "supabaseUrl is required" in said
    assert "SUPABASE_URL and SUPABASE_KEY" in said


@pytest.mark.parametrize(("module", "service"), [("Mongoose", "MongoDB"), ("TypeOrm", "a database server")])
def test_an_app_that_waits_for_its_database_for_ever_is_told_of_it(module: str, service: str) -> None:
    lines = [
        "[Nest] 9  - LOG [NestFactory] Starting Nest application...",
        f"[Nest] 9  - ERROR [{module}Module] Unable to connect to the database. Retrying (1)...",
    ]
    error = told("StartTimeout", *lines, kind="node", ended={"code": None, "signal": "SIGKILL"})
    assert f"needs {service}, and no such server runs beside an app" in error.message


def test_what_node_has_dropped_is_told_with_what_does_it_and_which_version_has_it() -> None:
    lines = [
        "/app/dist/todos.service.js:41",
        "        if ((0, util_1.isNullOrUndefined)(todo)) {",
        "                     ^",
        "",
        "TypeError: util_1.isNullOrUndefined is not a function",
        "    at TodosService.get (/app/dist/todos.service.js:41:22)",
        "",
        "Node.js v24.19.0",
    ]
    error = told("StartFailed", *lines, kind="node")
    assert "uses `util.isNullOrUndefined`, which Node.js does not have any more since version 23" in error.message
    assert '"node": "22"' in str(error.hint)


def test_a_socket_of_postgresql_that_is_not_there_is_a_server_that_is_not() -> None:
    line = "Could not ping database: failed to connect to `user=app database=`: /tmp/.s.PGSQL.5432 (/tmp): dial error:"
    error = told("StartFailed", f"{line} dial unix /tmp/.s.PGSQL.5432: connect: no such file or directory", kind="go")
    assert "needs PostgreSQL, and no such server runs beside an app" in error.message


def test_a_secret_that_a_framework_misses_is_told_by_its_name() -> None:
    lines = [
        "Error [MissingSecretError]: Please define a `secret` in production.",
        "    at r.assertConfig (.next/server/chunks/_5503bf45._.js:34:11891) {",
        "  code: 'NO_SECRET'",
        "}",
    ]
    assert "NEXTAUTH_SECRET" in str(why_it_answered_so(lines, About("node")))


def test_a_module_that_a_package_lacks_is_a_dependency_whatever_its_name() -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "/app/app.py", line 1, in <module>',
        '  File "/usr/local/lib/python3.13/dist-packages/x/y.py", line 1, in <module>',
        "ModuleNotFoundError: No module named 'utils'",
    ]
    assert told("StartFailed", *lines).error_code == "DependenciesMissing"


def test_a_module_of_pythons_past_is_told_to_be_gone() -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "/app/a.py", line 1',
        "ModuleNotFoundError: No module named 'imp'",
    ]
    assert "which Python 3.13 does not have any more" in told("StartFailed", *lines).message


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        ({"code": None, "signal": "SIGSEGV"}, "ended by SIGSEGV (code of a native library crashed)"),
        ({"code": 139}, "exited with status 139 (code of a native library crashed)"),
        ({"code": None, "signal": "SIGSYS"}, "a system call that a sandbox does not allow"),
        ({"code": None, "signal": "SIGKILL", "oom": True}, "used more memory than its limit (256 MB)"),
        ({"code": 127}, "a program of the start command is not there"),
        ({"code": 1}, "exited with status 1, and wrote nothing that says why"),
    ],
)
def test_an_app_that_wrote_nothing_is_explained_by_how_it_ended(ended: dict[str, Any], words: str) -> None:
    error = told("StartFailed", ended=ended)
    assert words in error.message
    assert error.hint


def test_one_that_wrote_nothing_is_told_which_variables_its_source_reads() -> None:
    runtime = Runtime("general", "node-24", "node", "server.js", "test", reads=("API_KEY", "GIVEN", "DB_URL"))
    run = Run("a", 1, 1, Path("/x"), runtime, {"GIVEN": "1"}, Limits())
    silent = diagnose("StartFailed", "", {"exit": {"code": 1, "at": 1.0, "tail": []}}, run)
    assert "reads the environment variables API_KEY and DB_URL, which are not set" in (silent.hint or "")
    tail = ["TypeError: Invalid URL", "    at new URL (node:internal/url:827:25)", "    at /app/server.js:1:1"]
    of_url = diagnose("StartFailed", "", {"exit": {"code": 1, "at": 1.0, "tail": tail}}, run)
    assert "deploy again with API_KEY and DB_URL among" in (of_url.hint or "")


def test_an_error_that_is_printed_again_by_who_caught_it_keeps_its_place() -> None:
    trace = ["Traceback (most recent call last):", '  File "/app/app.py", line 2, in <module>', "    f()"]
    twice = [*trace, "OSError: [Errno 28] No space left on device", "[Errno 28] No space left on device"]
    assert "OSError: [Errno 28] No space left on device (app.py, line 2);" in told("StartFailed", *twice).message
    syntax = ['  File "/app/app.py", line 1', "    def f(:", "          ^", "SyntaxError: invalid syntax"]
    again = told("StartFailed", *syntax, "invalid syntax (app.py, line 1)")
    assert "SyntaxError: invalid syntax (app.py, line 1)" in again.message
    assert again.hint == "mend that line"


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("sqllite3", "python", "sqlite3"),
        ("flaks", "python", "flask"),
        ("reqeusts.auth", "python", "requests"),
        ("expresss", "node", "express"),
        ("psycopg", "python", ""),
        ("acme", "python", ""),
        ("left-pad", "node", ""),
        ("gin", "go", ""),
    ],
)
def test_a_slip_in_a_name_is_seen(name: str, kind: str, found: str) -> None:
    assert slips.meant(name, kind) == found


def test_what_the_agent_could_not_start_is_named() -> None:
    error = told(
        "StartFailed", message="the app could not be started: run uv: no such file or directory", ended={"code": 127}
    )
    assert error.message == "the app cannot be started: the program uv is not there"


def test_an_app_that_does_not_listen_is_told_how_to() -> None:
    error = told("StartTimeout")
    assert "20 s" in error.message
    assert "PORT" in (error.hint or "")


def test_an_app_that_does_not_listen_since_it_waits_for_another_machine_is_told_so() -> None:
    error = told("StartTimeout", "Error: connect ECONNREFUSED 127.0.0.1:5432", "retrying in 5 s", kind="node")
    assert "did not listen on a port within 20 s" in error.message
    assert "PostgreSQL" in error.message


def test_an_app_that_ends_at_once_without_an_error_is_told_what_a_web_app_does() -> None:
    error = told("StartFailed", ended={"code": 0})
    assert error.message == "the app ended at once, without an error and without listening"
    assert "listen" in (error.hint or "")


def test_a_build_that_failed_tells_the_first_error() -> None:
    lines = (OUTPUTS / "go-errors.txt").read_text().splitlines()
    error = told("BuildFailed", *lines, kind="go", message='build step "go" ended with exit code 1')
    assert error.error_code == "BuildFailed"
    assert error.message.endswith("declared and not used: a; and 9 more (main.go, line 6)")


@pytest.mark.parametrize("code", ["InjectFailed", "BundleFailed"])
def test_what_is_not_of_the_app_is_told_as_it_came(code: str) -> None:
    error = told(code, message="the source is damaged")
    assert (error.error_code, error.message) == (code, "the source is damaged")


def test_a_worker_that_is_refused_is_told_by_its_own_error() -> None:
    error = told("WorkerRejected", kind="worker", message="Uncaught TypeError: x is not a function")
    assert error.message == "the worker does not start: Uncaught TypeError: x is not a function"


def test_why_an_app_ended_later_is_told_the_same_way() -> None:
    tail = tuple((OUTPUTS / "py-gunicorn-import.txt").read_text().splitlines())
    said, hint = why_it_ended(Exit(3, None, False, 1.0, tail), About("python"))
    assert said == "it exited with status 3: it needs the environment variable API_TOKEN (app.py, line 4)"
    assert "among the app's environment variables" in hint


def test_of_an_app_that_ended_later_nothing_is_advised_that_is_not_known() -> None:
    said, hint = why_it_ended(
        Exit(1, None, False, 1.0, ("Traceback (most recent call last):", "ValueError: x")), About()
    )
    assert (said, hint) == ("it exited with status 1: ValueError: x", "")


# Whatever an app writes


def test_nothing_that_an_app_writes_breaks_it_or_makes_it_long() -> None:
    chance = random.Random(9)
    lines = [line for path in sorted(OUTPUTS.glob("*-*.txt")) for line in path.read_text().splitlines()]
    odd = ["", "\x00", "Traceback (most recent call last):", "panic: ", "{", "[cause]: ", "    at ", "Node.js v24", "^"]
    for _ in range(400):
        some = [chance.choice(lines) for _ in range(chance.randrange(40))]
        some += [chance.choice(odd) for _ in range(chance.randrange(6))]
        some += ["".join(chance.choices(string.printable + "\x1b│╭é", k=chance.randrange(400)))]
        chance.shuffle(some)
        kind = chance.choice(list(TEMPLATES))
        code = chance.choice(["StartFailed", "StartTimeout", "BuildFailed"])
        error = told(code, *some, kind=kind, message="exit code 1")
        assert len(error.message) < 1200
        assert "\n" not in error.message
        assert error.hint
        assert len(error_in(some) or "") < 600


@pytest.mark.parametrize(
    "line", ["a" * 100_000, " " * 100_000, "at " * 30_000, "[" * 50_000, "Error: " * 15_000, "| +-" * 20_000]
)
def test_a_long_line_takes_no_time(line: str) -> None:
    error_in([line, "    at x (/app/a.js:1:1)", line, "Traceback (most recent call last):", line])


def test_the_error_is_a_workers_although_its_master_ends_with_one_of_its_own() -> None:
    worker = [
        "[2026-11-30 01:04:46 +0000] [13] [ERROR] Exception in worker process",
        "Traceback (most recent call last):",
        '  File "/usr/local/lib/python3.13/dist-packages/gunicorn/arbiter.py", line 752, in spawn_worker',
        "    worker.init_process()",
        '  File "/app/app.py", line 6, in <module>',
        "    TOKEN = os.environ['API_TOKEN']",
        '  File "<frozen os>", line 717, in __getitem__',
        "KeyError: 'API_TOKEN'",
        "[2026-11-30 01:04:46 +0000] [13] [INFO] Worker exiting (pid: 13)",
    ]
    # its second worker was being started when the first had ended
    master = [
        "[2026-11-30 01:04:46 +0000] [9] [ERROR] Worker (pid:13) exited with code 3",
        "Traceback (most recent call last):",
        '  File "/usr/local/bin/gunicorn", line 8, in <module>',
        "    sys.exit(run())",
        '  File "/usr/local/lib/python3.13/dist-packages/gunicorn/arbiter.py", line 704, in reap_workers',
        "    raise HaltServer(reason, self.WORKER_BOOT_ERROR)",
        "gunicorn.errors.HaltServer: <HaltServer 'Worker failed to boot.' 3>",
    ]
    assert "needs the environment variable API_TOKEN" in told("StartFailed", *worker, *master).message


def test_prismas_engines_say_in_words_of_their_own_that_a_server_or_a_table_is_not_there() -> None:
    begin = ("PrismaClientInitializationError: ", "Invalid `prisma.note.count()` invocation:", "")
    for address, service in {"localhost:5432": "PostgreSQL", "db.example.com:6543": "a database server"}.items():
        words = told("StartFailed", *begin, f"Can't reach database server at `{address}`", kind="node").message
        assert f"needs {service}, and no such server runs beside an app" in words
    table = ("PrismaClientKnownRequestError: ", *begin[1:], "The table `main.Note` does not exist in the database.")
    table = (*table, "    at handleRequestError (/app/node_modules/@prisma/client/runtime/library.js:121:7268)")
    assert "a database is empty in each new sandbox" in (told("StartFailed", *table, kind="node").hint or "")
