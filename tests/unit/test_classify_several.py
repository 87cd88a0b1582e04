# ruff: noqa: E501 (tables of inputs)
"""Of several servers the one that the evidence favours is started, and it is said; a tie is refused with the list."""

from __future__ import annotations

import pytest
from classify_trees import TEMPLATES, table_of

from vibed.classify import halves
from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.classify.errors import AmbiguousProject, NotAWebApp

Files = dict[str, str | bytes]
FLASK = "from flask import Flask\nsite = Flask(__name__)\n"
STREAMLIT = "import streamlit as st\nst.title('x')\n"
NODE = "require('http').createServer().listen(3000)\n"
GO = 'package main\nimport "net/http"\nfunc main() { http.ListenAndServe(":8080", nil) }\n'
TWO: Files = {"shop.py": FLASK, "club.py": FLASK}


def decided(files: Files) -> Decision:
    return classify(table_of(files))


TOLD: list[tuple[str, str]] = [
    ("README.md", "# Club\n\n```sh\npip install -r requirements.txt\npython club.py\n```\n"),
    ("README.md", "Run `flask --app club run` and open it"),
    ("Makefile", "run:\n\tgunicorn -w 4 --bind 0.0.0.0:8000 club:site\n"),
    ("run.sh", "#!/bin/sh\nexec python3 -u ./club.py --verbose\n"),
    ("run.bat", "@echo off\r\npython club.py\r\n"),
    ("docker-compose.yml", "services:\n  web:\n    command: [\"python\", \"club.py\"]\n"),
    (".devcontainer/devcontainer.json", '{"postAttachCommand": {"server": "streamlit run club.py --server.enableCORS false"}}'),
]  # fmt: skip


@pytest.mark.parametrize(("file", "text"), TOLD, ids=[f"{row[0]} {at}" for at, row in enumerate(TOLD)])
def test_the_server_that_something_starts_is_taken_and_it_is_said(file: str, text: str) -> None:
    found = decided({file: text, **TWO})
    assert "club:site" in found.command
    assert f", of several the one that {file} starts," in found.why
    assert "‘shop.py’ would serve as well" in found.notes[0]


def test_a_tie_is_refused_with_the_list_and_how_to_name_one() -> None:
    for more in ({}, {"README.md": "python club.py, or python shop.py"}):
        with pytest.raises(AmbiguousProject, match=r"‘club.py’, ‘shop.py’ could each be the server") as refused:
            decided({**TWO, **more})
        assert "entrypoint, for example ‘club.py’" in str(refused.value.hint)
        assert refused.value.extra["candidates"] == ["club.py", "shop.py"]


def test_tests_and_what_another_server_imports_are_no_servers_of_their_own() -> None:
    found = decided({"Chatbot.py": STREAMLIT, "app_test.py": STREAMLIT, "pages/1_File.py": STREAMLIT})
    assert found.argv[4] == "Chatbot.py"
    assert decided({"shop.py": FLASK + "import club\n", "club.py": FLASK}).argv[-1] == "shop:site"


def test_what_is_written_down_comes_before_a_usual_name() -> None:
    found = decided(
        {"app.py": FLASK, "dashboard_of_club.py": STREAMLIT, "README.md": "streamlit run dashboard_of_club.py"}
    )
    assert found.argv[4] == "dashboard_of_club.py"
    assert decided({"app.py": FLASK, "dashboard_of_club.py": STREAMLIT}).argv[-1] == "app:site"


def test_below_the_root_the_folder_of_the_server_is_found_by_what_it_is_called() -> None:
    found = decided({"backend/app.py": FLASK, "ml/app.py": FLASK, "a.txt": ""})
    assert found.argv[-1] == "backend.app:site"
    assert found.notes[0].startswith("‘ml/app.py’ would serve as well")
    with pytest.raises(AmbiguousProject, match=r"‘chat/app.py’, ‘image/app.py’ could each be the server"):
        decided({"chat/app.py": FLASK, "image/app.py": FLASK, "a.txt": ""})
    readme = "cd image\npip install flask\n\n`cd image && python app.py`"
    assert decided({"chat/app.py": FLASK, "image/app.py": FLASK, "README.md": readme}).argv[-1] == "image.app:site"


def test_of_a_python_and_a_node_server_the_one_that_is_started_is_taken() -> None:
    both: Files = {"app.py": FLASK, "server.js": NODE}
    with pytest.raises(AmbiguousProject, match="nothing says which is started"):
        decided(both)
    node = decided({**both, "README.md": "Start it: `node server.js`"})
    assert (node.argv, node.notes) == (
        ("node", "server.js"),
        ("app.py is a server as well: README.md starts server.js",),
    )
    assert decided({**both, "Makefile": "run:\n\tpython3 app.py\n"}).argv[-1] == "app:site"


def test_of_several_node_files_the_one_that_is_started_is_taken() -> None:
    files: Files = {"shop.js": NODE, "club.js": NODE, "package.json": "{}", "README.md": "node club.js"}
    assert decided(files).argv == ("node", "club.js")


def test_of_several_go_programs_the_one_that_is_built_is_taken() -> None:
    files: Files = {"go.mod": "module x/y\n", "cmd/shop/main.go": GO, "cmd/club/main.go": GO}
    with pytest.raises(AmbiguousProject) as refused:
        decided(files)
    assert "entrypoint, for example ‘cmd/club/main.go’" in str(refused.value.hint)
    for file, text in (
        ("Makefile", "run:\n\tgo run ./cmd/club\n"),
        ("README.md", "go run cmd/club/main.go"),
        ("Dockerfile", "FROM golang\nRUN go build -o /bin/x ./cmd/club\n"),
    ):
        assert decided({**files, file: text}).entrypoint == "go build ./cmd/club"


def test_below_the_root_a_file_of_any_name_that_starts_a_server_is_one() -> None:
    server = "class Web:\n    def __init__(self): self.app = Flask(__name__)\n\ndef main(): Web().app.run()\n"
    web = f"from flask import Flask\nfrom src import client\n{server}if __name__ == '__main__':\n    main()\n"
    files: Files = {"src/weather_web.py": web, "src/__init__.py": "", "src/client.py": "", "debug.py": "print(input())"}
    assert "‘src/weather_web.py’ is a Python server (Flask)" in decided(files).why
    # a part of one that nobody starts, and a test, are none
    part = "from flask import Flask\napp = Flask(__name__)\n"
    with pytest.raises(NotAWebApp):
        decided({"src/parts.py": part, "tests/web.py": web, "debug.py": "print(input())"})
    # nor is what a library brings for those who make one of it
    library = "from werkzeug.serving import run_simple\ndef main(): run_simple('', 80, x)\nif __name__ == '__main__': main()\n"
    with pytest.raises(NotAWebApp):
        decided({"src/shop/cli.py": library, "src/shop/__init__.py": "", "pyproject.toml": '[project]\nname = "shop"'})


def test_a_folder_deep_inside_is_no_server_by_its_name_alone() -> None:
    files: Files = {"go.mod": "module x/y\n", "basic/main.go": GO, "websocket/server/main.go": GO, "upload/main.go": GO}
    with pytest.raises(AmbiguousProject):
        decided(files)


def test_a_collection_of_apps_is_one_whatever_lies_beside_it() -> None:
    files: Files = {f"{name}/app.js": NODE for name in ("blog", "cookies", "csrf", "upload")}
    with pytest.raises(AmbiguousProject, match="‘blog’, ‘cookies’, ‘csrf’, ‘upload’ look like several"):
        decided({**files, "package.json": '{"dependencies": {"koa": "2"}}'})


VITE = {
    "index.html": "<div id=root></div><script type=module src=/src/main.jsx></script>",
    "src/main.jsx": "import React from 'react'\n",
    "package.json": '{"scripts": {"build": "vite build"}, "devDependencies": {"vite": "7"}, "dependencies": {"react": "19"}}',
}


@pytest.mark.parametrize(
    ("files", "folder", "kind"),
    [
        ({"portfolio/index.html": "<p>", "portfolio/404.html": "<p>", "skills/seo/SKILL.md": ""}, "portfolio/", "static"),
        ({"app/bin/www": NODE, "app/package.json": '{"scripts": {"start": "node bin/www"}}', "compose.yml": "", "default.env": "", "docs/plan.md": ""}, "app/", "node"),
        ({"site/pages/index.html": "<p>", "site/pages/more.html": "<p>", "notes.txt": "", "tests/main.py": "print(1)"}, "site/pages/", "static"),
        ({**{f"client/{path}": text for path, text in VITE.items()}, "notes.txt": "", "tools/app.py": "print(1)"}, "client/", "static"),
        ({**{f"front/{path}": text for path, text in VITE.items()}, "back/package.json": '{"scripts": {"start": "node server.js"}}', "back/yarn.lock": ""}, "front/", "static"),
    ],
    ids=["pages", "a server of Node’s", "two deep, beside tests", "pages that are built", "beside a list alone"],
)  # fmt: skip
def test_the_only_folder_that_holds_an_app_is_the_app(files: Files, folder: str, kind: str) -> None:
    decision = classify(table_of(files), None, TEMPLATES, installs=("python", "node", "build"))
    assert (decision.kind, decision.strip) == (kind, folder)
    assert f"the app is in ‘{folder.rstrip('/')}’, the only folder that holds one" in decision.notes[0]


EXPRESS: Files = {
    "package.json": '{"scripts": {"start": "node src/index.js"}, "dependencies": {"express": "5"}}',
    "src/index.js": "require('express')().listen(3001)\n",
}


@pytest.mark.parametrize("pages", [VITE, {"index.html": "<p>Hello"}], ids=["a front end", "a page"])
def test_beside_pages_the_only_folder_that_holds_a_server_is_the_app(pages: Files) -> None:
    server: Files = {f"one/{path}": text for path, text in EXPRESS.items()}
    files: Files = {
        **server,
        **{f"two/{path}": text for path, text in pages.items()},
        "README.md": "",
        "run.sh": "echo",
    }
    decision = classify(table_of(files), None, TEMPLATES, installs=("python", "node", "build"))
    assert (decision.kind, decision.strip, decision.entrypoint) == ("node", "one/", "node src/index.js")
    assert "the only folder that holds a server" in decision.notes[0]
    assert "vibed deploy two" in decision.notes[0]
    # one that serves the other's pages needs the whole, and of two servers none is the one
    serves = {**files, "one/src/index.js": f"{EXPRESS['src/index.js']!s}use('../../two/dist')\n"}
    for other in (serves, files | {f"three/{path}": text for path, text in EXPRESS.items()}):
        with pytest.raises(AmbiguousProject):
            classify(table_of(other), None, TEMPLATES, installs=("python", "node", "build"))


def test_of_several_folders_or_one_that_says_nothing_none_is_taken() -> None:
    client: Files = {f"client/{path}": text for path, text in VITE.items()}
    with pytest.raises(AmbiguousProject, match="‘server’, ‘client/web’ look like several"):
        decided({**{f"client/web/{path}": text for path, text in VITE.items()}, "server/pom.xml": "", "notes.txt": ""})
    with pytest.raises(AmbiguousProject, match="‘client’, ‘server’ look like several"):
        decided({**client, "server/Gemfile": "", "notes.txt": ""})
    with pytest.raises(AmbiguousProject, match="‘server’ looks like one"):
        decided({"server/package.json": "{}", "notes.txt": "", "more.txt": ""})


def test_a_component_in_one_of_several_projects_does_not_speak_for_all() -> None:
    rx = "import reflex as rx\napp = rx.App()\n"
    apps: Files = {
        f"{name}/{file}": text
        for name in ("chat", "todo")
        for file, text in (("rxconfig.py", rx), ("requirements.txt", "reflex"))
    }
    with pytest.raises(AmbiguousProject, match="‘chat’, ‘todo’ look like several"):
        decided({**apps, "chat/chat/hello.jsx": "export default () => <p/>", "README.md": ""})


def test_however_many_rules_ask_which_folders_hold_a_server_it_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    served = halves._served
    monkeypatch.setattr(halves, "_served", lambda p: looked.append(p.tree.strip) or served(p))
    files: Files = {"api/server.js": NODE, "web/index.html": "<p>hi", "docs.html": "<p>"}
    with pytest.raises(AmbiguousProject):
        decided({**files, "more/app.py": FLASK})
    assert sorted(looked) == sorted(set(looked))
