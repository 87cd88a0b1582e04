"""What runs in another version than it asks for: refused where it uses what changed, told where it does not."""

from __future__ import annotations

import json

import pytest
from classify_trees import TEMPLATES, table_of

from vibed.classify import changed
from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.classify.errors import DependenciesMissing

EXPRESS = "const express = require('express')\nconst app = express()\napp.use(express.json())\napp.listen(3000)\n"


def node(source: str, name: str = "express", spec: str = "^4.18.2") -> Decision:
    package = json.dumps({"dependencies": {name: spec}, "scripts": {"start": "node a.js"}})
    start = EXPRESS if name == "express" else f"require('{name}')\nrequire('http').createServer(f).listen(1)\n"
    return classify(table_of({"package.json": package, "a.js": start + source}), None, TEMPLATES)


def python(source: str, requirement: str) -> Decision:
    app = f"from flask import Flask\napp = Flask('x')\n{source}\n"
    return classify(table_of({"app.py": app, "requirements.txt": f"flask\n{requirement}\n"}), None, TEMPLATES)


@pytest.mark.parametrize(
    ("source", "was"),
    [
        ("app.get('/', (req, res) => res.send(404))", ".send(404)"),
        ("app.get('/', (req, res) => res.json(201, { a: 1 }))", ".json(201,"),
        ("app.get('/', (req, res) => res.redirect('back'))", "redirect('back'"),
        ("app.get('/', (req, res) => res.redirect('/x', 301))", ".redirect('/x', 301)"),
        ("app.get('/', (req, res) => res.sendfile('x'))", ".sendfile("),
        ("app.get('/', (req, res) => res.status('404').end())", ".status('4"),
        ("app.get('/', (req, res) => res.send(req.param('a')))", "req.param("),
        ("app.get('/', (req, res) => res.send(req.query.filter.name))", "req.query.filter.name"),
        ("app.get('/', (req, res) => res.send(req.query.page['a']))", "req.query.page['a']"),
        ("app.use((req, res, next) => { req.query = clean(req.query); next() })", "req.query"),
        ("app.get('/', (req, res) => res.send(req.params.hasOwnProperty('a')))", "req.params.hasOwnProperty("),
        ("app.use((req, res, next) => { log(req.body.name); next() })", "req.body"),
        ("app.delete('/x', async (req, res) => { const { id } = req.body; res.end() })", "req.body"),
        ("app.del('/x', f)", ".del("),
        ("app.get('/u/:id?', f)", "/u/:id?"),
    ],
)
def test_express_4_is_refused_where_it_uses_what_5_changed(source: str, was: str) -> None:
    with pytest.raises(DependenciesMissing) as caught:
        node(source)
    assert f"‘{was}’ in ‘a.js’" in str(caught.value.hint)
    assert node(source, spec="^5.0.0").notes == ()


@pytest.mark.parametrize(
    "source",
    [
        "app.get('/', (req, res) => res.status(404).send('x'))",
        "app.get('/', (req, res) => res.json({ code: 201 }))",
        "app.get('/', (req, res) => res.redirect(301, '/x'))",
        "app.get('/', (req, res) => res.send(req.query.name.trim()))",
        "app.get('/', (req, res) => res.send(req.query.name.length > 3))",
        "app.use((req, res, next) => { if (req.body && req.body.name) log(req.body.name); next() })",
        "redis.del('key')",
    ],
)
def test_express_4_that_does_not_notice_runs_with_a_note(source: str) -> None:
    assert node(source).notes == ("express@^4.18.2 was asked for; the template has 5.1.0",)


def test_the_note_says_what_a_form_without_a_body_meets() -> None:
    assert (
        "req.body is undefined for a request without a body"
        in node("app.post('/', (req, res) => res.send(req.body.name))").notes[0]
    )


@pytest.mark.parametrize(
    ("name", "spec", "source", "was"),
    [
        ("ws", "^7.0.0", "wss.on('connection', c => c.on('message', m => clients.forEach(o => o.send(m))))", "message"),
        ("fastify", "^4.0.0", "fastify.listen(3000, cb)", ".listen(3000,"),
        ("koa", "^2.0.0", "ctx.redirect('back')", "ctx.redirect('back'"),
        ("hono", "^3.0.0", "c.req.cookie('a')", "c.req.cookie("),
    ],
)
def test_other_packages_of_node_are_held_to_it_too(name: str, spec: str, source: str, was: str) -> None:
    with pytest.raises(DependenciesMissing) as caught:
        node(source, name, spec)
    assert was in str(caught.value.hint)
    assert len(node("1", name, spec).notes) == 1


@pytest.mark.parametrize(
    ("requirement", "source", "was"),
    [
        ("Pillow==9.5.0", "from PIL import Image\nimage.thumbnail(size, Image.ANTIALIAS)", "Image.ANTIALIAS"),
        ("pillow<10", "from PIL import ImageDraw\nw, h = draw.textsize(text)", "draw.textsize("),
        ("flask==2.0.1", "@app.before_first_request\ndef x(): pass", "@app.before_first_request"),
        ("flask~=2.2.0", "from flask import Markup", "Markup"),
        ("Werkzeug==2.3.8", "import werkzeug\nfrom werkzeug.urls import url_parse", "werkzeug.urls"),
        ("PyYAML==5.4.1", "import yaml\nyaml.load(open('x'))", "yaml.load(open('x'))"),
        ("markupsafe==2.0.1", "from markupsafe import soft_unicode", "soft_unicode"),
    ],
)
def test_an_older_version_is_refused_where_the_source_uses_what_it_had(requirement: str, source: str, was: str) -> None:
    with pytest.raises(DependenciesMissing) as caught:
        python(source, requirement)
    assert f"‘{was}’ in ‘app.py’" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("requirement", "source"),
    [
        ("Pillow==9.5.0", "from PIL import Image\nImage.LANCZOS"),
        ("flask==2.0.1", ""),
        ("PyYAML==5.4.1", "import yaml\nyaml.safe_load(x)"),
    ],
)
def test_an_older_version_that_the_source_does_not_notice_is_told(requirement: str, source: str) -> None:
    assert len(python(source, requirement).notes) == 1


def test_a_package_of_node_that_nothing_names_is_told_and_no_more() -> None:
    package = json.dumps({"dependencies": {"express": "^5", "clean-css": "^5"}, "scripts": {"start": "node a.js"}})
    files: dict[str, str | bytes] = {"package.json": package, "a.js": EXPRESS}
    assert classify(table_of(files), None, TEMPLATES).notes == (
        "asked for, not there, and used by nothing that was seen: clean-css",
    )
    with pytest.raises(DependenciesMissing, match="clean-css"):
        classify(table_of({**files, "lib/b.js": "engine('clean-css')\n"}), None, TEMPLATES)


def test_what_is_asked_for_in_the_newer_version_is_not_looked_at() -> None:
    assert changed.used(changed.PYTHON["pillow"], {"a.py": "Image.ANTIALIAS"}, (10,), (12,)) == []
    assert changed.used(changed.PYTHON["pillow"], {"a.py": "Image.ANTIALIAS"}, (9, 5), (9, 9)) == []
    assert changed.used(changed.PYTHON["pillow"], {"a.py": "Image.ANTIALIAS"}, (9, 5), (12,)) != []
