"""What is said of a front end beside the server that is started."""

from __future__ import annotations

import json

import pytest
from classify_trees import TEMPLATES, table_of

from vibed.classify.classifier import classify

API = "from fastapi import FastAPI\napp = FastAPI()\n"
EXPRESS = "const express = require('express')\nconst app = express()\napp.listen(3000)\n"
VITE = json.dumps({"scripts": {"build": "vite build"}, "devDependencies": {"vite": "7"}})
PAGE = "<h1>x</h1>"
GO = """package main

import (
	"embed"
	"net/http"
)

//go:embed web/*
var files embed.FS

func main() { http.ListenAndServe(":8080", http.FileServerFS(files)) }
"""
NODE = json.dumps({"scripts": {"start": "node server.js"}, "dependencies": {"express": "5"}})


def said(files: dict[str, str]) -> str:
    return "; ".join(classify(table_of(files), None, TEMPLATES).notes)


@pytest.mark.parametrize(
    ("files", "note"),
    [
        ({"backend/main.py": API, "frontend/index.html": PAGE}, "let the server serve ‘frontend’, or deploy"),
        ({"server/server.js": EXPRESS, "client/index.html": PAGE}, "let the server serve ‘client’, or deploy"),
        (
            {"main.py": API, "frontend/package.json": VITE, "frontend/dist/index.html": PAGE},
            "let the server serve ‘frontend/dist’, or deploy",
        ),
        ({"main.py": API, "frontend/package.json": VITE, "frontend/index.html": PAGE}, "run npm run build in it"),
        (
            {
                "package.json": NODE,
                "server.js": EXPRESS + "app.use(express.static(path.join(__dirname, 'client', 'build')))\n",
                "client/package.json": VITE,
            },
            "the server serves ‘client/build’, which is not in the archive: run npm run build in ‘client’",
        ),
    ],
)
def test_a_front_end_that_no_visitor_would_see_is_told_with_what_to_do(files: dict[str, str], note: str) -> None:
    assert note in said(files)


@pytest.mark.parametrize(
    "files",
    [
        {
            "main.py": API + "app.mount('/', StaticFiles(directory='frontend', html=True))\n",
            "frontend/index.html": PAGE,
        },
        {"main.py": API, "templates/index.html": PAGE, "static/index.html": PAGE},
        {"web/app.py": API, "web/index.html": PAGE, "README.md": ""},
        {
            "go.mod": "module x\n",
            "main.go": GO,
            "web/index.html": PAGE,
        },
        {
            "package.json": NODE,
            "server.js": EXPRESS + "app.use(express.static('client/build'))\n",
            "client/package.json": VITE,
            "client/build/index.html": PAGE,
        },
    ],
)
def test_pages_that_the_server_serves_need_no_word(files: dict[str, str]) -> None:
    assert "front end" not in said(files) and "not in the archive" not in said(files)
