"""Front ends: the first deploy of a Vite project whose packages nobody has installed yet, beside
`npm ci && npm run build` alone on the host; and one line of it changed, beside the build command alone.

Every cold sample asks for another version of one small package, so that its layer is a new one while all that it
downloads but that package is in the caches, ours and npm's own. The host has all of the machine; the builder is bounded
as it always is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from bench import sources
from bench.harness import Bench, live_once
from bench.instance import Instance
from bench.report import Row

OTHERS = ("3.3.1", "3.3.2", "3.3.3", "3.3.4", "3.3.6", "3.3.7", "3.3.8")
"""Versions of nanoid: what makes a layer a new one."""
COLD_RATIO = 1.25
CHANGED_RATIO = 1.15
_WAIT_S = 300.0

COLD = "new packages: POST ▸ 200"
COLD_ALONE = "npm ci && npm run build, alone"
CHANGED = "one line changed: POST ▸ 200"
CHANGED_ALONE = "npm run build, alone"


def measure(bench: Bench) -> Row:
    row = bench.begin("fronts", "front ends: first deploy, and one line changed, beside npm alone")
    npm = {**os.environ, "NPM_CONFIG_CACHE": str(bench.folder / "npm")}
    found: dict[str, list[float]] = {COLD: [], COLD_ALONE: [], CHANGED: [], CHANGED_ALONE: []}
    with bench.fresh() as instance:
        instance.wait_warm()
        for place, other in enumerate(OTHERS[: bench.count(len(OTHERS) - 1, 1) + 1]):
            folder = _laid_out(bench.folder / f"front-{place}", other, npm)
            name, mark = _marked(folder)
            alone = _alone(folder, npm, "ci") + _alone(folder, npm, "run", "build")
            deployed = _deployed(row, instance, name, folder, mark)
            if place and deployed is not None:  # the first fills the caches of both
                found[COLD_ALONE].append(alone)
                found[COLD].append(deployed)
        for _ in range(bench.count(10, 2)):
            name, mark = _marked(folder)
            found[CHANGED_ALONE].append(_alone(folder, npm, "run", "build"))
            if (changed := _deployed(row, instance, name, folder, mark)) is not None:
                found[CHANGED].append(changed)
    for series, times in found.items():
        row.time(series, times)
    row.hold(COLD, COLD_ALONE, COLD_RATIO)
    row.hold(CHANGED, CHANGED_ALONE, CHANGED_RATIO)
    return row


_PAGE = (
    '<!doctype html>\n<title>MARK</title>\n<div id="root"></div>\n<script type="module" src="/src/main.jsx"></script>\n'
)
_APP = "export default function App() {\n  return <h1>bench</h1>;\n}\n"
_MAIN = (
    "import { createRoot } from 'react-dom/client';\n"
    "import { nanoid } from 'nanoid';\n"
    "import App from './App.jsx';\n"
    "document.title = nanoid();\n"
    "createRoot(document.getElementById('root')).render(<App />);\n"
)
_CONFIG = (
    "import { defineConfig } from 'vite';\nimport react from '@vitejs/plugin-react';\n"
    "export default defineConfig({ plugins: [react()] });\n"
)


def _laid_out(folder: Path, other: str, npm: Mapping[str, str]) -> Path:
    """The project with its lock file."""
    project = {
        "name": "bench", "private": True, "type": "module", "scripts": {"dev": "vite", "build": "vite build"},
        "dependencies": {"react": "19.2.0", "react-dom": "19.2.0", "nanoid": other},
        "devDependencies": {"vite": "7.1.12", "@vitejs/plugin-react": "5.0.4"},
    }  # fmt: skip
    files = {
        "package.json": json.dumps(project),
        "vite.config.js": _CONFIG,
        "index.html": _PAGE,
        "src/main.jsx": _MAIN,
        "src/App.jsx": _APP,
    }
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    _alone(folder, npm, "install", "--package-lock-only")
    return folder


def _alone(folder: Path, npm: Mapping[str, str], *arguments: str) -> float:
    """npm on the host; returns milliseconds."""
    began = time.perf_counter()
    subprocess.run(
        ["npm", *arguments, "--silent"],
        cwd=folder,
        env=npm,
        check=True,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    return (time.perf_counter() - began) * 1000


def _marked(folder: Path) -> tuple[str, str]:
    """A name and a mark, which the project has from now on in its page's title: one line of it."""
    name, mark = sources.name_and_mark()
    (folder / "index.html").write_text(_PAGE.replace("MARK", mark))
    return name, mark


def _deployed(row: Row, instance: Instance, name: str, folder: Path, mark: str) -> float | None:
    """Milliseconds from the POST to the page with the mark; its trouble is told in the row."""
    shutil.rmtree(folder / "dist", ignore_errors=True)
    files = {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_relative_to(folder / "node_modules")
    }
    return live_once(row, instance, name, sources.packed(files), mark, wait_s=_WAIT_S)
