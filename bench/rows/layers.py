"""Dependencies: the first deploy of an app whose packages nobody has installed yet, beside the installer alone on the
host and the same app's start; an app with a layer beside the same one without packages; ten apps at once that want the
same; what the tenth of them holds in memory.

Every cold sample asks for another version of one small package, so that its layer is a new one while all that it
downloads but that package is in the caches, ours and the installer's own. The installer runs on the host, with all of
the machine; the builder is bounded as it always is. What the app itself takes to start is seen right after it: the same
app is deployed again, under another name, with its layer there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench import memory, sources
from bench.harness import Bench, live_once
from bench.instance import Instance
from bench.report import Row, at_most, not_measurable

OTHERS = ("4.6.0", "4.7.0", "4.8.0", "4.9.0", "4.10.0", "4.11.0", "4.12.0", "4.12.1", "4.12.2", "4.12.3")
"""Versions of humanize (PyPI): what makes a layer of Python a new one."""
NODE_OTHERS = ("3.3.1", "3.3.2", "3.3.3", "3.3.4", "3.3.6", "3.3.7", "3.3.8")
"""Of nanoid (npm)."""
COLD_RATIO = 1.25
AGAIN_RATIO = 1.1
MEANWHILE_RATIO = 1.2
MEMORY_RATIO = 1.05
_TENTH = 10
_WAIT_S = 300.0

COLD = ", layer built: POST ▸ 200"
ALONE = ", the installer alone"
START = ", its layer there: POST ▸ 200"
AGAIN = "layer there: POST ▸ 200"
PLAIN = "the same app without packages: POST ▸ 200"
QUIET = "another's site, nothing else going on"
MEANWHILE = "another's site while ten apps wait for one layer"

Files = Mapping[str, str]


def measure(bench: Bench) -> Row:
    row = bench.begin("layers", "dependencies: first deploy beside the installer alone, and again")
    with bench.fresh() as instance:
        instance.wait_warm()
        _cold(bench, row, instance, "python, 4 packages", "python-313", _python, _uv, OTHERS)
        _cold(bench, row, instance, "node, 11 packages", "node-24", _node, _npm, NODE_OTHERS)
        _again(bench, row, instance)
        _at_once(bench, row, instance)
        _held(bench, row, instance)
    for name in ("python, 4 packages", "node, 11 packages"):
        _judge_cold(row, name)
    row.hold(AGAIN, PLAIN, AGAIN_RATIO)
    row.hold(MEANWHILE, QUIET, MEANWHILE_RATIO)
    return row


def _python(mark: str, other: str) -> Files:
    app = (
        "import flask, humanize, pandas, sqlalchemy\n"
        "app = flask.Flask(__name__)\n"
        f"app.get('/')(lambda: '{mark}')\n"
    )  # fmt: skip
    # versions that no template has: else there is nothing to install
    wanted = f"flask==3.1.0\nsqlalchemy==2.0.36\npandas==2.2.3\nhumanize=={other}\n"
    return {"app.py": app, "requirements.txt": wanted}


def _node(mark: str, other: str) -> Files:
    names = {
        "express": "4.21.2", "got": "11.8.6", "chalk": "4.1.2", "date-fns": "3.6.0", "yargs": "17.7.2",
        "winston": "3.17.0", "joi": "17.13.3", "rxjs": "7.8.1", "slugify": "1.6.6", "ms": "2.1.3", "nanoid": other,
    }  # fmt: skip
    app = (
        "const express = require('express');\n"
        "const app = express();\n"
        f"app.get('/', (q, r) => r.send('{mark}'));\n"
        "app.listen(process.env.PORT);\n"
    )
    return {"index.js": app, "package.json": json.dumps({"name": "bench", "main": "index.js", "dependencies": names})}


def _uv(instance: Instance, folder: Path, caches: Path) -> None:
    """`uv pip install` of the folder's requirements, for the interpreter of this run."""
    uv = instance.tools.path("uv")
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--target", folder / "installed", "--python-version", "3.13",
         "--only-binary", ":all:", "-r", folder / "requirements.txt"],
        check=True, env={**os.environ, "UV_CACHE_DIR": str(caches / "uv")}, start_new_session=True,
    )  # fmt: skip


def _npm(instance: Instance, folder: Path, caches: Path) -> None:
    """`npm install` of the folder's package.json, which has no lock file, as the app has none."""
    del instance
    subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund"],
        cwd=folder, check=True, env={**os.environ, "NPM_CONFIG_CACHE": str(caches / "npm")}, start_new_session=True,
    )  # fmt: skip


def _cold(
    bench: Bench,
    row: Row,
    instance: Instance,
    name: str,
    template: str,
    files: Callable[[str, str], Files],
    alone: Callable[[Instance, Path, Path], None],
    others: tuple[str, ...],
) -> None:
    live: list[float] = []
    bare: list[float] = []
    starts: list[float] = []
    caches = bench.folder / "caches"
    for place, other in enumerate(others[: bench.count(len(others) - 1, 2) + 1]):
        with tempfile.TemporaryDirectory(dir=bench.folder) as made:
            folder = Path(made)
            for path, text in files("unused", other).items():
                (folder / path).write_text(text)
            began = time.perf_counter()
            alone(instance, folder, caches)
            took = (time.perf_counter() - began) * 1000
        found = []
        for _ in ("layer built", "layer there"):
            instance.wait_warm(template)
            found.append(_deployed(row, instance, partial(files, other=other)))
        deployed, started = found
        if place and deployed is not None and started is not None:  # the first fills the caches of both
            bare.append(took)
            live.append(deployed)
            starts.append(started)
    shutil.rmtree(caches, ignore_errors=True)
    row.time(name + COLD, live)
    row.time(name + ALONE, bare)
    row.time(name + START, starts)


def _judge_cold(row: Row, name: str) -> None:
    target = f"{name}: first deploy ≤ {COLD_RATIO:g} × the installer alone + the app's start with its layer there"
    ours, alone, start = (row.series.get(name + series) for series in (COLD, ALONE, START))
    if ours is None or alone is None or start is None:
        row.verdicts.append(not_measurable(target, "no sample"))
    else:
        row.verdicts.append(at_most(target, ours.p50, alone.p50 * COLD_RATIO + start.p50))


def _again(bench: Bench, row: Row, instance: Instance) -> None:
    """Apps with a layer that is there, and without any, in turn."""
    found: dict[str, list[float]] = {AGAIN: [], PLAIN: []}
    sources_of: Mapping[str, Callable[[str], Files]] = {AGAIN: _with_layer, PLAIN: _without}
    for place in range(-1, bench.count(30, 5)):
        for series, source in sources_of.items():
            instance.wait_warm("python-313")
            time.sleep(0.03)
            took = _deployed(row, instance, source)
            if place >= 0 and took is not None:
                found[series].append(took)
    for series, times in found.items():
        row.time(series, times)


def _hello(mark: str) -> str:
    return f"import flask\napp = flask.Flask(__name__)\napp.get('/')(lambda: '{mark}')\n"


def _without(mark: str) -> Files:
    return {"app.py": _hello(mark), "requirements.txt": "flask\n"}


def _with_layer(mark: str) -> Files:
    return {"app.py": "import humanize\n" + _hello(mark), "requirements.txt": f"flask\nhumanize=={OTHERS[0]}\n"}


def _new_to_all(mark: str) -> Files:
    return {"app.py": "import inflection\n" + _hello(mark), "requirements.txt": "flask\ninflection==0.5.1\n"}


def _at_once(bench: Bench, row: Row, instance: Instance) -> None:
    """Ten apps that want the same new layer, and what others' deploys take meanwhile."""
    found: dict[str, list[float]] = {QUIET: [], MEANWHILE: []}

    def another(series: str) -> None:
        if (took := _deployed(row, instance, sources.tiny_static)) is not None:
            found[series].append(took)

    for _ in range(bench.count(20, 3)):
        another(QUIET)
    before = _built(instance)
    with ThreadPoolExecutor(10) as many:
        waiting = [many.submit(_deployed, row, instance, _new_to_all) for _ in range(10)]
        while not all(one.done() for one in waiting):
            another(MEANWHILE)
    for series, times in found.items():
        row.time(series, times)
    row.figures["layers built for ten apps that want the same"] = _built(instance) - before
    row.figures["of the ten live"] = sum(one.result() is not None for one in waiting)


def _held(bench: Bench, row: Row, instance: Instance) -> None:
    """What the last of ten apps with one layer holds, beside the last of ten without any."""
    found: dict[str, float] = {}
    kinds: Mapping[str, Callable[[str], Files]] = {"with a layer": _mounted, "without": _without}
    for kind, source in kinds.items():
        count = bench.count(_TENTH, 2)
        names = [f"held-{place}" for place in range(count)]
        with instance.connect() as api, instance.connect() as visitor:
            for name in names:
                instance.wait_warm("python-313")
                mark = f"mark {name}"
                instance.deploy(api, visitor, name, sources.packed(source(mark)), mark, wait_s=_WAIT_S)
            time.sleep(bench.count(3, 1))
            found[kind] = _pss(instance, names[-1])
            for name in names:
                instance.delete(api, name)
            instance.wait_gone(names)
        row.figures[f"app {count} of {count} {kind}: PSS (MB)"] = found[kind]
    target = f"PSS of the tenth app with a layer ≤ {MEMORY_RATIO:g} × of one without"
    row.verdicts.append(at_most(target, found["with a layer"], found["without"] * MEMORY_RATIO, "MB"))


def _mounted(mark: str) -> Files:
    """The same app as without; its layer is mounted and found first, and nothing of it imported."""
    return {"app.py": _hello(mark), "requirements.txt": f"flask\nhumanize=={OTHERS[0]}\n"}


def _pss(instance: Instance, app: str) -> float:
    """Of the sandbox of an app, with its supervisor."""
    for state in instance.layout.sandboxes.glob("s*/state.json"):
        told = json.loads(state.read_text())
        if (told["run"] or {}).get("app_id") == app and told["state"] == "running":
            return memory.total(memory.family(told["pid"])).pss
    raise RuntimeError(f"{app} has no sandbox")


def _built(instance: Instance) -> int:
    """How many times a layer was made."""
    with instance.connect() as api:
        return sum(int(layer["builds"]) for layer in instance.call("GET", "/v1/layers", connection=api).json()["items"])


def _deployed(row: Row, instance: Instance, files: Callable[[str], Files]) -> float | None:
    name, mark = sources.name_and_mark()
    return live_once(row, instance, name, sources.packed(files(mark)), mark, wait_s=_WAIT_S)
