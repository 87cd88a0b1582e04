"""What a source has for making its tables, and nothing runs."""

from __future__ import annotations

import pytest

from tests.unit.classify_trees import table_of
from vibed.classify.classifier import classify

FLASK = """import sqlite3
from flask import Flask
app = Flask(__name__)

@app.get("/")
def index():
    return str(sqlite3.connect("shop.db").execute("select * from item").fetchall())
"""
MAKES = "import sqlite3\nsqlite3.connect('shop.db').execute('CREATE TABLE item (name TEXT)')\n"
EXPRESS = "const db = require('./db')\nrequire('express')().get('/', (q, r) => r.json(db.all())).listen(3000)\n"
COMMAND = """

@app.cli.command("init-db")
def init_db():
    db.create_all()
"""


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"app.py": FLASK, "init_db.py": MAKES}, "python init_db.py"),
        ({"app.py": FLASK, "database/setup.py": MAKES}, "python database/setup.py"),
        ({"app.py": FLASK, "seed.py": "from app import db\ndb.create_all()\n"}, "python seed.py"),
        # what is made on import is not missing
        ({"app.py": FLASK + "import init_db\n", "init_db.py": MAKES}, ""),
        ({"app.py": FLASK, "tests/create_db.py": MAKES}, ""),
        ({"app.py": FLASK, "loader.py": "print('nothing of tables')\n"}, ""),
        ({"app.py": FLASK + COMMAND}, "flask --app app init-db"),
        ({"app.py": FLASK + COMMAND.replace('"init-db"', "")}, "flask --app app init-db"),
        (
            {"app.py": FLASK, "schema.sql": "CREATE TABLE item (name TEXT);\n"},
            "python -c \"import sqlite3; sqlite3.connect('shop.db').executescript(open('schema.sql').read())\"",
        ),
        (
            {"server/app.py": FLASK, "server/init_db.py": MAKES, "Procfile": "web: cd server && gunicorn app:app"},
            "(cd server && python init_db.py)",
        ),
        (
            {
                "server.js": EXPRESS,
                "db.js": "module.exports = {}\n",
                "scripts/init-db.js": "db.exec('CREATE TABLE item (name TEXT)')\n",
            },
            "node scripts/init-db.js",
        ),
    ],
)
def test_what_makes_the_tables_and_is_run_by_nothing_is_found(files: dict[str, str], command: str) -> None:
    assert classify(table_of(files)).runtime().prepares == command
