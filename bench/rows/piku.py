"""The peer beside us: the same app, with packages that no template has, given to piku by `git push` and to vibeD by a
deploy; then one line of it changed.

The two take turns. Each sample asks for another version of one small package, so that neither has anything of it
installed, while all else that is downloaded is in the caches, ours and the clients' own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping

from bench import sources, web
from bench.harness import Bench, live
from bench.instance import Instance
from bench.piku import NoPeer, Piku
from bench.report import Row, not_measurable
from bench.rows.layers import NODE_OTHERS, OTHERS

FIRST_RATIO = 0.5
AGAIN_RATIO = 0.06
_WAIT_S = 300.0

Files = Mapping[str, str]
Source = Callable[[str, str], Files]
"""From a mark and the version of the small package."""


def measure(bench: Bench) -> Row:
    row = bench.begin("piku", "the peer piku: an app with packages of its own, first and again")
    kinds = {"flask": (_flask, "python-313", OTHERS), "express": (_express, "node-24", NODE_OTHERS)}
    try:
        with Piku(bench.folder / "piku") as piku, bench.fresh() as instance:
            instance.wait_warm()
            for kind, (source, template, others) in kinds.items():
                bench.say(f"piku: {kind}")
                _measure(bench, row, piku, instance, kind, source, template, others)
    except NoPeer as error:
        row.verdicts.append(not_measurable("the peer piku", str(error)))
        return row
    for kind in kinds:
        row.hold(f"{kind}, first", f"{kind}, first, piku", FIRST_RATIO)
        row.hold(f"{kind}, one line changed", f"{kind}, one line changed, piku", AGAIN_RATIO)
    return row


def _measure(
    bench: Bench,
    row: Row,
    piku: Piku,
    instance: Instance,
    kind: str,
    source: Source,
    template: str,
    others: tuple[str, ...],
) -> None:
    names = [f"{kind}, {which}{whose}" for which in ("first", "one line changed") for whose in ("", ", piku")]
    found: dict[str, list[float]] = {name: [] for name in names}
    first, first_piku, again, again_piku = found.values()
    for place, other in enumerate(others[: bench.count(len(others) - 1, 1) + 1]):
        name, mark = sources.name_and_mark()
        app = piku.app({**source(mark, other), "Procfile": _PROCFILES[kind]})
        theirs = app.push(mark)
        with instance.connect() as api, instance.connect() as visitor:
            try:
                ours = _deployed(row, instance, api, visitor, name, source(mark, other), mark, template)
                if place:  # the first fills the caches of both
                    first_piku.append(theirs)
                    first.extend(ours)
                for _ in range(bench.count(3, 2)):
                    _, mark = sources.name_and_mark()
                    app.commit(source(mark, other))
                    theirs = app.push(mark)
                    ours = _deployed(row, instance, api, visitor, name, source(mark, other), mark, template)
                    if place:
                        again_piku.append(theirs)
                        again.extend(ours)
            finally:
                instance.delete(api, name)
                app.destroy()
    for name, times in found.items():
        row.time(name, times)


def _deployed(
    row: Row,
    instance: Instance,
    api: web.Connection,
    visitor: web.Connection,
    name: str,
    files: Files,
    mark: str,
    template: str,
) -> list[float]:
    """One sample, or none, which is told in the row."""
    instance.wait_warm(template)
    time.sleep(0.03)
    took = live(row, instance, api, visitor, name, sources.packed(files), mark, wait_s=_WAIT_S)
    return [] if took is None else [took]


_PROCFILES = {"flask": "web: flask --app app run --port $PORT\n", "express": "web: node index.js\n"}


def _flask(mark: str, other: str) -> Files:
    app = f"import flask, humanize\napp = flask.Flask(__name__)\napp.get('/')(lambda: '{mark}')\n"
    return {"app.py": app, "requirements.txt": f"flask==3.1.0\nhumanize=={other}\n"}


def _express(mark: str, other: str) -> Files:
    app = (
        "const express = require('express');\nrequire('nanoid');\nconst app = express();\n"
        f"app.get('/', (q, r) => r.send('{mark}'));\napp.listen(process.env.PORT);\n"
    )
    wanted = {"express": "4.21.2", "nanoid": other}
    return {
        "index.js": app,
        "package.json": json.dumps({"name": "bench", "main": "index.js", "dependencies": wanted}),
    }
