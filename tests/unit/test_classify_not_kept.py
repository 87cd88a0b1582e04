"""What an app writes is told to be lost, until data outlives a sandbox."""

from __future__ import annotations

import pytest

from tests.unit.classify_trees import TEMPLATES, table_of
from vibed.classify.classifier import classify

FLASK = "from flask import Flask\napp = Flask(__name__)\n"
NODE = "const app = require('express')();\napp.listen(process.env.PORT);\n"
GO = 'package main\n\nimport ("net/http"; "os")\n\nfunc main() { %s; http.ListenAndServe(":8080", nil) }\n'
DATABASES = "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': BASE_DIR / 'db.sqlite3'}}\n"


def python(source: str, **more: str) -> dict[str, str]:
    return {"app.py": FLASK + source, **more}


def node(source: str) -> dict[str, str]:
    return {"package.json": '{"scripts": {"start": "node a.js"}}', "a.js": NODE + source}


def notes(files: dict[str, str]) -> str:
    return " ".join(note for note in classify(table_of(files), templates=TEMPLATES).notes if "is lost" in note)


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (python("import sqlite3\nsqlite3.connect('lunch.db')\n"), "‘lunch.db’"),
        (python("app.config['URI'] = 'sqlite:///instance/x.sqlite3'\n"), "‘instance/x.sqlite3’"),
        (python("STORE = join(HERE, 'data.json')\ndef save(): json.dump({}, open(STORE, 'w'))\n"), "‘data.json’"),
        (python("df.to_csv('votes.csv')\n"), "‘votes.csv’"),
        (python("os.makedirs('/data', exist_ok=True)\n"), "‘/data’"),
        (python("DATA_DIR = os.environ.get('DATA_DIR', '/data')\n"), "‘/data’"),
        (python("open('/data/x.txt', 'a')\n"), "‘/data/x.txt’"),
        (python("a = open('a', 'w'), open('b', 'w'), open('c', 'w'), open('d', 'w')\n"), "‘a’, ‘b’, ‘c’ and others"),
        (node("fs.writeFileSync('./todos.json', '[]');\n"), "‘todos.json’"),
        (node("new DatabaseSync('todos.db');\n"), "‘todos.db’"),
        ({"go.mod": "module a\n\ngo 1.23\n", "main.go": GO % 'os.WriteFile("hits.txt", nil, 0o644)'}, "‘hits.txt’"),
        (
            {
                "manage.py": "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 's.settings')\n"
                "from django.core.management import execute_from_command_line\n",
                "s/settings.py": f"DEBUG = True\n{DATABASES}",
                "s/wsgi.py": "application = 1\n",
            },
            "‘db.sqlite3’",
        ),
    ],
)
def test_what_is_written_is_named(files: dict[str, str], name: str) -> None:
    assert notes(files).startswith(f"what the app writes to {name} is lost at its next version")


@pytest.mark.parametrize(
    "files",
    [
        python("open('rates.csv')\n"),
        python("sqlite3.connect('chinook.db')\n", **{"chinook.db": "x"}),
        python("open('/tmp/x', 'w')\nopen('app.log', 'w')\n"),
        python("@app.get('/data')\ndef data(): return fetch('/data/1')\n"),
        python("sqlite3.connect(':memory:')\n"),
        python("", **{"scripts/seed.py": "open('seed.json', 'w')\n"}),
        node("fs.readFileSync('todos.json');\n"),
        {"index.html": "<script>open('x.txt', 'w')</script>"},
    ],
)
def test_what_is_read_passing_or_not_run_is_no_note(files: dict[str, str]) -> None:
    assert notes(files) == ""
