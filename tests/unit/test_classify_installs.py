# ruff: noqa: E501 (tables of inputs)
"""What has to be installed before an app starts, on a vibeD that can: read from lists, locks and imports."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from classify_trees import TEMPLATES, table_of

from vibed.apps.app import Install
from vibed.classify import npm_ranges
from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.classify.errors import BadRequirements, DependenciesMissing

Files = dict[str, str | bytes]
FLASK = "from flask import Flask\napp = Flask(__name__)\n"
FASTAPI = "from fastapi import FastAPI\nimport humanize\napp = FastAPI()\n"
EXPRESS = "const express = require('express')\nexpress().listen(3000)\n"
POETRY = '[[package]]\nname = "humanize"\nversion = "4.9.0"\noptional = false\n\n[package.extras]\nversion = "9"\n\n[[package]]\nname = "own"\nversion = "1.0"\n\n[package.source]\ntype = "directory"\nurl = "lib"\n'
UV = 'version = 1\n\n[[package]]\nname = "app"\nversion = "0.1.0"\nsource = { virtual = "." }\n\n[[package]]\nname = "Humanize"\nversion = "4.9.0"\nsource = { registry = "https://x/path/git/simple" }\n'


def decided(files: Files) -> Decision:
    return classify(table_of(files), None, TEMPLATES, installs=("python", "node"))


def python(files: Files, app: str = FLASK + "import humanize\n") -> Install | None:
    return decided({"app.py": app, **files}).install


def node(package: dict[str, object], app: str = EXPRESS, **files: str) -> Install | None:
    return decided({"server.js": app, "package.json": json.dumps(package), **files}).install


@pytest.mark.parametrize(
    "listed",
    ["flask\nrequests>=2\n", "flask>=3,<4\nPyYAML\npython-dotenv\n", "flask\npytest==7.4\nblack\n", "uvicorn[standard]\nflask\n", "flask\npywin32==306\n", "flask\ngunicorn==20.1.0\n"],
)  # fmt: skip
def test_what_the_template_satisfies_needs_nothing(listed: str) -> None:
    extra = dict.fromkeys(("httptools", "uvloop", "watchfiles", "websockets"), "1")
    template = replace(TEMPLATES["python-313"], packages={**TEMPLATES["python-313"].packages, **extra})
    templates = {**TEMPLATES, "python-313": template}
    files: Files = {"app.py": FLASK + "app.run()\n", "requirements.txt": listed}
    assert classify(table_of(files), None, templates, installs=("python",)).install is None


def test_what_a_listed_package_brought_once_is_installed_where_the_app_imports_it() -> None:
    found = python({"requirements.txt": "flask\npandas\n"}, FLASK + "import pandas, pytz, mystery\n")
    assert found is not None
    assert "pytz" in found.wanted
    assert "mystery" not in found.wanted


LISTS: list[tuple[str, Files, tuple[str, ...]]] = [
    ("requirements.txt", {"requirements.txt": "Flask\nHumanize>=4 # sizes\n"}, ("flask", "humanize>=4")),
    ("in UTF-16", {"requirements.txt": "flask\r\nhumanize\r\n".encode("utf-16")}, ("flask", "humanize")),
    ("with includes", {"requirements.txt": "-r requirements/base.txt\nflask\n", "requirements/base.txt": "humanize[x]==4.9\n"}, ("flask", "humanize[x]==4.9")),
    ("requirements.in", {"requirements.in": "flask\nhumanize\n"}, ("flask", "humanize")),
    ("markers", {"requirements.txt": 'flask\nhumanize==4.9; python_version >= "3.9"\npywin32; sys_platform == "win32"\n'}, ("flask", "humanize==4.9")),
    ("pyproject.toml", {"pyproject.toml": '[project]\nname = "x"\ndependencies = ["flask", "humanize~=4.0"]\n'}, ("flask", "humanize~=4.0")),
    ("a group that is imported", {"pyproject.toml": '[project]\nname = "x"\ndependencies = ["flask"]\n[dependency-groups]\nextra = ["humanize<5", "nothing"]\n'}, ("flask", "humanize<5")),
    ("Poetry", {"pyproject.toml": '[tool.poetry.dependencies]\npython = "^3.10"\nflask = "*"\nhumanize = {version = "^4.1", extras = ["x"]}\n'}, ("flask", "humanize[x]<5,>=4.1")),
    ("a group of Poetry’s", {"pyproject.toml": '[tool.poetry.dependencies]\nflask = "*"\n[tool.poetry.group.web.dependencies]\nhumanize = "~4.1"\n[tool.poetry.group.dev.dependencies]\nmypy = "*"\n'}, ("flask", "humanize<4.2,>=4.1")),
    ("Conda", {"environment.yml": "name: x\nchannels:\n  - conda-forge\ndependencies:\n  - python=3.13\n  - conda-forge::flask\n  - openssl\n  - _libgcc_mutex=0.1=main\n  - pip\n  - pip:\n    - humanize>=4.0\n"}, ("flask", "humanize>=4.0")),
    ("Conda, as exported", {"environment.yaml": "dependencies:\n- flask=3.1.2=py313_0\n- humanize 4.9.*\n- libffi=3.4\n"}, ("flask==3.1.2", "humanize==4.9.*")),
    ("Conda with a list", {"environment.yml": "dependencies:\n  - pip:\n    - -r deps.txt\n", "deps.txt": "humanize\nflask\n"}, ("flask", "humanize")),
    ("Pipfile", {"Pipfile": '[packages]\nflask = "*"\nhumanize = ">=4.0"\n'}, ("flask", "humanize>=4.0")),
    ("setup.py", {"setup.py": "from setuptools import setup\nsetup(name='x', install_requires=[\n  'flask',  # ours\n  'humanize >= 4',\n])\n"}, ("flask", "humanize>=4")),
    ("setup.py with a name", {"setup.py": "REQ = ['flask', 'humanize']\nsetup(install_requires=REQ)\n"}, ("flask", "humanize")),
    ("setup.cfg", {"setup.cfg": "[options]\ninstall_requires =\n    flask\n    # sizes\n    humanize\n[other]\na = b\n"}, ("flask", "humanize")),
    ("the project itself", {"requirements.txt": "-e .\n", "setup.py": "setup(install_requires=['flask', 'humanize'])\n"}, ("flask", "humanize")),
    ("a dynamic list", {"pyproject.toml": '[project]\nname = "x"\ndynamic = ["dependencies"]\n[tool.setuptools.dynamic]\ndependencies = {file = ["deps/run.txt"]}\n', "deps/run.txt": "flask\nhumanize\n"}, ("flask", "humanize")),
    ("an empty list beside another", {"requirements.txt": "# none\n", "pyproject.toml": '[project]\nname = "x"\ndependencies = ["flask", "humanize"]\n'}, ("flask", "humanize")),
]  # fmt: skip


@pytest.mark.parametrize(("files", "wanted"), [row[1:] for row in LISTS], ids=[row[0] for row in LISTS])
def test_a_list_in_any_form_says_what_is_installed(files: Files, wanted: tuple[str, ...]) -> None:
    found = python(files)
    assert found is not None
    # the server that its start command brings is asked for too, so that it fits
    assert (found.manager, tuple(line for line in found.wanted if line != "gunicorn"), found.private) == (
        "uv",
        wanted,
        False,
    )


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"render.yaml": "services:\n- type: web\n  startCommand: cd backend && uvicorn main:app --port $PORT\n", "backend/main.py": FASTAPI, "backend/requirements.txt": "fastapi\nuvicorn\nhumanize==4.9\n"}, ("fastapi", "humanize==4.9", "uvicorn")),
        ({"web app/main.py": FASTAPI, "web app/requirements.txt": "fastapi\nhumanize==4.9\n", "index.html": "<p>", "tools/x.py": ""}, ("fastapi", "humanize==4.9", "uvicorn")),
        ({"README.md": "", "api/src/app.py": FLASK + "import humanize\n", "api/pyproject.toml": '[project]\nname = "x"\ndependencies = ["flask", "humanize<5"]\n', "web/index.html": "<p>", "web/package.json": "{}"}, ("flask", "gunicorn", "humanize<5")),
        ({"web/manage.py": "import django\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site.settings')\n", "web/site/settings.py": "", "web/requirements/base.txt": "django\nhumanize==4.9\n"}, ("django", "humanize==4.9")),
        ({"app.py": FLASK + "import humanize\n", "environment/requirements.txt": "flask\nhumanize<5\n"}, ("flask", "gunicorn", "humanize<5")),
        ({"Procfile": "web: gunicorn server.app:app\n", "server/app.py": FLASK + "import humanize\n", "server/requirements.txt": "flask\nhumanize==1\n", "requirements.txt": "flask\nhumanize==2\ngunicorn\n"}, ("flask", "gunicorn", "humanize==2")),
        ({"README.md": "", "requirements.txt": "black\nhumanize==1\n", "server/app.py": FLASK + "import humanize\n", "server/Pipfile": '[packages]\nflask = "*"\nhumanize = "==2"\n'}, ("flask", "gunicorn", "humanize==2")),
    ],
    ids=["where a command goes first", "in a folder that is no package", "above what is started", "beside manage.py", "the only one, anywhere", "a command at the root has the root’s", "else the nearest"],
)  # fmt: skip
def test_a_list_lies_where_what_is_started_lies(files: Files, wanted: tuple[str, ...]) -> None:
    decision = decided(files)
    assert decision.install is not None
    assert decision.install.wanted == wanted
    assert not any("no list says" in note for note in decision.notes)


def test_what_a_list_below_the_root_names_beside_itself_is_found_from_the_root() -> None:
    install = decided(
        {
            "api/app.py": FLASK + "import own\n",
            "api/requirements.txt": "-r more.txt\n./lib\n",
            "api/more.txt": "flask\n",
            "api/lib/setup.py": "",
            "README.md": "",
            "docs/x.md": "",
        }
    ).install
    assert install is not None
    assert "./api/lib" in install.wanted
    assert install.private


def test_what_is_part_of_python_is_not_looked_for_in_a_registry() -> None:
    decision = decided(
        {"app.py": FLASK + "import sqlite3, humanize\n", "requirements.txt": "flask\nsqlite3\nuuid==1.30\nhumanize\n"}
    )
    assert decision.install is not None
    assert decision.install.wanted == ("flask", "gunicorn", "humanize")
    assert "sqlite3 is part of Python and not installed" in decision.notes


def test_a_script_may_say_in_its_own_header_what_it_needs() -> None:
    header = (
        '# /// script\n# requires-python = ">=3.11"\n# dependencies = [\n#   "flask",\n#   "humanize>=4",\n# ]\n# ///\n'
    )
    found = python({}, header + FLASK + "import humanize\n")
    assert found is not None and {"flask", "humanize>=4"} <= set(found.wanted)


def test_without_a_list_the_imports_are_one_and_it_is_said() -> None:
    decision = decided(
        {"app.py": FLASK + "import humanize, yaml\ntry:\n    import lxml\nexcept ImportError:\n    pass\n"}
    )
    assert decision.install is not None
    assert decision.install.wanted == ("flask", "gunicorn", "humanize", "pyyaml")
    assert "read from the imports" in decision.notes[-1] and "humanize" in decision.notes[-1]
    with pytest.raises(DependenciesMissing, match="helpers"):
        decided({"app.py": FLASK + "import helpers\n"})


@pytest.mark.parametrize(
    "files",
    [
        {"pyproject.toml": '[project]\nname="x"\ndependencies = ["flask", "humanize"]\n', "uv.lock": UV},
        {"pyproject.toml": '[tool.poetry.dependencies]\nflask = "*"\nhumanize = "*"\n', "poetry.lock": POETRY},
        {"Pipfile": '[packages]\nflask = "*"\nhumanize = "*"\n', "Pipfile.lock": '{"default": {"humanize": {"version": "==4.9.0"}, "own": {"path": "."}}}'},
        {"requirements.txt": "flask\nhumanize\n-c constraints.txt\n", "constraints.txt": "humanize==4.9.0\n"},
    ],
)  # fmt: skip
def test_a_lock_binds_versions(files: Files) -> None:
    found = python(files)
    assert found is not None and found.constraints == ("humanize==4.9.0",)


def test_another_version_than_the_templates_is_installed_to_the_letter() -> None:
    for line in ("flask==2.0.3", "flask<3", "flask==3.0.*"):
        found = python({"requirements.txt": f"{line}\n"}, FLASK)
        assert found is not None and line in found.wanted
    locked: Files = {
        "pyproject.toml": '[project]\nname="x"\ndependencies = ["flask"]\n',
        "uv.lock": UV.replace("Humanize", "flask").replace("4.9.0", "2.3.3"),
    }
    assert python(locked, FLASK) is not None
    assert python({**locked, "uv.lock": UV.replace("Humanize", "flask").replace("4.9.0", "3.0.2")}, FLASK) is None


def test_what_nothing_uses_may_be_left_out_and_so_may_what_the_template_has_nearly_so() -> None:
    found = python(
        {"requirements.txt": "flask\nhumanize\nopenpyxl-extra\npillow==9.5.0\nlxml\n"},
        FLASK + "import humanize, PIL\nsoup(page, 'lxml')\n",
    )
    assert found is not None and found.optional == ("openpyxl-extra", "pillow")


def test_a_tool_that_only_a_task_of_the_author_names_is_not_installed() -> None:
    tasks = "import subprocess\nsubprocess.run(['coverage', 'run', '-m', 'pytest'])\nsubprocess.run(['black', '.'])\n"
    found = python(
        {"requirements.txt": "flask\nhumanize\ncoverage==7.3.2\npytest\nblack==22.1\n", "run_tests.py": tasks}
    )
    assert found is not None and found.wanted == ("flask", "gunicorn", "humanize")
    found = python({"requirements.txt": "flask\ncoverage==7.3.2\n"}, FLASK + "import coverage\n")
    assert found is not None and "coverage==7.3.2" in found.wanted and "coverage" not in found.optional


def test_an_extra_that_nobody_knows_is_looked_up_by_installing_it() -> None:
    found = python({"requirements.txt": "flask[fancy]\n"}, FLASK)
    assert found is not None and found.wanted == ("flask[fancy]", "gunicorn")


def test_what_lies_in_the_archive_belongs_to_its_source_alone() -> None:
    for line in ("-e ./lib/thing", "./lib/thing", "thing @ file:./lib/thing"):
        found = python({"requirements.txt": f"flask\n{line}\n", "lib/thing/setup.py": "setup()"}, FLASK)
        assert found is not None and found.private and "./lib/thing" in found.wanted
    found = python(
        {
            "pyproject.toml": '[project]\nname="x"\ndependencies=["flask", "thing"]\n[tool.uv.sources]\nthing = {path = "lib/thing"}\n'
        },
        FLASK,
    )
    assert found is not None and found.private and "./lib/thing" in found.wanted


def test_what_no_registry_has_is_refused_with_what_would_do() -> None:
    with pytest.raises(DependenciesMissing) as caught:
        python({"requirements.txt": "flask\ngit+https://host/x/thing.git@main\n"})
    assert "name==1.2" in str(caught.value.hint)


def test_a_list_with_hashes_is_read_by_who_installs() -> None:
    found = python({"requirements.txt": "flask==3.1.2 \\\n  --hash=sha256:00\nhumanize==4.9 --hash=sha256:11\n"})
    assert found is not None and found.files == ("requirements.txt",)


def test_an_included_file_that_is_not_there_is_told_with_its_line() -> None:
    with pytest.raises(BadRequirements, match=r"line 2 of requirements\.txt names ‘prod\.txt’"):
        python({"requirements.txt": "flask\n-r prod.txt\n"})


def test_another_index_is_passed_over_and_said() -> None:
    decision = decided({"app.py": FLASK, "requirements.txt": "--extra-index-url https://x/simple\nflask\nhumanize\n"})
    assert any("--extra-index-url" in note for note in decision.notes)


@pytest.mark.parametrize(
    ("package", "wanted"),
    [
        ({"dependencies": {"express": "^5"}}, False),
        ({"dependencies": {"express": "^4.18.2"}}, True),
        ({"dependencies": {"express": "^5.1.0", "nanoid": "^5"}}, True),
        ({"dependencies": {"express": "5.0.1"}}, True),
        ({"dependencies": {"express": "*"}, "devDependencies": {"eslint": "9", "nodemon": "3"}}, False),
        ({"devDependencies": {"express": "4"}}, True),
    ],
)
def test_a_node_app_is_installed_where_the_template_is_not_in_its_ranges(
    package: dict[str, object], wanted: bool
) -> None:
    found = node(package)
    assert (found is not None) is wanted
    if found is not None:
        assert (found.manager, found.files, found.private) == ("npm", ("package.json",), False)
        assert found.development is ("devDependencies" in package)


@pytest.mark.parametrize(
    ("files", "manager", "asked"),
    [
        ({"package-lock.json": "{}"}, "npm", None),
        ({"pnpm-lock.yaml": ""}, "pnpm", None),
        ({"yarn.lock": ""}, "yarn", None),
        ({"bun.lock": "{}"}, "bun", None),
        ({"bun.lock": "{}", "package-lock.json": "{}"}, "npm", None),
        ({"yarn.lock": "", "package-lock.json": "{}"}, "npm", "npm@11.0.0"),
        ({}, "pnpm", "pnpm@10.2.0+sha512.0"),
    ],
)
def test_the_manager_is_the_lock_files_or_who_is_named(files: dict[str, str], manager: str, asked: str | None) -> None:
    package: dict[str, object] = {"dependencies": {"nanoid": "5"}, **({"packageManager": asked} if asked else {})}
    found = node(package, "require('nanoid'); require('http').createServer().listen(1)", **files)
    assert found is not None and found.manager == manager
    assert len(found.files) == 1 + bool(files)


@pytest.mark.parametrize(
    ("path", "lock"),
    [
        ("pnpm-lock.yaml", "importers:\n\n  .:\n    dependencies:\n      express:\n        specifier: '>=4'\n        version: %s(a@1.0.0)\n"),
        ("yarn.lock", '# yarn lockfile v1\n\n"express@>=4", express@^4:\n  version "%s"\n'),
        ("yarn.lock", '__metadata:\n  version: 8\n\n"express@npm:>=4":\n  version: %s\n  resolution: "express@npm:%s"\n'),
        ("bun.lock", '{\n  "packages": {\n    "express": ["express@%s", "", {}, "sha512-x"],\n  },\n}'),
    ],
)  # fmt: skip
def test_every_managers_lock_tells_a_template_of_another_interface(path: str, lock: str) -> None:
    package: dict[str, object] = {"dependencies": {"express": ">=4"}}
    assert node(package, **{path: lock.replace("%s", "4.21.0")}) is not None
    assert node(package, **{path: lock.replace("%s", "5.2.0")}) is None


@pytest.mark.parametrize(
    ("files", "private"),
    [
        ({".npmrc": "legacy-peer-deps=true\n# //x\nregistry = https://registry.example/\n"}, False),
        ({".npmrc": "@ours:registry=https://npm.example/\n"}, True),
        ({".npmrc": "//npm.example/:_authToken=${TOKEN}\n"}, True),
        ({".yarnrc.yml": "nodeLinker: pnp\n\nyarnPath: .yarn/releases/yarn-4.0.2.cjs\n"}, False),
        ({".yarnrc.yml": "plugins:\n  - path: .yarn/plugins/x.cjs\n"}, True),
        ({".yarnrc": 'yarn-path ".yarn/releases/yarn-1.22.19.cjs"\n'}, False),
        ({"pnpm-workspace.yaml": "onlyBuiltDependencies:\n  - esbuild\n"}, False),
        ({"pnpm-workspace.yaml": "packages:\n  - packages/*\n"}, True),
        ({"pnpm-workspace.yaml": "overrides:\n  ms: file:./ms\n"}, True),
        ({".pnpmfile.cjs": "module.exports = {}"}, True),
    ],
)
def test_settings_that_concern_nobody_else_leave_a_layer_to_be_shared(files: dict[str, str], private: bool) -> None:
    found = node({"dependencies": {"express": "^4"}}, **files)
    assert found is not None and found.private is private


@pytest.mark.parametrize(
    "more",
    [{"resolutions": {"ms": "patch:ms@2#./ms.patch"}}, {"overrides": {"ms": {"x": "file:./x"}}}, {"pnpm": {"patchedDependencies": {"ms@2": "ms.patch"}}}],
)  # fmt: skip
def test_a_patch_belongs_to_its_source(more: dict[str, object]) -> None:
    found = node({"dependencies": {"express": "^4"}, **more})
    assert found is not None and found.private


def test_a_lock_of_npms_tells_a_template_of_another_interface() -> None:
    lock = '{"packages": {"node_modules/express": {\n "version": "%s"}}}'
    package: dict[str, object] = {"dependencies": {"express": ">=4"}}
    assert node(package, **{"package-lock.json": lock % "4.21.0"}) is not None
    assert node(package, **{"package-lock.json": lock % "5.2.0"}) is None


@pytest.mark.parametrize(
    "more",
    [
        {"scripts": {"postinstall": "node build.js", "start": "node server.js"}},
        {"workspaces": ["packages/*"]},
        {"dependencies": {"nanoid": "5", "own": "file:./own"}},
        {"dependencies": {"nanoid": "5", "own": "someone/own"}},
    ],
)
def test_what_more_than_the_registry_decides_belongs_to_its_source_alone(more: dict[str, object]) -> None:
    found = node({"dependencies": {"nanoid": "5"}, **more})
    assert found is not None and found.private


def test_without_a_package_json_the_imports_say_what_a_node_app_needs() -> None:
    decision = decided(
        {"server.mjs": "import {nanoid} from 'nanoid'\nimport express from 'express'\nexpress().listen(3000)\n"}
    )
    assert decision.install == Install("node", "npm", wanted=("express", "nanoid"))
    assert "read from the imports" in decision.notes[-1]


def test_a_server_in_a_folder_with_a_package_json_of_its_own_has_what_that_declares() -> None:
    files: Files = {
        "package.json": json.dumps({"scripts": {"start": "cd server && node index.js"}, "dependencies": {"vite": "6"}}),
        "server/package.json": json.dumps({"dependencies": {"express": "^4.18.2", "dotenv": "*"}}),
        "server/index.js": EXPRESS,
    }
    assert decided(files).install == Install("node", "npm", wanted=("dotenv", "express@^4.18.2"), optional=("dotenv",))


def test_a_worker_and_a_host_that_cannot_install_are_refused_as_ever() -> None:
    with pytest.raises(DependenciesMissing):
        decided({"worker.js": "import x from 'left-pad'\nexport default { fetch() { return new Response(x) } }\n"})
    with pytest.raises(DependenciesMissing):
        classify(table_of({"app.py": FLASK + "import humanize\n"}), None, TEMPLATES)


@pytest.mark.parametrize(
    ("text", "version", "inside"),
    [
        ("^5", "5.1.0", True), ("^5.2", "5.1.0", False), ("~1.2.3", "1.2.9", True), ("~1.2.3", "1.3.0", False), ("^0.2.3", "0.3.0", False),
        ("^0.2.3", "0.2.9", True), ("^0.0.3", "0.0.4", False), (">=1.2 <3", "2.9.9", True), (">=1.2 <3", "3.0.0", False), ("1.x || 3.x", "3.4.5", True),
        ("1 - 2", "2.9.0", True), ("1 - 2.3", "2.4.0", False), ("5.1.0", "5.1.0", True), ("=5.1.0", "5.1.1", False), ("v5.1.0", "5.1.0", True),
        ("latest", "1.0.0", True), ("", "1.0.0", True), (">2", "2.9.9", False), (">2", "3.0.0", True), ("<=2", "2.9.9", True), ("^1.0.0-rc.1", "1.0.0", True),
        ("^0", "0.9.0", True), ("^0.0", "0.1.0", False), ("^5", "6.0.0-rc.1", False),
    ],
)  # fmt: skip
def test_a_range_is_read_as_npm_reads_it(text: str, version: str, inside: bool) -> None:
    assert npm_ranges.allows(text, version) is inside


def test_a_long_list_beside_long_files_keeps_nobody_waiting() -> None:
    listed = "flask\n" + "".join(f"a-package-{number}\n" for number in range(8_000))
    source = FLASK + "word = a_package_7 or 'a-package-9'\n" + "a_packag e_thing = other + words\n" * 6_000
    found = python({"requirements.txt": listed}, source)
    assert found is not None and {"a-package-7", "a-package-9"}.isdisjoint(found.optional)
    assert "a-package-8" in found.optional


UV_MEMBER = '[project]\nname = "x"\nversion = "1"\ndependencies = ["flask", "shared"]\n[tool.uv.sources]\nshared = { workspace = true }\n'
UV_ROOT = '[tool.uv.workspace]\nmembers = ["libs/*", "apps/*"]\n'
SHARED = {
    "libs/shared/pyproject.toml": '[project]\nname = "Shared"\nversion = "1"\n',
    "libs/shared/src/shared/__init__.py": "",
}


@pytest.mark.parametrize(
    "files",
    [
        {"pyproject.toml": UV_MEMBER + UV_ROOT},
        {"pyproject.toml": UV_ROOT, "apps/api/pyproject.toml": UV_MEMBER, "apps/api/app.py": FLASK + "app.run()\n", "app.py": ""},
        {"pyproject.toml": UV_ROOT + "[tool.uv.sources]\nshared = { workspace = true }\n", "apps/api/pyproject.toml": UV_MEMBER.partition("[tool")[0], "apps/api/app.py": FLASK + "app.run()\n", "app.py": ""},
        {"pyproject.toml": '[project]\nname = "x"\ndependencies = ["flask", "shared @ file:///${PROJECT_ROOT}/libs/shared"]\n'},
        {"pyproject.toml": '[project]\nname = "x"\ndependencies = ["flask", "shared @ {root:uri}/libs/shared"]\n'},
        {"requirements.txt": "flask\n-e libs/shared\n"},
    ],
    ids=["uv workspace", "its member", "the root says where", "PDM", "Hatch", "-e"],
)  # fmt: skip
def test_a_package_of_the_project_itself_is_installed_from_its_folder(files: Files) -> None:
    found = python({**SHARED, **files})
    assert found is not None
    assert found.private
    assert [line for line in found.wanted if line.startswith(".")] == ["./libs/shared"]


@pytest.mark.parametrize(
    ("listed", "module"),
    [("gunicorn==20.0.4", "gunicorn.app.wsgiapp"), ("gunicorn==19.9.0", "gunicorn.app.wsgiapp"), ("gunicorn==20.1.0", "gunicorn"), ("gunicorn", "gunicorn")],
)  # fmt: skip
def test_a_gunicorn_that_is_no_module_that_runs_is_started_by_its_command_line(listed: str, module: str) -> None:
    files: Files = {
        "Procfile": "web: gunicorn app:app",
        "app.py": FLASK,
        "requirements.txt": f"flask==1.1.2\n{listed}\n",
    }
    assert decided(files).argv == ("python3", "-m", module, "app:app")
