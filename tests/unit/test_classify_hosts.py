# ruff: noqa: E501 (tables of inputs)
"""Start commands that stand in the files of other hosts, and those that a user names."""

from __future__ import annotations

import json

import pytest
from classify_trees import Asked, table_of

from vibed.classify.classifier import classify
from vibed.classify.decision import Decision

Files = dict[str, str | bytes]
FLASK = "from flask import Flask\nsite = Flask(__name__)\n"
APP: Files = {"web.py": FLASK, "app.py": FLASK, "server.js": "require('http').createServer().listen(3000)\n"}
COMMAND = "gunicorn -b :$PORT web:site"


def decided(files: Files, asked: Asked | None = None) -> Decision:
    return classify(table_of(files), asked)


FILES: list[tuple[str, str]] = [
    ("render.yaml", f"services:\n  - type: pserv\n    startCommand: redis-server\n  - type: web\n    name: x\n    startCommand: \"{COMMAND}\"  # it\n"),
    ("render.yaml", f"services:\n- type: static\n  name: site\n- type: web\n  startCommand: >\n    pip install -r requirements.txt &&\n    {COMMAND}\n"),
    ("railway.json", json.dumps({"deploy": {"startCommand": COMMAND}})),
    ("railway.toml", f"[deploy]\nstartCommand = '{COMMAND}'\n"),
    ("nixpacks.toml", f"[start]\ncmd = '{COMMAND}'\n"),
    ("fly.toml", f"app = 'x'\n[processes]\nworker = 'python3 w.py'\napp = '{COMMAND}'\n"),
    ("fly.toml", json.dumps(COMMAND.split()).join(["[experimental]\ncmd = ", "\n"])),
    ("app.yaml", f"runtime: python312\nentrypoint: {COMMAND}\n"),
    ("heroku.yml", f"build:\n  docker:\n    web: Dockerfile\nrun:\n  web: {COMMAND}\n"),
    (".do/app.yaml", f"name: x\nservices:\n- environment_slug: python\n  run_command: {COMMAND}\n"),
    ("apprunner.yaml", f"version: 1.0\nrun:\n  command: {COMMAND}\n  network:\n    port: 8080\n"),
    ("startup.txt", f"{COMMAND}\n"),
    (".replit", f"run = 'npm run dev'\n[deployment]\nrun = ['sh', '-c', '{COMMAND}']\n"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "text"), FILES, ids=[f"{row[0]} {at}" for at, row in enumerate(FILES)])
def test_a_start_command_in_a_hosts_file_is_followed(file: str, text: str) -> None:
    found = decided({file: text, **APP})
    assert (found.rule, " ".join(found.argv)) == ("host-file", "python3 -m gunicorn -b :8080 web:site")
    assert found.why == f"It is started by the start command in its {file}."


def test_it_runs_where_the_file_says() -> None:
    text = "services:\n  - type: web\n    rootDir: ./backend\n    startCommand: uvicorn main:app --host 0.0.0.0\n"
    found = decided({"render.yaml": text, "backend/main.py": "from fastapi import FastAPI\napp = FastAPI()\n"})
    assert found.shell == "cd backend && uvicorn main:app --host 0.0.0.0"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("render.yaml", "services:\n  - type: web\n    startCommand: ./bin/server\n"),
        ("render.yaml", "services:\n  - type: web\n    startCommand: bundle exec puma\n"),
        ("railway.json", '{"deploy": {"startCommand": "node dist/main.js"}}'),
        ("railway.json", "not JSON"),
        ("fly.toml", "[processes]\napp = 'python3 gone.py'\n"),
        ("app.yaml", "runtime: python312\n- : :\n\t!!\n"),
        (".replit", "run = 'npm run dev'\n"),
    ],
)
def test_one_that_starts_what_is_not_there_is_a_hint_and_no_end(file: str, text: str) -> None:
    found = decided({file: text, "app.py": FLASK})
    assert (found.rule, found.argv[-1]) == ("python-server", "app:site")


def test_a_procfile_comes_before_other_hosts_files_and_these_before_what_the_source_shows() -> None:
    both = decided({"Procfile": "web: python3 a.py", "railway.json": FILES[2][1], "a.py": "x", **APP})
    assert (both.rule, both.argv) == ("procfile", ("python3", "a.py"))


def test_what_a_host_serves_of_a_file_is_served_here() -> None:
    python = {"builds": [{"src": "api/index.py", "use": "@vercel/python"}]}
    found = decided({"vercel.json": json.dumps(python), "api/index.py": FLASK, "main.py": FLASK})
    assert (found.rule, found.argv[-1]) == ("host-file", "api.index:site")
    node = {"builds": [{"src": "api/index.js", "use": "@vercel/node"}]}
    listening = "const app = require('express')()\nmodule.exports = app\n"
    exported = decided({"vercel.json": json.dumps(node), "api/index.js": listening, "package.json": "{}"})
    assert (exported.rule, exported.kind, exported.argv[:2]) == ("host-file", "node", ("node", "--input-type=module"))


@pytest.mark.parametrize(
    "text",
    [
        "const express = require('express')\nconst app = express()\nmodule.exports = app;\n",
        "import express from 'express'\nconst app = express()\nexport default app\n",
        "import { Hono } from 'hono'\nconst app: Hono = new Hono()\nexport default app\n",
        "import Fastify from 'fastify'\nconst api = Fastify({ logger: true })\nexport default api;\n",
    ],
)
def test_an_app_that_a_node_file_exports_is_made_to_listen(text: str) -> None:
    found = decided({"index.js": text, "package.json": '{"main": "index.js"}'}, Asked(template="node-24"))
    assert (found.rule, found.argv[:3]) == ("node-entry", ("node", "--input-type=module", "-e"))
    assert '"./index.js"' in found.argv[3]
    assert "process.env.PORT" in found.argv[3]


DOCKERFILES: list[tuple[str, str]] = [
    ('FROM node AS build\nCMD ["npm", "start"]\nFROM python:3.12\nWORKDIR /app\nCMD ["python", "tools/go.py"]\n', "python3 tools/go.py"),
    ('FROM python\nENTRYPOINT ["python3"]\nCMD ["tools/go.py"]\n', "python3 tools/go.py"),
    ('FROM python\nENTRYPOINT ["/docker-entrypoint.sh"]\nCMD ["python3", "/app/tools/go.py"]\n', "python3 tools/go.py"),
    ("FROM python\nCMD python3 \\\n    tools/go.py\n", "python3 tools/go.py"),
    ('FROM python\nCMD ["sh", "-c", "python3 tools/go.py"]\n', "python3 tools/go.py"),
]  # fmt: skip


def test_a_file_of_that_name_in_another_folder_is_not_what_a_command_starts() -> None:
    found = decided(
        {
            "Dockerfile": "FROM python\nCMD streamlit run main.py\n",
            "app/main.py": "import streamlit as st\n",
            "a.txt": "",
        }
    )
    assert (found.rule, found.otherwise) == ("python-server", None)


@pytest.mark.parametrize(("text", "command"), DOCKERFILES)
def test_what_the_last_stage_of_a_dockerfile_starts_is_a_hint(text: str, command: str) -> None:
    found = decided({"Dockerfile": text, "tools/go.py": "x", "a.txt": ""})
    assert (found.rule, " ".join(found.argv)) == ("dockerfile", command)
    assert decided({"Dockerfile": text, "tools/go.py": "x", "app.py": FLASK}).rule == "python-server"


@pytest.mark.parametrize(
    ("entrypoint", "started"),
    [
        ("npm run serve", "node server.js"),
        ("uv run gunicorn web:site", "python3 -m gunicorn web:site"),
        ("sh -c 'python3 web.py'", "python3 web.py"),
        ("pip install -r requirements.txt && python web.py", "python3 web.py"),
        ("sh start.sh", "python3 web.py"),
    ],
)
def test_a_command_that_the_user_names_is_read_as_a_projects_own_is(entrypoint: str, started: str) -> None:
    more: Files = {
        "package.json": '{"scripts": {"serve": "node server.js"}}',
        "start.sh": "#!/bin/bash\nset -e\n# go\npip install -r requirements.txt\npython web.py\n",
    }
    found = decided({**APP, **more}, Asked(entrypoint=entrypoint))
    assert (found.rule, " ".join(found.argv)) == ("named", started)
