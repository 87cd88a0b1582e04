# ruff: noqa: E501 (tables of inputs)
"""What a start command comes to: run where it says, with everything that it runs, without what only wraps it."""

from __future__ import annotations

import json

import pytest
from classify_trees import TEMPLATES, table_of

from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.classify.errors import ClassifyError

Files = dict[str, str | bytes]

SERVER = "require('http').createServer((q, r) => r.end('x')).listen(3000)\n"
WORKER = "setInterval(() => console.log('x'), 1000)\n"
TYPED = "import http from 'node:http'\nhttp.createServer((q, r) => r.end('x')).listen(3000)\n"
FLASK = "from flask import Flask\napp = Flask(__name__)\n"
FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
GO: Files = {
    "go.mod": "module x/hello",
    "main.go": 'package main\nimport "net/http"\nfunc main() { http.ListenAndServe(":8080", nil) }\n',
}
DJANGO: Files = {
    "manage.py": "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site1.settings')\nimport django\n",
    "site1/settings.py": "STATIC_ROOT = 'x'\nSTORAGES = 'whitenoise.storage.CompressedManifestStaticFilesStorage'\n",
    "site1/wsgi.py": "application = 1",
}


def pkg(start: str = "", **fields: object) -> str:
    scripts = fields.pop("scripts", {})
    assert isinstance(scripts, dict)
    return json.dumps({"scripts": {**({"start": start} if start else {}), **scripts}, **fields})


def decided(files: Files) -> Decision:
    return classify(table_of(files), None, TEMPLATES)


def start(text: str, files: Files, **scripts: str) -> Decision:
    """Of a project with this start script."""
    return decided({"package.json": pkg(text, scripts=scripts), **files})


def web(line: str, files: Files) -> Decision:
    """Of a project with this web line in its Procfile."""
    return decided({"Procfile": f"web: {line}\n", **files})


IN_SERVER: Files = {
    "server/index.js": SERVER,
    "server/package.json": pkg("node index.js", name="api", scripts={"dev": "nodemon ."}),
    "public/index.html": "<p>",
}


@pytest.mark.parametrize(
    "text",
    [
        "cd server && node index.js", "cd ./server; node .", "npm start --prefix server", "npm --prefix ./server run dev", "npm run -w api start",
        "npm start --workspace=server", "yarn --cwd server start", "yarn workspace api start", "pnpm -C server start", "pnpm --filter api run dev",
        "npm --prefix server exec nodemon index.js", "cd server && npm start", "bun run --cwd server start",
    ],
)  # fmt: skip
def test_a_start_script_runs_where_it_says(text: str) -> None:
    found = start(text, IN_SERVER)
    assert (found.rule, found.shell, found.expected_ports) == ("node-start", "cd server && exec node index.js", (3000,))


@pytest.mark.parametrize(
    ("line", "argv", "shell"),
    [
        ("gunicorn --chdir backend main:app", "python3 -m gunicorn --chdir backend main:app", None),
        ("uvicorn --app-dir backend main:app", "python3 -m uvicorn --app-dir backend main:app", None),
        ("cd backend && gunicorn main:app", "", "cd backend && gunicorn main:app"),
        ("uv run --directory backend gunicorn main:app", "", "cd backend && exec python3 -m gunicorn main:app"),
    ],
)
def test_a_procfile_runs_where_it_says(line: str, argv: str, shell: str | None) -> None:
    files: Files = {"backend/main.py": FLASK + "import shop_of_nobody\n", "backend/shop_of_nobody.py": "", "a.txt": ""}
    found = web(line, files)
    assert (" ".join(found.argv), found.shell) == (argv, shell)


@pytest.mark.parametrize(
    ("text", "shell"),
    [
        ("node worker.js & node server.js", "node worker.js & exec node server.js"),
        ("node worker.js & node server.js & wait", "node worker.js & exec node server.js"),
        ('concurrently "node worker.js" "npm:serve"', "node worker.js & exec node server.js"),
        ("concurrently -n a,b 'npm run work' 'npm run serve'", "X=1 node worker.js & exec node server.js"),
        ("npm-run-all --parallel work serve", "X=1 node worker.js & exec node server.js"),
        ("run-p work serve", "X=1 node worker.js & exec node server.js"),
        ("run-p 'part:*'", "node worker.js & exec node server.js"),
        ("(node worker.js) & node server.js", None),
    ],
)
def test_every_process_of_a_start_script_runs(text: str, shell: str | None) -> None:
    scripts = {
        "work": "X=1 node worker.js",
        "serve": "node server.js",
        "part:a": "node worker.js",
        "part:b": "nodemon server.js",
    }
    found = start(text, {"worker.js": WORKER, "server.js": SERVER}, **scripts)
    assert found.shell == shell
    assert found.notes == ()


@pytest.mark.parametrize(
    ("text", "argv", "notes"),
    [
        ("module.exports = { apps: [{ name: 'api', script: './server.js', instances: 'max' }] }", "node server.js", ()),
        ("module.exports = {apps: [{script: 'npm', args: 'run serve'}]}", "node server.js", ()),
        (
            'module.exports = {"apps": [{"script": "server.js"}, {"script": "python", "args": "jobs.py"}]}',
            "node server.js",
            ("not started here: ‘python jobs.py’ of the start script",),
        ),
    ],
)
def test_what_a_file_of_pm2_names_is_started_and_not_the_file(text: str, argv: str, notes: tuple[str, ...]) -> None:
    files: Files = {"server.js": SERVER, "ecosystem.config.js": text}
    found = start("pm2-runtime start ecosystem.config.js", files, serve="node server.js")
    assert (" ".join(found.argv), found.notes) == (argv, notes)


def test_what_is_not_started_beside_the_server_is_told() -> None:
    found = start('concurrently "tailwindcss -w" "node server.js"', {"server.js": SERVER})
    assert found.argv == ("node", "server.js")
    assert found.notes == ("not started here: ‘tailwindcss -w’ of the start script",)


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("node server.js | pino-pretty", "node server.js"),
        ("npm run build && npm run serve", "node server.js"),
        ("run-s build serve", "node server.js"),
        ("node --run serve", "node server.js"),
        ("node .", "node server.js"),
        ("pm2-runtime start server.js -i max", "node server.js"),
        ("npx nodemon --exec 'node --inspect' server.js", "node server.js"),
        ("nodemon --ignore public/ --ignore client/ server.js", "node server.js"),
        ("nodemon -w client -e js,json server", "node server.js"),
        ("nodemon --watch client --exec 'node server.js'", "node server.js"),
        ("tsx --watch server.js", "node server.js"),
        ("ts-node -r ./client server.js", "node server.js"),
        ("pm2 start --name client server.js", "node server.js"),
        ("npm run serve -- --port $PORT", "node server.js --port 8080"),
        ("node --env-file=.env server.js", "node --env-file-if-exists=.env server.js"),
        ("dotenv -e .env.local -- node server.js", "node --env-file-if-exists=.env.local server.js"),
        ("node --import=tsx server.js", "node server.js"),
        ("sh go.sh", "sh go.sh"),
    ],
)
def test_a_start_script_is_followed(text: str, argv: str) -> None:
    files: Files = {
        "package.json": pkg(text, scripts={"build": "tsc", "serve": "node server.js"}, main="server.js"),
        "server.js": SERVER,
        "go.sh": "node server.js",
        "client/index.js": "document.title = 'x'",
    }
    assert " ".join(decided(files).argv) == argv


def test_what_is_not_run_before_the_start_is_told() -> None:
    found = start("tailwindcss -o out.css && node server.js", {"server.js": SERVER})
    assert found.argv == ("node", "server.js")
    assert found.notes == ("not run before the start: ‘tailwindcss -o out.css’",)


def test_npm_start_without_a_script_is_server_js() -> None:
    assert web("npm start", {"package.json": "{}", "server.js": SERVER}).argv == ("node", "server.js")


@pytest.mark.parametrize(
    "text",
    [
        "make serve",
        "node $(cat entry)",
        "fastify start app.js",
        "docker compose up",
        "cd nowhere && node x.js",
        "node gone.js",
    ],
)
def test_a_start_script_that_cannot_be_followed_is_no_static_site(text: str) -> None:
    with pytest.raises(ClassifyError, match="start script") as caught:
        start(text, {"app.js": "module.exports = async (fastify) => {}", "pages/index.html": "<p>"})
    assert caught.value.error_code == "NoEntrypoint"


@pytest.mark.parametrize(
    ("text", "reason", "cure"),
    [
        ("cd web && python3 server.py", "‘web/server.py’ is not in the archive", "send that file"),
        ("node gone.js", "‘gone.js’ is not in the archive", "send that file"),
        ("fastify start app.js", "the package fastify-cli, which package.json does not name", "add fastify-cli"),
        ("nest start", "comes with the package @nestjs/cli", "add @nestjs/cli to the dependencies"),
        ("make serve", "the template does not have ‘make’", "let it start a file of the archive"),
    ],
)
def test_what_a_start_script_lacks_is_said_with_what_to_change(text: str, reason: str, cure: str) -> None:
    with pytest.raises(ClassifyError, match="start script") as caught:
        start(
            text, {"app.js": "module.exports = async (fastify) => {}", "web/style.css": "x", "pages/index.html": "<p>"}
        )
    assert reason in caught.value.message
    assert cure in str(caught.value.hint)


@pytest.mark.parametrize(
    "text", ["node $ENTRY", "sleep 1; NODE_PATH=lib node lib/x.mjs", "mkdir -p data && ./bin/serve"]
)
def test_a_start_script_of_what_is_there_runs_as_it_is(text: str) -> None:
    found = (
        start(text, {"lib/x.js": "x", "bin/serve": "#!/bin/sh\n", "pages/index.html": "<p>"})
        if "lib/x.mjs" not in text
        else None
    )
    assert found is None or (found.rule, found.shell) == ("node-start", text)


@pytest.mark.parametrize(
    "text",
    [
        "vite",
        "npx @11ty/eleventy --serve",
        "python3 -m http.server -d public",
        "live-server public",
        "echo nothing",
        "npx sirv-cli public",
        "open public/index.html",
        "python -m SimpleHTTPServer",
    ],
)
def test_pages_that_a_tool_serves_are_a_site(text: str) -> None:
    assert start(text, {"public/index.html": "<p>"}).kind == "static"


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("node dist/index.js", {"src/index.ts": TYPED}),
        ("node build/server/main.js", {"server/main.ts": TYPED}),
        ("node api/dist/app.js", {"api/src/app.ts": TYPED, "api/package.json": "{}"}),
    ],
)
def test_what_was_compiled_from_typescript_that_node_runs_needs_no_build(text: str, files: Files) -> None:
    found = start(text, files, build="tsc")
    assert found.argv == ("node", next(iter(files)))
    assert "started from its source" in found.notes[0]


def test_a_development_script_that_runs_as_it_is_does_for_a_start_script_that_is_not_built() -> None:
    found = start("node dist/main.js", {"src/s.ts": TYPED}, build="tsc", dev="tsx watch src/s.ts")
    assert found.argv == ("node", "src/s.ts")
    assert "dist/main.js" in found.notes[0]


def test_a_script_that_only_starts_a_tool_gives_way_to_the_built_pages() -> None:
    files: Files = {"scripts/start.js": "require('webpack-dev-server')\nnew S().listen(1)\n", "dist/index.html": "<p>"}
    assert start("node scripts/start.js", files).root == "dist/"
    assert (
        start("node go.js", {"go.js": "require('child_process').spawn('vite', [])\n", "dist/index.html": "<p>"}).root
        == "dist/"
    )
    with_vite: Files = {"server.js": SERVER + "if (dev) require('vite')\n", "dist/index.html": "<p>"}
    package = pkg("node server.js", dependencies={"express": "^5"}, devDependencies={"vite": "^7"})
    assert decided({"package.json": package, **with_vite}).argv == ("node", "server.js")


WRAPPED = [
    ("uv run gunicorn app:app", "gunicorn app:app"),
    ("uv run --no-dev --extra web --with gunicorn -- gunicorn app:app", "gunicorn app:app"),
    ("poetry run gunicorn app:app", "gunicorn app:app"),
    ("pipenv run gunicorn app:app", "gunicorn app:app"),
    ("pdm run -p . gunicorn app:app", "gunicorn app:app"),
    ("doppler run -- gunicorn app:app", "gunicorn app:app"),
    ("exec env -u X gunicorn app:app", "gunicorn app:app"),
    ("dumb-init -- gunicorn app:app", "gunicorn app:app"),
    ("uv run -m gunicorn app:app", "gunicorn app:app"),
    ("pipenv run serve", "gunicorn app:app"),
    ("pdm run serve", "flask --app app run"),
    ("uv run shop", "-c from app import app; app()"),
]


@pytest.mark.parametrize(("line", "module"), WRAPPED)
def test_what_only_starts_another_program_is_taken_off(line: str, module: str) -> None:
    files: Files = {
        "app.py": FLASK,
        "Pipfile": "[scripts]\nserve = 'gunicorn app:app'\n" if line.startswith("pipenv") else "",
        "pyproject.toml": "[tool.pdm.scripts]\nserve = {cmd = 'flask --app app run'}\n[project.scripts]\nshop = 'app:app'\n",
    }
    found = web(line, files)
    assert " ".join(found.argv) == f"python3 {'' if module.startswith('-c') else '-m '}{module}"


def test_wrappers_are_taken_off_inside_of_a_shell_command() -> None:
    found = web("python init.py && uv run gunicorn app:app -b :$PORT", {"app.py": FLASK, "init.py": ""})
    assert found.shell == "python init.py && gunicorn app:app -b :$PORT"
    found = web("cd api && poetry run fastapi run", {"api/main.py": FASTAPI, "a.txt": ""})
    assert found.shell == "cd api && python3 -m uvicorn main:app --host 0.0.0.0 --port 8080"


def test_a_file_of_variables_that_a_wrapper_reads_is_read() -> None:
    found = web("dotenv run -- gunicorn app:app", {"app.py": FLASK, ".env": "A=1"})
    assert found.argv[:7] == ("python3", "-m", "dotenv", "-f", ".env", "run", "--")
    assert found.notes == ()
    assert web("A=1 dotenv run -- gunicorn app:app", {"app.py": FLASK}).argv[2] == "gunicorn"


@pytest.mark.parametrize(
    ("line", "files", "served"),
    [
        ("fastapi run", {"main.py": FASTAPI}, "main:app --host 0.0.0.0 --port 8080"),
        ("fastapi run app/main.py --port 9000 --workers 2", {"app/__init__.py": "", "app/main.py": FASTAPI + "from app.db import x\n", "app/db.py": "", "a": ""}, "app.main:app --host 0.0.0.0 --port 9000 --workers 2"),
        ("uv run fastapi dev src/api.py --app shop", {"src/api.py": FASTAPI.replace("app =", "shop =") + "import db\n", "src/db.py": "", "a": ""}, "api:shop --host 0.0.0.0 --port 8080 --app-dir src"),
        ("hypercorn main:app --bind 0.0.0.0:9000", {"main.py": FASTAPI}, "main:app --host 0.0.0.0 --port 9000"),
        ("daphne -p $PORT shop.asgi:application", {"shop/asgi.py": FASTAPI, "a": ""}, "shop.asgi:application --host 0.0.0.0 --port 8080"),
    ],
)  # fmt: skip
def test_a_server_that_the_template_lacks_is_replaced_by_its_own(line: str, files: Files, served: str) -> None:
    assert " ".join(web(line, files).argv) == f"python3 -m uvicorn {served}"


def test_fastapi_with_extras_is_served_without_them() -> None:
    found = decided(
        {
            "Dockerfile": 'CMD ["fastapi", "run", "api/it.py"]',
            "api/it.py": FASTAPI,
            "requirements.txt": "fastapi[standard]",
            "a": "",
        }
    )
    assert found.argv[:4] == ("python3", "-m", "uvicorn", "api.it:app")


@pytest.mark.parametrize(
    ("line", "files", "rule"),
    [
        ("./target/release/app", {"app.py": FLASK}, "python-server"),
        ("alembic upgrade head && gunicorn app:app", {"app.py": FLASK}, "python-server"),
    ],
)
def test_a_program_that_a_build_would_have_made_gives_way_and_is_told(line: str, files: Files, rule: str) -> None:
    found = web(line, files)
    assert found.rule == rule
    assert "the web line of its Procfile names" in found.notes[0]


def test_a_program_that_is_not_there_is_named_where_nothing_else_starts() -> None:
    with pytest.raises(ClassifyError, match="names ‘bin/app’, which is not there"):
        web("bin/app", {"notes.txt": ""})


@pytest.mark.parametrize(
    "line", ["gunicorn site1.wsgi --log-file -", "uvicorn site1.asgi:application", "sh -c 'gunicorn site1.wsgi'"]
)
def test_a_django_project_is_prepared_whoever_says_how_it_starts(line: str) -> None:
    assert web(line, DJANGO).build == (("python3", "manage.py", "collectstatic", "--noinput"),)


def test_what_a_command_does_itself_is_not_done_before_it() -> None:
    assert web("python manage.py collectstatic --noinput && gunicorn site1.wsgi", DJANGO).build == ()
    assert web("python manage.py runserver 0.0.0.0:$PORT", DJANGO).build == ()


@pytest.mark.parametrize(
    ("files", "notes"),
    [
        ({"Procfile": "web: gunicorn app:app\nwsgi: app:app\n"}, ()),
        ({"Procfile": "web: gunicorn app:app\nclock: python clock.py\n"}, ("not started here: clock of the Procfile",)),
        ({"ENV": "A=1"}, ("nothing reads ‘ENV’: pass the variables that the app needs of it as env",)),
        ({".env": "A=1"}, ("nothing reads ‘.env’: pass the variables that the app needs of it as env",)),
        ({".env": "A=1", "settings.py": "load_dotenv = dotenv.load_dotenv()"}, ()),
    ],
)
def test_what_is_left_out_is_told(files: Files, notes: tuple[str, ...]) -> None:
    assert decided({"app.py": FLASK, **files}).notes == notes


@pytest.mark.parametrize(
    ("script", "package", "argv"),
    [
        ("fastify start -l info app.js", "fastify-cli", ("fastify", "start", "-l", "info", "app.js")),
        ("NODE_ENV=production npx fastify start app.js", "fastify-cli", ("fastify", "start", "app.js")),
        ("json-server --watch db.json", "json-server", ("json-server", "--watch", "db.json")),
    ],
)
def test_a_command_that_a_dependency_brings_is_a_command(script: str, package: str, argv: tuple[str, ...]) -> None:
    files: Files = {
        "package.json": pkg(script, dependencies={package: "*"}),
        "app.js": "module.exports = async (app) => { app.get('/', () => 'x') }\n",
        "db.json": "{}",
        "public/index.html": "<p>x",
    }
    found = classify(table_of(files))
    assert (found.rule, found.argv) == ("node-start", argv)


def test_a_command_that_no_dependency_brings_is_none() -> None:
    files: Files = {"package.json": pkg("fastify start app.js"), "app.js": SERVER}
    assert decided(files).argv == ("node", "app.js")


def test_a_file_of_pm2s_in_json_is_followed_too() -> None:
    told = json.dumps({"apps": [{"name": "api", "script": "src/index.js", "instances": 1}]})
    found = start(
        "cross-env NODE_ENV=production pm2 start ecosystem.config.json --no-daemon",
        {"ecosystem.config.json": told, "src/index.js": SERVER},
    )
    assert (found.argv, found.env) == (("node", "src/index.js"), {"NODE_ENV": "production"})
