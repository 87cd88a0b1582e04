# ruff: noqa: E501 (sources of apps)
"""Apps that do not run, what has to be said of each, and the same app with no more changed than what was said.

A pair is one failure that people and assistants really make. `change` is what somebody who has read the message alone
would do; a path with None is removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.samples import Files

Change = Mapping[str, str | None]


@dataclass(frozen=True)
class Pair:
    """A failure and its cure."""

    name: str
    broken: Files
    says: tuple[str, ...]
    """Words of the message (or of a refusal and its hint): what is wrong, and what to change."""
    change: Change = field(default_factory=dict)
    cure: Mapping[str, Any] = field(default_factory=dict)
    """Metadata of the second deploy: variables, resources."""
    reason: str = "StartFailed"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Of the first."""
    often: bool = True
    """Whether it is tried in every run, and not by `make test-all` alone."""

    @property
    def cured(self) -> Files:
        """The app after the change."""
        files = {**self.broken, **self.change}
        return {path: content for path, content in files.items() if content is not None}


def env(**variables: str) -> dict[str, Any]:
    """Metadata with variables."""
    return {"env": [{"name": name, "value": value} for name, value in variables.items()]}


def flask(*before: str, body: str = "return 'ok'") -> str:
    """A Flask app whose module begins with some lines."""
    return "\n".join((*before, f"""from flask import Flask, render_template
app = Flask(__name__)

@app.get("/")
def index():
    {body}
"""))  # fmt: skip


def server(*before: str, port: str = "process.env.PORT", host: str = "") -> str:
    """A Node server after some lines."""
    listen = f"{port}, '{host}'" if host else port
    return "\n".join((*before, f"require('node:http').createServer((req, res) => res.end('ok')).listen({listen})\n"))


def module(*before: str) -> str:
    """The same as an ES module."""
    return "\n".join(
        (*before, "import http from 'node:http'", "http.createServer((q, r) => r.end('ok')).listen(process.env.PORT)\n")
    )


def go(*before: str, imports: str = "") -> str:
    """A Go server after some lines of main."""
    lines = "\n\t".join(before)
    return f"""package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
{imports})

func main() {{
	{lines}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {{ fmt.Fprint(w, "ok") }})
	log.Fatal(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}}
"""


GO_MOD = "module example.com/app\n\ngo 1.23\n"
_SETTINGS = """import os
SECRET_KEY = {secret}
DEBUG = False
ALLOWED_HOSTS = {hosts}
ROOT_URLCONF = "urls"
"""
_URLS = """from django.http import HttpResponse
from django.urls import path
urlpatterns = [path("", lambda request: HttpResponse("ok"))]
"""
_MANAGE = """import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
_WSGI = """import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""


def django(secret: str = "'x'", hosts: str = "['*']") -> Files:
    """A Django project of one page."""
    settings = _SETTINGS.replace("{secret}", secret).replace("{hosts}", hosts)
    return {
        "manage.py": _MANAGE,
        "settings.py": settings + "WSGI_APPLICATION = 'wsgi.application'\n",
        "urls.py": _URLS,
        "wsgi.py": _WSGI,
        "requirements.txt": "django\n",
    }


def package(**fields: Any) -> str:
    """A package.json."""
    import json

    return json.dumps({"name": "a", "version": "1.0.0", **fields})


_BUILT: Files = {
    "package.json": package(scripts={"build": "tsc && cp index.html dist/"}, devDependencies={"typescript": "5.9.3"}),
    "tsconfig.json": '{"compilerOptions": {"outDir": "dist", "rootDir": "src", "target": "es2022", "types": [], "strict": true}}',
    "index.html": "<!doctype html><title>ok</title><script type=module src=main.js></script>",
    "src/main.ts": "const title: string = 'ok'\ndocument.title = title.length\n",
}

PAIRS: tuple[Pair, ...] = (
    # variables
    Pair(
        "python-variable",
        {"app.py": flask("import os", "KEY = os.environ['WEATHER_KEY']")},
        ("needs the environment variable WEATHER_KEY (app.py, line 2)", "environment variables"),
        cure=env(WEATHER_KEY="x"),
    ),
    Pair(
        "node-variable",
        {"server.js": server("const secret = process.env.SESSION_SECRET.trim()")},
        ("needs the environment variable SESSION_SECRET", "server.js, line 1", "environment variables"),
        cure=env(SESSION_SECRET="x"),
    ),
    Pair(
        "go-variable",
        {
            "go.mod": GO_MOD,
            "main.go": go('if os.Getenv("API_TOKEN") == "" {', '\tlog.Fatal("API_TOKEN is not set")', "}"),
        },
        ("needs the environment variable API_TOKEN", "environment variables"),
        cure=env(API_TOKEN="x"),
    ),
    Pair(
        "silent-variable",
        {"server.js": server("if (!process.env.APP_KEY) process.exit(1)")},
        ("exited with status 1", "APP_KEY"),
        cure=env(APP_KEY="x"),
    ),
    # modules
    Pair(
        "python-module",
        {
            "app.py": flask("import importlib", "humanize = importlib.import_module('human' + 'ize')"),
            "requirements.txt": "flask\n",
        },
        ("needs the Python module 'humanize'", "requirements.txt"),
        {"requirements.txt": "flask\nhumanize\n"},
        reason="DependenciesMissing",
    ),
    Pair(
        "python-own-module",
        {"app.py": flask("from helpers import greet"), "requirements.txt": "flask\n"},
        ("there is no helpers.py", "send helpers.py"),
        {"helpers.py": "def greet():\n    return 'hi'\n"},
    ),
    Pair(
        "python-module-typo",
        {"app.py": flask("import sqllite3"), "requirements.txt": "flask\n"},
        ("needs the Python module 'sqllite3'", "correct the name, if sqlite3 was meant"),
        {"app.py": flask("import sqlite3")},
        reason="DependenciesMissing",
    ),
    Pair(
        "package-typo",
        {"app.py": flask("import no_such_package_for_tests"), "requirements.txt": "flask\nno-such-package-for-tests\n"},
        ("there is no package no-such-package-for-tests in the package registry", "correct the name", "or remove it"),
        {"app.py": flask(), "requirements.txt": "flask\n"},
        reason="DependencyBuildFailed",
    ),
    Pair(
        "node-module",
        {"server.js": server("require('left' + '-pad')"), "package.json": package()},
        ("needs the npm package 'left-pad'", "package.json"),
        {"package.json": package(dependencies={"left-pad": "^1.3.0"})},
        reason="DependenciesMissing",
        often=False,
    ),
    Pair(
        "node-own-module",
        {"server.js": server("require('./routes/users')")},
        ("imports ./routes/users, which is not in the source (server.js, line 1)", "send the file"),
        {"routes/users.js": ""},
        often=False,
    ),
    Pair(
        "node-extension",
        {"server.mjs": module("import './users'"), "users.js": ""},
        ("imports users, which is not in the source", "write ./users.js"),
        {"server.mjs": module("import './users.js'")},
    ),
    # where it listens
    Pair(
        "node-host",
        {"server.js": server(host="192.168.1.10")},
        ("binds an address that its machine does not have", "0.0.0.0"),
        {"server.js": server(host="0.0.0.0")},
    ),
    Pair(
        "python-port-twice",
        {
            "app.py": "import os\nfrom http.server import HTTPServer, SimpleHTTPRequestHandler\nfirst = HTTPServer(('', int(os.environ['PORT'])), SimpleHTTPRequestHandler)\nHTTPServer.allow_reuse_address = HTTPServer.allow_reuse_port = False\nHTTPServer(('', int(os.environ['PORT'])), SimpleHTTPRequestHandler).serve_forever()\n"
        },
        ("opens a port that it has opened already", "app.py, line 5", "listen once"),
        {
            "app.py": "import os\nfrom http.server import HTTPServer, SimpleHTTPRequestHandler\nHTTPServer(('', int(os.environ['PORT'])), SimpleHTTPRequestHandler).serve_forever()\n"
        },
    ),
    Pair(
        "express-port-twice-status-0",
        {
            "server.js": "const app = require('express')()\napp.get('/', (q, r) => r.send('ok'))\nconst first = require('node:net').createServer().listen(process.env.PORT, () => app.listen(process.env.PORT, () => first.close()))\n",
            "package.json": package(dependencies={"express": "^5"}),
        },
        ("listen",),
        {
            "server.js": "const app = require('express')()\napp.get('/', (q, r) => r.send('ok'))\napp.listen(process.env.PORT)\n"
        },
    ),
    Pair(
        "listens-on-a-unix-socket",
        {
            "app.py": "import socketserver\nsocketserver.UnixStreamServer('/tmp/app.sock', socketserver.StreamRequestHandler).serve_forever()\n",
            "Procfile": "web: python app.py\n",
        },
        ("did not listen on a port", "PORT"),
        {"app.py": flask() + "app.run(port=8080)\n"},
        reason="StartTimeout",
        often=False,
    ),
    Pair(
        "ends-at-once",
        {"app.py": "print('report written')\n", "Procfile": "web: python app.py\n"},
        (
            "ended at once, without an error and without listening; its last words: report written",
            "keep running and listen on the port in PORT",
        ),
        {"app.py": flask() + "app.run(port=8080)\n"},
    ),
    # programs
    Pair(
        "no-such-program",
        {"app.py": flask(), "start.sh": "exec gunicornn app:app\n"},
        ("the program gunicornn is not there", "mend the start command", "(start.sh, line 1)"),
        {"start.sh": "exec gunicorn app:app\n"},
        metadata={"runtime": {"entrypoint": "sh start.sh"}},
    ),
    Pair(
        "runs-a-program",
        {"app.py": flask("import subprocess", "subprocess.run(['ffmpeg', '-version'], check=True)")},
        ("runs the program ffmpeg, which the template python-313 does not have", "do without it"),
        {"app.py": flask()},
        often=False,
    ),
    Pair(
        "not-executable",
        {"app.py": flask(), "start.sh": "./run.sh\n", "run.sh": "exec gunicorn app:app\n"},
        ("may not run ./run.sh: it is not executable (start.sh, line 1)", "`sh ./run.sh`"),
        {"start.sh": "sh ./run.sh\n"},
        metadata={"runtime": {"entrypoint": "sh start.sh"}},
    ),
    Pair(
        "wrong-object",
        {"app.py": flask()},
        ("Failed to find attribute 'application' in 'app'", "`main:app` is `app` in main.py"),
        cure={"runtime": {"entrypoint": "gunicorn app:app"}},
        metadata={"runtime": {"entrypoint": "gunicorn app:application"}},
    ),
    # servers beside it, and the network
    Pair(
        "python-redis",
        {"app.py": flask("import redis", "redis.Redis(host='localhost').ping()"), "requirements.txt": "flask\nredis\n"},
        ("needs Redis, and no such server runs beside an app", "keep what it held in memory or in SQLite"),
        {"app.py": flask("held = {}")},
        often=False,
    ),
    Pair(
        "node-postgres",
        {
            "server.js": server(
                "const { Client } = require('pg')",
                "const db = new Client({ host: 'localhost' })",
                "db.connect().catch((error) => { console.error(error); process.exit(1) })",
            ),
            "package.json": package(dependencies={"pg": "^8"}),
        },
        ("needs PostgreSQL", "use SQLite"),
        {
            "server.js": server(
                "const { DatabaseSync } = require('node:sqlite')", "const db = new DatabaseSync('app.db')"
            )
        },
        often=False,
    ),
    Pair(
        "go-mysql",
        {
            "go.mod": GO_MOD,
            "main.go": go(
                'if _, err := net.Dial("tcp", "localhost:3306"); err != nil {',
                '\tlog.Fatal("cannot open the database: ", err)',
                "}",
                imports='\t"net"\n',
            ),
        },
        ("needs MySQL", "use SQLite"),
        {"main.go": go()},
    ),
    Pair(
        "network",
        {"app.py": flask("import requests", "RATES = requests.get('https://api.example.com/rates', timeout=5).json()")},
        ("called api.example.com when it started, and apps have no network here (app.py, line 2)", "catch the error"),
        {
            "app.py": flask(
                "import requests",
                "try:",
                "    RATES = requests.get('https://api.example.com/rates', timeout=5).json()",
                "except requests.RequestException:",
                "    RATES = {}",
            )
        },
    ),
    Pair(
        "node-network",
        {"server.mjs": module("const rates = await (await fetch('https://api.example.com/rates')).json()")},
        ("called api.example.com when it started, and apps have no network here", "catch the error"),
        {
            "server.mjs": module(
                "const rates = await fetch('https://api.example.com/rates').then((r) => r.json()).catch(() => ({}))"
            )
        },
        often=False,
    ),
    # limits
    Pair(
        "memory",
        {"app.py": flask("TABLE = bytearray(b'x') * (850 << 20)")},
        ("used more memory than its limit (256 MB) and was killed", "`resources`"),
        cure={"resources": {"memory": "512Mi"}},
        metadata={"resources": {"memory": "256Mi"}},
    ),
    Pair(
        "node-memory",
        {"server.js": server("const all = []; for (let n = 0; n < 900; n++) all.push(Buffer.alloc(1 << 20, 1))")},
        ("used more memory than its limit (256 MB) and was killed", "load less at once"),
        {"server.js": server("const all = []; for (let n = 0; n < 9; n++) all.push(Buffer.alloc(1 << 20, 1))")},
        metadata={"resources": {"memory": "256Mi"}},
        often=False,
    ),
    Pair(
        "disk",
        {
            "app.py": flask(
                "with open('cache.bin', 'wb') as file:",
                "    for _ in range(700):",
                "        file.write(bytes(1 << 20))",
            )
        },
        ("has filled its disk (512 MB, in memory)", "write less"),
        {
            "app.py": flask(
                "with open('cache.bin', 'wb') as file:", "    for _ in range(7):", "        file.write(bytes(1 << 20))"
            )
        },
    ),
    # files
    Pair(
        "missing-file",
        {"app.py": flask("import json", "CONFIG = json.load(open('config/settings.json'))")},
        ("looks for config/settings.json, which is not there (app.py, line 2)", "send it"),
        {"config/settings.json": "{}"},
    ),
    Pair(
        "read-only-path",
        {"app.py": flask("import os", "os.makedirs('/etc/myapp')")},
        ("/etc/myapp", "apps may write in /app"),
        {"app.py": flask("import os", "os.makedirs('/app/myapp')")},
    ),
    Pair(
        "node-read-only-path",
        {"server.js": server("require('node:fs').writeFileSync('/var/log/app.log', '')")},
        ("/var/log/app.log", "apps may write in /app"),
        {"server.js": server("require('node:fs').writeFileSync('/tmp/app.log', '')")},
        often=False,
    ),
    Pair(
        "sqlite-folder",
        {"app.py": flask("import sqlite3", "db = sqlite3.connect('/data/store/app.db')")},
        ("unable to open database file (app.py, line 2)", "create the folder"),
        {
            "app.py": flask(
                "import os, sqlite3", "os.makedirs('/data/store')", "db = sqlite3.connect('/data/store/app.db')"
            )
        },
    ),
    Pair(
        "sqlite-table",
        {"app.py": flask("import sqlite3", "db = sqlite3.connect('app.db')", "db.execute('select * from users')")},
        ("no such table: users (app.py, line 3)", "CREATE TABLE IF NOT EXISTS"),
        {
            "app.py": flask(
                "import sqlite3",
                "db = sqlite3.connect('app.db')",
                "db.execute('create table if not exists users (n)')",
                "db.execute('select * from users')",
            )
        },
    ),
    # the language
    Pair(
        "table-script",
        {
            "app.py": flask(
                "import sqlite3", "FIRST = sqlite3.connect('shop.db').execute('select * from item').fetchone()"
            ),
            "init_db.py": "import sqlite3\nsqlite3.connect('shop.db').execute('CREATE TABLE item (name TEXT)')\n",
        },
        ("no such table: item (app.py, line 2)", "run `python init_db.py` before the server", "in a Procfile"),
        {"Procfile": "web: python init_db.py && gunicorn app:app\n"},
    ),
    Pair(
        "python-syntax",
        {"app.py": flask("def broken(:", "    pass"), "Procfile": "web: gunicorn app:app\n"},
        ("SyntaxError", "app.py, line 1", "mend that line"),
        {"app.py": flask("def mended():", "    pass")},
    ),
    Pair(
        "node-syntax",
        {"server.js": server("const a = {;")},
        ("SyntaxError: Unexpected token ';' (server.js, line 1)", "mend that line"),
        {"server.js": server("const a = {};")},
    ),
    Pair(
        "go-syntax",
        {"go.mod": GO_MOD, "main.go": go("fmt.Println(")},
        ("main.go:12", "syntax error: unexpected newline"),
        {"main.go": go("fmt.Println()")},
        reason="BuildFailed",
    ),
    Pair(
        "python-version",
        {
            "app.py": flask(),
            "pyproject.toml": "[project]\nname = 'a'\nversion = '1'\nrequires-python = '>=3.99'\ndependencies = ['flask']\n",
        },
        (
            "pyproject.toml asks for Python >=3.99; the template has 3.13",
            "lower it if the code allows (it may say >=3.13)",
        ),
        {
            "pyproject.toml": "[project]\nname = 'a'\nversion = '1'\nrequires-python = '>=3.11'\ndependencies = ['flask']\n"
        },
        reason="422",
    ),
    Pair(
        "python-gone",
        {"app.py": flask("import cgi")},
        ("needs cgi, which Python 3.13 does not have any more (app.py, line 1)", "use urllib.parse"),
        {"app.py": flask("import urllib.parse")},
        often=False,
    ),
    Pair(
        "commonjs-in-a-module",
        {"server.js": server(), "package.json": package(type="module", scripts={"start": "node server.js"})},
        ("require is not defined in ES module scope", "name the file .cjs"),
        {
            "server.js": None,
            "server.cjs": server(),
            "package.json": package(type="module", scripts={"start": "node server.cjs"}),
        },
    ),
    Pair(
        "module-in-commonjs",
        {"server.cjs": module(), "package.json": package(scripts={"start": "node server.cjs"})},
        ("Cannot use import statement outside a module", "name the file .mjs"),
        {"server.cjs": None, "server.mjs": module(), "package.json": package(scripts={"start": "node server.mjs"})},
    ),
    # builds
    Pair(
        "start-needs-a-build",
        {"package.json": package(scripts={"start": "node dist/server.js"})},
        ("dist/server.js", "build"),
        {"dist/server.js": server()},
        reason="422",
    ),
    Pair(
        "build-fails",
        _BUILT,
        (
            "src/main.ts(2,1)",
            "Type 'number' is not assignable to type 'string'",
        ),
        {"src/main.ts": "const title: string = 'ok'\ndocument.title = title\n"},
        reason="BuildFailed",
    ),
    # Django
    Pair(
        "django-secret",
        django("os.environ['DJANGO_SECRET_KEY']"),
        ("needs the environment variable DJANGO_SECRET_KEY (settings.py, line 2)", "environment variables"),
        cure=env(DJANGO_SECRET_KEY="x"),
    ),
)
