# ruff: noqa: E501 (tables of inputs)
"""How an app may be meant to start otherwise, for when its first start ends before it serves."""

from __future__ import annotations

import json

import pytest
from classify_trees import Asked, table_of

from vibed.classify.classifier import classify
from vibed.classify.decision import Decision

Files = dict[str, str | bytes]
FLASK = "from flask import Flask\napp = Flask(__name__)\n"
MAIN = "if __name__ == '__main__':\n    app.run()\n"
LISTENS = "require('http').createServer().listen(3000)\n"
GUNICORN = "python3 -m gunicorn -b 0.0.0.0:8080 --threads 8 app:app"


def decided(files: Files, asked: Asked | None = None) -> Decision:
    return classify(table_of(files), asked)


def scripts(**scripts: str) -> str:
    return json.dumps({"main": "index.js", "scripts": scripts})


TWO: list[tuple[str, Files, str, str]] = [
    ("a Procfile, then what the source shows", {"Procfile": "web: python3 seed.py", "seed.py": "print()", "app.py": FLASK}, "python3 seed.py", GUNICORN),
    ("a host's file, then the object", {"railway.toml": "[deploy]\nstartCommand='python seed.py'", "seed.py": "print()", "app.py": FLASK}, "python3 seed.py", GUNICORN),
    ("a __main__ block, then the object", {"app.py": FLASK + MAIN}, "python3 app.py", GUNICORN),
    ("one server, then the one beside it", {"app.py": FLASK, "main.py": "from fastapi import FastAPI\nweb = FastAPI()\n"}, GUNICORN, "python3 -m uvicorn main:web --host 0.0.0.0 --port 8080"),
    ("a start script, then main", {"package.json": scripts(start="node tool.js"), "tool.js": "1", "index.js": LISTENS}, "node tool.js", "node index.js"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "first", "then"), [row[1:] for row in TWO], ids=[row[0] for row in TWO])
def test_what_the_evidence_says_next_is_the_second_start(files: Files, first: str, then: str) -> None:
    found = decided(files)
    assert found.otherwise is not None
    assert (found.command, found.otherwise.command) == (first, then)
    other = found.runtime().otherwise
    assert other is not None
    assert (other.template, other.start.port, other.install) == (found.template, 8080, found.install)


ONE: list[tuple[str, Files, Asked | None]] = [
    ("what the user named", {"app.py": FLASK + MAIN}, Asked(entrypoint="python3 app.py")),
    ("all that there is", {"app.py": FLASK}, None),
    ("the same by two rules", {"Procfile": f"web: {GUNICORN}", "app.py": FLASK}, None),
    ("the same in other words", {"Procfile": "web: gunicorn -w 3 app:app", "app.py": FLASK}, None),
    (
        "Django's in other words",
        {
            "Procfile": "web: gunicorn shop.wsgi --log-file -",
            "manage.py": "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\nimport django\nexecute_from_command_line(sys.argv)\n",
            "shop/wsgi.py": "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n",
            "requirements.txt": "django\ngunicorn\n",
        },
        None,
    ),
    (
        "Django's manage.py, which only does what it is told",
        {
            "manage.py": "import django\nif __name__ == '__main__':\n    execute_from_command_line(sys.argv)\n",
            "shop/settings.py": "",
        },
        None,
    ),
    ("another language's", {"Procfile": "web: python3 seed.py", "seed.py": "print()", "index.js": LISTENS}, None),
    ("a site", {"index.html": "<p>x"}, None),
]


@pytest.mark.parametrize(("files", "asked"), [row[1:] for row in ONE], ids=[row[0] for row in ONE])
def test_there_is_no_second_start_beside(files: Files, asked: Asked | None) -> None:
    assert decided(files, asked).otherwise is None


def test_the_second_start_has_the_variables_and_ports_of_its_own() -> None:
    gradio = "import gradio as gr\nwith gr.Blocks() as demo:\n    pass\n" + MAIN.replace("app.run()", "demo.launch()")
    found = decided({"app.py": gradio})
    assert found.otherwise is not None
    assert found.otherwise.command == "python3 -c from app import demo; demo.launch()"
    assert found.otherwise.env["GRADIO_SERVER_PORT"] == "8080"
