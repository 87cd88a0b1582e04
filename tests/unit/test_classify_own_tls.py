"""A server that speaks TLS itself is told that nobody speaks it to an app here."""

from __future__ import annotations

import pytest

from tests.unit.classify_trees import TEMPLATES, table_of
from vibed.classify.classifier import classify

FLASK = "from flask import Flask\napp = Flask(__name__)\n"
GO = 'package main\n\nimport "net/http"\n\nfunc main() { http.%s }\n'


def notes(files: dict[str, str]) -> str:
    return " ".join(note for note in classify(table_of(files), templates=TEMPLATES).notes if "TLS" in note)


def node(source: str) -> dict[str, str]:
    return {"package.json": '{"scripts": {"start": "node a.js"}}', "a.js": source}


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (
            {"app.py": FLASK + "if __name__ == '__main__':\n    app.run(ssl_context='adhoc')\n"},
            "ssl_context",
        ),
        ({"Procfile": "web: gunicorn --certfile c.pem --keyfile k.pem app:app\n", "app.py": FLASK}, "--certfile"),
        (node("require('https').createServer(keys, app).listen(PORT)\n"), "https"),
        (node("https.createServer(keys, app).listen(8443)\n"), "https.createServer"),
        ({"go.mod": "module a\n\ngo 1.23\n", "main.go": GO % 'ListenAndServeTLS(":8443", "c", "k", nil)'}, "Listen"),
    ],
)
def test_tls_of_its_own_is_a_note(files: dict[str, str], what: str) -> None:
    assert f"the app speaks TLS itself (‘{what}" in notes(files)


@pytest.mark.parametrize(
    "files",
    [
        {"app.py": FLASK + "if __name__ == '__main__':\n    app.run(ssl_context=None)\n"},
        node("if (cert) https.createServer({}, app).listen(8443);\nhttp.createServer(app).listen(process.env.PORT)\n"),
        {"go.mod": "module a\n\ngo 1.23\n", "main.go": GO % 'ListenAndServe(":8080", nil)'},
    ],
)
def test_who_speaks_plain_http_too_is_told_nothing(files: dict[str, str]) -> None:
    assert notes(files) == ""
