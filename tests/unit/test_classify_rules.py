# ruff: noqa: E501 (one row of the table a line)
"""The classifier's table: what is in the archive, and what becomes of it. Reads like docs/reference/classifier.md."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from classify_trees import TEMPLATES, Asked, table_of

import vibed.classify.errors as errors
from vibed.classify.classifier import classify
from vibed.classify.errors import ClassifyError, DependenciesMissing
from vibed.classify.python_source import Sources
from vibed.classify.rules import RULES
from vibed.classify.tree import Tree

DOCS = Path(__file__).parents[2] / "docs/reference/classifier.md"

FLASK = "from flask import Flask\napp = Flask(__name__)\n\n@app.route('/')\ndef index():\n    return 'hello'\n"
MAIN = "\nif __name__ == '__main__':\n    app.run(port=3000)\n"
FASTAPI = "from fastapi import FastAPI\n\napp = FastAPI()\n"
EXPRESS = "const express = require('express')\nconst app = express()\napp.get('/', (q, r) => r.send('hi'))\napp.listen(3000)\n"
HTTP = "import http from 'node:http'\nhttp.createServer((q, r) => r.end('hi')).listen(process.env.PORT)\n"
WORKER = "export default { async fetch(request, env) { return new Response('hi') } }\n"
MANAGE = "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site1.settings')\nimport django\n"
MODELS = "from django.db import models\nclass Post(models.Model):\n    title = models.TextField()\n"
BABEL = '<div id="root"></div><script src="https://unpkg.com/@babel/standalone/babel.min.js"></script><script type="text/babel" src="App.jsx"></script>'
COMPOSE = """services:
  # ours
  api:
    build: .
    environment:
      - TITLE=x
  redis:
    image: redis:7
volumes:
  data:
"""
PAGE = "<!doctype html><title>hi</title><script src='app.js'></script>"
BUILT = '<div id="root"></div><script type="module" src="/assets/index-abc.js"></script>'
VITE_PAGE = '<div id="root"></div><script type="module" src="/src/main.tsx"></script>'
GO = 'package main\n\nimport "net/http"\n\nfunc main() { http.ListenAndServe(":8080", nil) }\n'
ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00" + bytes(100)
GUNICORN = "python3 -m gunicorn -b 0.0.0.0:8080 --threads 8 "
UVICORN_END = " --host 0.0.0.0 --port 8080"


def pkg(**fields: object) -> str:
    return json.dumps(fields)


NO_CSS = "DEBUG is False, Django’s own server serves no CSS: add WhiteNoise and gunicorn to the requirements"
HOSTS = "ALLOWED_HOSTS of site1.settings does not name it: it answers to its own name all the same"
ELSE = "use what the template python-313 has (vibed templates), or put the packages into the archive"
DATABASE = "apps here have no network out, so that no database server can be reached: use SQLite, and leave "


@dataclass
class Row:
    """One line of the table: the files, and what is decided (only what is named is compared)."""

    what: str
    files: dict[str, str | bytes]
    rule: str
    expected: dict[str, object] = field(default_factory=dict)


ROWS = [
    # --- static
    Row("one page", {"index.html": PAGE}, "index-page", {"kind": "static", "root": "", "spa": False, "template": "static-nginx"}),
    Row("a wrapped page", {"my-site/index.html": PAGE, "my-site/app.js": ""}, "index-page", {"strip": "my-site/", "root": ""}),
    Row("wrapped twice, with a readme", {"README.md": "x", "a/b/index.html": PAGE}, "index-page", {"strip": "a/b/"}),
    Row("what macOS leaves behind", {"__MACOSX/._x": "", "site/.DS_Store": "", "site/index.html": PAGE}, "index-page", {"strip": "site/"}),
    Row("public/", {"public/index.html": PAGE, "notes.txt": "", "a/b.txt": ""}, "site-folder", {"root": "public/", "index": "index.html"}),
    Row("one page of another name", {"report.html": PAGE, "data.csv": "a,b"}, "single-page", {"index": "report.html", "spa": False}),
    Row("a wrapped page of another name", {"x/report.html": PAGE}, "single-page", {"strip": "x/", "index": "report.html"}),
    Row("several pages with index.html", {"index.html": PAGE, "about.html": PAGE}, "index-page", {"spa": False}),
    Row("a built single-page app", {"index.html": BUILT, "assets/index-abc.js": ""}, "index-page", {"spa": True}),
    Row("a page from a system that writes names large", {"INDEX.HTML": PAGE, "ABOUT.HTML": PAGE}, "index-page", {"kind": "static", "root": "", "index": "INDEX.HTML"}),
    Row("the same in a folder", {"site/Index.HTM": PAGE, "x.txt": ""}, "site-folder", {"kind": "static", "root": "site/", "index": "Index.HTM"}),
    Row("React that Babel compiles in the browser", {"index.html": BABEL, "App.jsx": "export default () => <p/>"}, "index-page", {"kind": "static"}),
    Row("Netlify redirects", {"index.html": "<p>", "_redirects": "/*  /index.html  200\n"}, "index-page", {"spa": True}),
    Row("built for GitHub Pages", {"index.html": BUILT.replace("/assets", "/repo/assets"), "assets/index-abc.js": ""}, "index-page", {"base": "/repo/"}),
    Row("dist/ beside its source", {"package.json": pkg(scripts={"build": "vite build"}, devDependencies={"vite": "^7"}), "index.html": VITE_PAGE, "src/main.tsx": "", "dist/index.html": BUILT}, "built-site", {"root": "dist/", "spa": True}),
    Row("build/ of Create React App", {"package.json": pkg(scripts={"start": "react-scripts start"}, dependencies={"react-scripts": "5"}), "public/index.html": "%PUBLIC_URL%", "build/index.html": BUILT}, "built-site", {"root": "build/"}),
    Row("Angular", {"package.json": pkg(devDependencies={"@angular/cli": "19"}), "src/index.html": "<app-root>", "dist/my-app/browser/index.html": "<app-root></app-root><script src=main.js>"}, "built-site", {"root": "dist/my-app/browser/"}),
    Row("serve dist", {"package.json": pkg(scripts={"start": "serve -s dist"}), "dist/index.html": BUILT}, "built-site", {"root": "dist/"}),
    Row("Next.js, exported", {"package.json": pkg(dependencies={"next": "15"}), "out/index.html": PAGE}, "node-framework", {"kind": "static", "root": "out/"}),
    Row("a page with development tools", {"package.json": pkg(scripts={"build": "tailwindcss -o out.css"}, devDependencies={"tailwindcss": "4"}), "index.html": "<link href='out.css' rel=stylesheet>", "out.css": ""}, "index-page"),
    Row("a page and a script that is no server", {"index.html": PAGE, "scrape.py": "import requests\nprint(requests.get('x'))\n"}, "index-page"),
    Row("a service worker beside a page", {"index.html": PAGE, "sw.js": "self.addEventListener('fetch', e => e.respondWith(caches.match(e.request)))"}, "index-page"),
    Row("only assets in wrangler's file", {"wrangler.jsonc": '{"name": "x", /* c */ "assets": {"directory": "./public", "not_found_handling": "single-page-application"},}', "public/index.html": PAGE}, "worker-assets", {"kind": "static", "root": "public/", "spa": True}),
    Row("Pages output", {"wrangler.toml": 'pages_build_output_dir = "dist"\n', "dist/index.html": PAGE}, "worker-assets", {"root": "dist/"}),
    # --- workers
    Row("worker.js", {"worker.js": WORKER}, "worker-module", {"kind": "worker", "entrypoint": "worker.js", "bundle": False, "template": "workerd"}),
    Row("wrangler.toml", {"wrangler.toml": 'main = "src/index.ts"\ncompatibility_date = "2026-01-01"\n[vars]\nGREETING = "hi"\n', "src/index.ts": WORKER}, "worker-config", {"entrypoint": "src/index.ts", "bundle": True, "options": {"compatibility_date": "2026-01-01", "vars": {"GREETING": "hi"}}}),
    Row("an unquoted date", {"wrangler.toml": 'main = "w.js"\ncompatibility_date = 2026-01-01\n', "w.js": WORKER}, "worker-config", {"options": {"compatibility_date": "2026-01-01"}}),
    Row("entry in scripts.dev", {"wrangler.toml": 'name = "x"\n', "package.json": pkg(scripts={"dev": "wrangler dev --port 8787 src/app.ts"}), "src/app.ts": WORKER}, "worker-config", {"entrypoint": "src/app.ts"}),
    Row("entry in package.json", {"wrangler.toml": 'name = "x"\n', "package.json": pkg(main="./lib/w.mjs"), "lib/w.mjs": WORKER}, "worker-config", {"entrypoint": "lib/w.mjs"}),
    Row("entry by its name", {"wrangler.toml": 'name = "x"\n', "src/index.js": WORKER}, "worker-config", {"entrypoint": "src/index.js"}),
    Row("service worker form", {"worker.js": "addEventListener('fetch', e => e.respondWith(new Response('hi')))"}, "worker-module", {"bundle": False}),
    Row("Hono without a server", {"index.ts": "import { Hono } from 'hono'\nconst app = new Hono()\nexport default app\n", "package.json": pkg(dependencies={"hono": "^4"})}, "worker-module", {"bundle": True}),
    Row("worker with modules of its own", {"worker.js": "import { hi } from './lib/hi.js'\n" + WORKER, "lib/hi.js": "export const hi = 1"}, "worker-module", {"bundle": False}),
    Row("worker that imports without an extension", {"worker.js": "import { hi } from './hi'\n" + WORKER, "hi.js": "export const hi = 1"}, "worker-module", {"bundle": True}),
    Row("worker with assets", {"wrangler.jsonc": '{"main": "w.js", "assets": {"directory": "public", "binding": "ASSETS"}, "compatibility_flags": ["nodejs_compat"]}', "w.js": WORKER, "public/index.html": PAGE}, "worker-config", {"options": {"assets": {"directory": "public", "binding": "ASSETS"}, "compatibility_flags": ["nodejs_compat"]}}),
    Row("worker.js beside a page", {"worker.js": WORKER, "index.html": PAGE}, "worker-module"),
    # --- Python
    Row("app.py alone", {"app.py": FLASK + MAIN}, "python-server", {"kind": "python", "entrypoint": "python3 app.py", "lane": "general", "template": "python-313"}),
    Row("a __main__ block is run", {"app.py": FASTAPI + "import uvicorn\nif __name__ == \"__main__\":\n    uvicorn.run(app, port=5000)\n"}, "python-server", {"entrypoint": "python3 app.py"}),
    Row("WSGI without a __main__ block", {"app.py": FLASK}, "python-server", {"entrypoint": GUNICORN + "app:app"}),
    Row("ASGI without a __main__ block", {"main.py": FASTAPI}, "python-server", {"entrypoint": "python3 -m uvicorn main:app" + UVICORN_END}),
    Row("other object name", {"main.py": FASTAPI.replace("app =", "api: FastAPI =")}, "python-server", {"entrypoint": "python3 -m uvicorn main:api" + UVICORN_END}),
    Row("a factory", {"app.py": "from flask import Flask\ndef create_app():\n    return Flask(__name__)\n"}, "python-server", {"entrypoint": GUNICORN + "app:create_app()"}),
    Row("an ASGI factory", {"app.py": "from fastapi import FastAPI\ndef create_app():\n    return FastAPI()\n"}, "python-server", {"entrypoint": "python3 -m uvicorn app:create_app" + UVICORN_END + " --factory"}),
    Row("wsgi.py of a package", {"wsgi.py": "from shop import create_app\napp = create_app()\n", "shop/__init__.py": "from flask import Flask\ndef create_app(): return Flask('x')\n"}, "python-server", {"entrypoint": GUNICORN + "wsgi:app"}),
    Row("run.py that imports the app", {"run.py": "from shop import app\nif __name__ == '__main__':\n    app.run()\n", "shop/__init__.py": FLASK}, "python-server", {"entrypoint": "python3 run.py"}),
    Row("starts at the top level", {"main.py": "import uvicorn\n" + FASTAPI + "uvicorn.run(app)\n"}, "python-server", {"entrypoint": "python3 main.py"}),
    Row("a package in a folder", {"app/main.py": FASTAPI + "from app.db import x\n", "app/db.py": "x = 1", "requirements.txt": "fastapi\nuvicorn\n"}, "python-server", {"entrypoint": "python3 -m uvicorn app.main:app" + UVICORN_END}),
    Row("a package that wraps everything keeps its name", {"app/__init__.py": "", "app/main.py": FASTAPI + "from .db import x\n", "app/db.py": "x = 1"}, "python-server", {"strip": "", "entrypoint": "python3 -m uvicorn app.main:app" + UVICORN_END}),
    Row("a folder that is imported by its name keeps it", {"api/main.py": FASTAPI + "from api.db import x\n", "api/db.py": "x = 1"}, "python-server", {"strip": "", "entrypoint": "python3 -m uvicorn api.main:app" + UVICORN_END}),
    Row("src/ with plain imports", {"src/main.py": FASTAPI + "import db\n", "src/db.py": "", "requirements.txt": "fastapi"}, "python-server", {"entrypoint": "python3 -m uvicorn main:app" + UVICORN_END + " --app-dir src"}),
    Row("src/ with a package that is imported by its name", {"src/rooms/main.py": FASTAPI + "from rooms.api import x\n", "src/rooms/api.py": "x = 1", "pyproject.toml": "[project]\nname = 'rooms'\ndependencies = ['fastapi']\n"}, "python-server", {"entrypoint": "python3 -m uvicorn rooms.main:app" + UVICORN_END + " --app-dir src"}),
    Row("the same, for gunicorn", {"src/shop/app.py": FLASK + "import shop.db\n", "src/shop/db.py": "", "a.txt": ""}, "python-server", {"entrypoint": GUNICORN + "--pythonpath src shop.app:app"}),
    Row("the same, with a __main__ block", {"src/shop/app.py": FLASK + "import shop.db\n" + MAIN, "src/shop/db.py": "", "a.txt": ""}, "python-server", {"entrypoint": "python3 -m shop.app", "env": {"PYTHONPATH": "src"}}),
    Row("src/ that is imported by its name", {"src/shop/app.py": FLASK + "import src.shop.db\n", "src/shop/db.py": "", "a.txt": ""}, "python-server", {"entrypoint": GUNICORN + "src.shop.app:app"}),
    Row("a folder whose name is no word of Python's", {"web-app/main.py": FASTAPI, "web-app/requirements.txt": "fastapi", "index.html": PAGE}, "python-server", {"entrypoint": "python3 -m uvicorn main:app" + UVICORN_END + " --app-dir web-app"}),
    Row("the same, for gunicorn", {"my site/v1.0/app.py": FLASK, "index.html": PAGE}, "python-server", {"argv": (*GUNICORN.split(), "--pythonpath", "my site/v1.0", "app:app")}),
    Row("the same, as a package of itself", {"web-app/main.py": FASTAPI + "from .db import x\n", "web-app/db.py": "x = 1", "index.html": PAGE}, "python-server", {"entrypoint": "python3 -m uvicorn web-app.main:app" + UVICORN_END}),
    Row("a package in a folder of a monorepo", {"backend/app/main.py": FASTAPI + "from app.db import x\n", "backend/app/db.py": "x = 1", "README.md": "", "a.txt": ""}, "python-server", {"entrypoint": "python3 -m uvicorn app.main:app" + UVICORN_END + " --app-dir backend"}),
    Row("a thread beside the app", {"app.py": "import threading\n" + FLASK + "t = threading.Thread(target=print)\nt.start()\n"}, "python-server", {"entrypoint": GUNICORN + "app:app"}),
    Row("a thread beside the app, in one line", {"app.py": "import threading\n" + FLASK + "threading.Thread(target=print, daemon=True).start()\n"}, "python-server", {"entrypoint": GUNICORN + "app:app"}),
    Row("a scheduler beside the app", {"main.py": FASTAPI + "scheduler = BackgroundScheduler()\nscheduler.start()\n"}, "python-server", {"entrypoint": "python3 -m uvicorn main:app" + UVICORN_END}),
    Row("an observer of files beside the app", {"app.py": FLASK + "observer.start()\n"}, "python-server", {"entrypoint": GUNICORN + "app:app"}),
    Row("another program beside the app", {"app.py": FLASK + "subprocess.run(['ls'])\n"}, "python-server", {"entrypoint": GUNICORN + "app:app"}),
    Row("a server that is started", {"app.py": FLASK + "t.start()\nhttp_server.start()\n"}, "python-server", {"entrypoint": "python3 app.py"}),
    Row("a server that is started in one line", {"app.py": FLASK + "tornado.ioloop.IOLoop.current().start()\n"}, "python-server", {"entrypoint": "python3 app.py"}),
    Row("Streamlit in app.py", {"app.py": "import streamlit as st\nst.title('hi')\n", "requirements.txt": "streamlit==1.40.0\n"}, "python-server", {"entrypoint": "python3 -m streamlit run app.py --server.port 8080 --server.address 0.0.0.0 --server.headless true"}),
    Row("Streamlit with a __main__ block", {"app.py": "import streamlit as st\ndef main(): st.title('hi')\nif __name__ == '__main__':\n    main()\n"}, "python-server", {"entrypoint": "python3 -m streamlit run app.py --server.port 8080 --server.address 0.0.0.0 --server.headless true"}),
    Row("the standard library's server", {"server.py": "from http.server import HTTPServer, BaseHTTPRequestHandler\nHTTPServer(('', 8000), BaseHTTPRequestHandler).serve_forever()\n"}, "python-server", {"entrypoint": "python3 server.py"}),
    Row("with a with-block", {"server.py": "import http.server, socketserver\nwith socketserver.TCPServer(('', 8000), http.server.SimpleHTTPRequestHandler) as httpd:\n    print('x')\n    httpd.serve_forever()\n"}, "python-server", {"entrypoint": "python3 server.py"}),
    Row("aiohttp", {"main.py": "from aiohttp import web\napp = web.Application()\nweb.run_app(app)\n"}, "python-server", {"entrypoint": "python3 main.py"}),
    Row("the one server of another name", {"todo.py": FLASK + MAIN, "helpers.py": "x = 1\n"}, "python-server", {"entrypoint": "python3 todo.py"}),
    Row("a stray index.html beside Flask", {"app.py": FLASK + MAIN, "index.html": PAGE, "templates/index.html": PAGE}, "python-server"),
    Row("package.json with development tools only", {"app.py": FLASK + MAIN, "package.json": pkg(scripts={"build": "tailwindcss", "start": "vite"}, devDependencies={"tailwindcss": "4", "vite": "7"})}, "python-server"),
    Row("Django", {"manage.py": "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site1.settings')\nimport django\n", "site1/settings.py": "DEBUG = True\nENGINE = 'django.db.backends.sqlite3'\n", "site1/wsgi.py": "application = 1", "blog/migrations/0001.py": ""}, "django", {"entrypoint": "python3 manage.py runserver --noreload 0.0.0.0:8080", "build": (("python3", "manage.py", "migrate", "--noinput"),)}),
    Row("Django with DEBUG", {"manage.py": MANAGE, "site1/settings.py": "DEBUG = True\nALLOWED_HOSTS = []\n"}, "django", {"notes": ()}),
    Row("Django without DEBUG, for some hosts", {"manage.py": MANAGE, "site1/settings.py": "DEBUG = False\nALLOWED_HOSTS = ['localhost',\n    '127.0.0.1']\n"}, "django", {"notes": (NO_CSS, HOSTS)}),
    Row("Django without DEBUG, for no host", {"manage.py": MANAGE, "site1/settings.py": "DEBUG = False\nALLOWED_HOSTS = []\n"}, "django", {"notes": (NO_CSS, HOSTS)}),
    Row("Django without DEBUG, for every host", {"manage.py": MANAGE, "site1/settings.py": "DEBUG = False\nALLOWED_HOSTS = ['x.com', '.localhost']\n"}, "django", {"notes": (NO_CSS,)}),
    Row("Django with models without migrations", {"manage.py": MANAGE, "site1/settings.py": "DEBUG = True\n", "blog/models.py": MODELS, "blog/migrations/__init__.py": ""}, "django", {"notes": ("‘blog’: models without migrations, so that their tables are missing; run python manage.py makemigrations blog and deploy the files that it writes",)}),
    Row("Django with abstract models", {"manage.py": MANAGE, "site1/settings.py": "DEBUG = True\n", "blog/models.py": MODELS + "    class Meta:\n        abstract = True\n"}, "django", {"notes": ()}),
    Row("Django with WhiteNoise", {"manage.py": "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site1.settings')\nimport django\n", "site1/settings.py": "MIDDLEWARE = ['whitenoise.x']\nSTATIC_ROOT = 'x'\n", "site1/wsgi.py": "application = 1"}, "django", {"entrypoint": GUNICORN + "site1.wsgi:application", "build": (("python3", "manage.py", "collectstatic", "--noinput"),)}),
    Row("Django with Tailwind", {"manage.py": "import django\nsetdefault('DJANGO_SETTINGS_MODULE', 's.settings')", "package.json": pkg(scripts={"build": "tailwindcss"}), "index.html": PAGE}, "django"),
    Row("a daemon in gunicorn's configuration", {"app.py": FLASK, "gunicorn.conf.py": "daemon = True\n"}, "python-server", {"entrypoint": GUNICORN + "-c /dev/null app:app"}),
    Row("Procfile", {"Procfile": "release: x\nweb: gunicorn app:app --bind 0.0.0.0:$PORT\n", "app.py": FLASK}, "procfile", {"argv": ("python3", "-m", "gunicorn", "app:app", "--bind", "0.0.0.0:8080"), "shell": None}),
    Row("Procfile with other processes", {"Procfile": "release: python init.py\nweb: gunicorn app:app\nworker: python work.py\n", "app.py": FLASK}, "procfile", {"notes": ("not started here: release, worker of the Procfile",)}),
    Row("a compose file", {"docker-compose.yml": COMPOSE, "app.py": FLASK}, "python-server", {"notes": ("not started here: redis of docker-compose.yml; the environment in docker-compose.yml is not set; pass what the app needs of it as env",)}),
    Row("a compose file for the app alone", {"compose.yaml": "services:\n  web:\n    build: .\n    ports: ['80:80']\n", "app.py": FLASK}, "python-server", {"notes": ()}),
    Row("a front end that is not served", {"backend/main.py": FASTAPI, "frontend/package.json": pkg(devDependencies={"vite": "7"}), "frontend/src/main.tsx": ""}, "python-server", {"notes": ("‘frontend’ is a front end that the server does not serve: run npm run build in it and let the server serve the folder that this makes, or deploy that folder as an app of its own",)}),
    Row("a front end that is served", {"app.py": FLASK + "app.static_folder = 'frontend/dist'\n", "frontend/package.json": pkg(devDependencies={"vite": "7"}), "frontend/dist/index.html": BUILT}, "python-server", {"notes": ()}),
    Row("a driver of a database that nothing asks for", {"app.py": FLASK + "URI = 'sqlite:///x.db'\n", "x.db": "", "requirements.txt": "flask\npsycopg2-binary==2.9.9\n"}, "python-server", {"notes": ("psycopg2-binary==2.9.9 was asked for and is not there; nothing was seen that uses it",)}),
    Row("another name of the same distribution", {"app.py": FLASK + "import bs4\n", "requirements.txt": "flask\nbs4==0.0.2\n"}, "python-server", {"packages": ("flask", "beautifulsoup4")}),
    Row("Procfile that needs a shell", {"Procfile": "web: python manage.py migrate; gunicorn x.wsgi --bind :$PORT", "x.py": ""}, "procfile", {"shell": "python manage.py migrate; gunicorn x.wsgi --bind :$PORT", "kind": "python"}),
    Row("Procfile with python", {"Procfile": "web: python app.py", "app.py": FLASK + MAIN}, "procfile", {"argv": ("python3", "app.py")}),
    Row("Procfile with a script, beside Python", {"Procfile": "web: sh start.sh", "start.sh": "exec python3 x.py", "x.py": "x"}, "procfile", {"kind": "python", "argv": ("python3", "x.py")}),
    Row("Procfile with a script alone", {"Procfile": "web: sh start.sh", "start.sh": "busybox httpd"}, "procfile", {"kind": "binary", "template": "base-debian"}),
    Row("script of pyproject.toml that another file serves", {"pyproject.toml": "[project]\nname='x'\n[project.scripts]\nserve='shop:go'\n", "shop/__init__.py": "from .start_it import go\n", "shop/start_it.py": "from flask import Flask\ndef go():\n    app = Flask('x')\n    app.run()\n", "shop/x.txt": "", "README": ""}, "python-script", {"argv": ("python3", "-c", "from shop import go; go()")}),
    Row("an app that Vercel calls", {"api/index.js": EXPRESS + "module.exports = app\n", "vercel.json": "{}", "package.json": pkg(dependencies={"express": "5"})}, "host-file", {"kind": "node"}),
    Row("script of pyproject.toml", {"pyproject.toml": "[project]\nname='x'\ndependencies=['flask']\n[project.scripts]\nserve='shop.start_it:go'\n", "shop/start_it.py": "from flask import Flask\ndef go(): Flask('x').run()\n", "shop/x.txt": "", "README": ""}, "python-script", {"argv": ("python3", "-c", "from shop.start_it import go; go()")}),
    Row("a host's file", {"render.yaml": "services:\n  - type: web\n    startCommand: python tools/serve_it.py\n", "tools/serve_it.py": "x", "app.py": FLASK + MAIN}, "host-file", {"argv": ("python3", "tools/serve_it.py")}),
    Row("start command of a Dockerfile", {"Dockerfile": 'FROM python\nCMD ["python", "tools/serve_it.py"]\n', "tools/serve_it.py": "x", "a.txt": ""}, "dockerfile", {"argv": ("python3", "tools/serve_it.py")}),
    # --- Node
    Row("scripts.start", {"package.json": pkg(scripts={"start": "node server.js"}, dependencies={"express": "^5.0.0"}), "server.js": EXPRESS}, "node-start", {"kind": "node", "entrypoint": "node server.js", "template": "node-24"}),
    Row("start with flags and variables", {"package.json": pkg(scripts={"start": "NODE_ENV=production node --max-old-space-size=256 ./bin/www"}), "bin/www": EXPRESS}, "node-start", {"argv": ("node", "--max-old-space-size=256", "bin/www"), "env": {"NODE_ENV": "production"}}),
    Row("nodemon becomes node", {"package.json": pkg(scripts={"start": "nodemon app.js"}), "app.js": EXPRESS}, "node-start", {"entrypoint": "node app.js"}),
    Row("start that calls another script", {"package.json": pkg(scripts={"start": "npm run serve:it", "serve:it": "cross-env X=1 node app"}), "app.js": EXPRESS}, "node-start", {"entrypoint": "node app.js", "env": {"X": "1"}}),
    Row("two commands", {"package.json": pkg(scripts={"start": "node seed.js && node app.js"}), "app.js": EXPRESS, "seed.js": ""}, "node-start", {"shell": "node seed.js && exec node app.js", "argv": ()}),
    Row("build and start, already built", {"package.json": pkg(scripts={"start": "npm run build && node dist/app.js", "build": "tsc"}), "dist/app.js": EXPRESS}, "node-start", {"entrypoint": "node dist/app.js"}),
    Row("server.js alone", {"server.js": HTTP}, "node-entry", {"entrypoint": "node server.js"}),
    Row("main that exists", {"package.json": pkg(main="lib/go.js"), "lib/go.js": EXPRESS}, "node-entry", {"entrypoint": "node lib/go.js"}),
    Row("main that is missing", {"package.json": pkg(main="nope.js"), "index.js": EXPRESS}, "node-entry", {"entrypoint": "node index.js"}),
    Row("start is a development server", {"package.json": pkg(scripts={"start": "webpack serve"}), "server.js": HTTP}, "node-entry", {"entrypoint": "node server.js"}),
    Row("TypeScript", {"server.ts": HTTP}, "node-entry", {"entrypoint": "node server.ts"}),
    Row("dev: tsx", {"package.json": pkg(scripts={"dev": "tsx watch src/go.ts"}), "src/go.ts": HTTP}, "node-entry", {"entrypoint": "node src/go.ts", "env": {"NODE_ENV": "production"}}),
    Row("TypeScript with enums", {"server.ts": "enum A { B }\n" + HTTP}, "node-entry", {"entrypoint": "node --experimental-transform-types server.ts"}),
    Row("listens in a file that it imports", {"index.js": "require('./lib/web')", "lib/web.js": EXPRESS}, "node-entry", {"entrypoint": "node index.js"}),
    Row("Hono with its server", {"index.js": "import { serve } from '@hono/node-server'\nimport { Hono } from 'hono'\nconst app = new Hono()\nserve({ fetch: app.fetch })\nexport default app\n"}, "node-entry"),
    Row("a stray index.html beside Node", {"server.js": HTTP, "index.html": PAGE}, "node-entry"),
    Row("Express 4 without its old patterns", {"package.json": pkg(dependencies={"express": "^4.18.2"}, scripts={"start": "node a.js"}), "a.js": EXPRESS}, "node-start", {"notes": ("express@^4.18.2 was asked for; the template has 5.1.0",)}),
    Row("Express 4 with what is no route of it", {"package.json": pkg(dependencies={"express": "^4.18.2"}, scripts={"start": "node a.js"}), "a.js": EXPRESS + "db.all('SELECT count(*) FROM x')\n"}, "node-start"),
    Row("Express 4 with the patterns of 5", {"package.json": pkg(dependencies={"express": "^4.18.2"}, scripts={"start": "node a.js"}), "a.js": EXPRESS + "app.get('/{*path}', f); app.get('/u{/:id}', f)\n"}, "node-start"),
    # --- Go and programs
    Row("one app among the packages of a workspace", {"package.json": '{"workspaces": ["*"]}', "web/package.json": pkg(scripts={"start": "node s.js"}, dependencies={"lib": "*"}), "web/s.js": HTTP, "lib/package.json": pkg(name="lib")}, "workspace", {"shell": "cd web && exec node s.js"}),
    Row("Go", {"go.mod": "module x\n\ngo 1.22\n", "main.go": GO}, "go-server", {"kind": "go", "argv": ("/app/.vibed/app",), "build": (("go", "build", "-o", "/app/.vibed/app", "."),)}),
    Row("Go with embedded pages", {"go.mod": "module x\n", "main.go": GO, "index.html": PAGE, "package.json": pkg(scripts={"build": "x"})}, "go-server"),
    Row("main.go alone", {"main.go": GO}, "go-server", {"build": (("go", "mod", "init", "app"), ("go", "build", "-o", "/app/.vibed/app", "."))}),
    Row("cmd/", {"go.mod": "module x\n", "cmd/server/main.go": GO, "cmd/migrate/main.go": GO, "x.go": "package x"}, "go-server", {"build": (("go", "build", "-o", "/app/.vibed/app", "./cmd/server"),)}),
    Row("vendored modules", {"go.mod": "module x\nrequire github.com/gin-gonic/gin v1.10.0\n", "main.go": GO, "vendor/modules.txt": "# x"}, "go-server"),
    Row("a program", {"app": ELF, "data.txt": ""}, "program", {"kind": "binary", "argv": ("./app",), "template": "base-debian"}),
    Row("a program by its Procfile", {"Procfile": "web: ./server --port $PORT", "server": ELF}, "procfile", {"argv": ("./server", "--port", "8080"), "kind": "binary"}),
]  # fmt: skip

REFUSED = [
    # what, files, code, words of the message or hint
    ("Java", {"pom.xml": "", "src/main/resources/static/index.html": PAGE}, "UnsupportedRuntime", "Java"),
    ("Java with a front end", {"pom.xml": "", "index.html": PAGE, "package.json": pkg(scripts={"start": "vite"})}, "UnsupportedRuntime", "Java"),
    ("Rust", {"Cargo.toml": "", "src/main.rs": ""}, "UnsupportedRuntime", "musl"),
    (".NET", {"App.csproj": "", "Program.cs": ""}, "UnsupportedRuntime", ".NET"),
    ("PHP", {"index.php": "", "index.html": PAGE}, "UnsupportedRuntime", "PHP"),
    ("Ruby", {"Gemfile": "", "config.ru": ""}, "UnsupportedRuntime", "Ruby"),
    ("Ruby by its Procfile", {"Procfile": "web: bundle exec puma"}, "UnsupportedRuntime", "Ruby"),
    ("Bun", {"index.ts": "Bun.serve({ fetch() {} })", "package.json": pkg(scripts={"start": "bun index.ts"})}, "UnsupportedRuntime", "Bun"),
    ("Deno", {"deno.json": "{}", "main.ts": "Deno.serve(() => new Response())"}, "UnsupportedRuntime", "Deno"),
    ("a Python worker", {"wrangler.toml": 'main = "src/entry.py"', "src/entry.py": ""}, "UnsupportedRuntime", "FastAPI"),
    ("a program for ARM", {"app": ELF.replace(b"\x3e\x00", b"\xb7\x00")}, "UnsupportedRuntime", "x86-64"),
    ("newer Go", {"go.mod": "module x\ngo 1.25\n", "main.go": GO}, "UnsupportedRuntime", "1.25"),
    ("a notebook", {"analysis.ipynb": "{}", "data.csv": ""}, "NotAWebApp", "Streamlit"),
    ("a Python library", {"pyproject.toml": "[project]\nname='x'\n", "x/__init__.py": "", "x/a.py": ""}, "NotAWebApp", "library"),
    ("a command-line program", {"main.py": "import argparse\nprint(argparse.ArgumentParser().parse_args())"}, "NotAWebApp", "command-line"),
    ("a script that asks", {"main.py": "name = input('who?')\nprint(name)"}, "NotAWebApp", "Flask"),
    ("a script that prints", {"main.py": "import pandas as pd\nprint(pd.DataFrame())"}, "NotAWebApp", "‘main.py’ starts no server: it prints and ends"),
    ("a script of Node's that prints", {"index.js": "console.log(1)"}, "NotAWebApp", "‘index.js’ starts no server"),
    ("a desktop program", {"main.py": "import tkinter\ntkinter.Tk().mainloop()"}, "NotAWebApp", "desktop"),
    ("a chat bot", {"bot.py": "from telegram.ext import Application\nApplication().run_polling()"}, "NotAWebApp", "bot"),
    ("Electron", {"package.json": pkg(main="main.js", scripts={"start": "electron ."}, devDependencies={"electron": "33"}), "main.js": "app.whenReady()", "index.html": PAGE}, "NotAWebApp", "Electron"),
    ("a Node library", {"package.json": pkg(main="index.js"), "index.js": "module.exports = x => x"}, "NotAWebApp", "library"),
    ("a command-line program of Python's in src/", {"src/main.py": "import argparse\nargparse.ArgumentParser().parse_args()\n", "README.md": "", "a.txt": ""}, "NotAWebApp", "command-line program"),
    ("a library that brings a command", {"pyproject.toml": "[project]\nname='x'\n[project.scripts]\nx='x.cli:main'\n", "x/__init__.py": "", "x/cli.py": "import flask, click\ndef main():\n    cli.main()\n"}, "NotAWebApp", "library"),
    ("Reflex", {"rxconfig.py": "import reflex as rx\nconfig = rx.Config(app_name='shop')\n", "shop/shop.py": "import reflex as rx\napp = rx.App()\n"}, "BuildRequired", "NiceGUI"),
    ("a Node command", {"package.json": pkg(bin="cli.js"), "cli.js": "console.log(1)"}, "NotAWebApp", "command-line"),
    ("a Go command", {"go.mod": "module x", "main.go": 'package main\nimport "fmt"\nfunc main() { fmt.Println(1) }'}, "NotAWebApp", "net/http"),
    ("Vite, not built", {"package.json": pkg(scripts={"dev": "vite", "build": "vite build"}, devDependencies={"vite": "7"}), "index.html": VITE_PAGE, "src/main.tsx": ""}, "BuildRequired", "dist"),
    ("Create React App, not built", {"package.json": pkg(scripts={"start": "react-scripts start"}, dependencies={"react-scripts": "5"}), "public/index.html": "%PUBLIC_URL%"}, "BuildRequired", "vibed deploy build"),
    ("Astro, not built", {"package.json": pkg(scripts={"build": "astro build"}, dependencies={"astro": "5"}), "src/pages/index.astro": ""}, "BuildRequired", "dist"),
    ("Next.js", {"package.json": pkg(scripts={"build": "next build", "start": "next start"}, dependencies={"next": "15"}), "app/page.tsx": ""}, "BuildRequired", "not a static site"),
    ("SvelteKit", {"package.json": pkg(devDependencies={"@sveltejs/kit": "2", "vite": "7"}), "src/app.html": "<p>"}, "BuildRequired", "SvelteKit"),
    ("Jekyll", {"_config.yml": "", "Gemfile": "", "index.html": "---\nlayout: x\n---\n", "_posts/x.md": ""}, "BuildRequired", "_site"),
    ("Hugo", {"hugo.toml": "", "content/x.md": ""}, "BuildRequired", "public"),
    ("MkDocs", {"mkdocs.yml": "", "docs/index.md": ""}, "BuildRequired", "mkdocs build"),
    ("a page of TypeScript without a project", {"index.html": VITE_PAGE, "src/main.tsx": ""}, "BuildRequired", "cannot run"),
    ("a page for Babel without Babel", {"index.html": BABEL.replace("babel.min.js", "x.js").replace("@babel/", "")}, "BuildRequired", "cannot run"),
    ("a component alone", {"App.jsx": "export default () => <p/>"}, "BuildRequired", "Vite"),
    ("style sheet that a build makes", {"package.json": pkg(scripts={"build": "tailwindcss"}), "index.html": "<link href='dist/out.css'>"}, "BuildRequired", "out.css"),
    ("start of what is not built", {"package.json": pkg(scripts={"start": "node dist/index.js", "build": "tsc"}), "src/index.ts": "import './db'\n" + HTTP, "src/db.ts": ""}, "BuildRequired", "npm run build"),
    ("server of pages that are not built", {"package.json": pkg(scripts={"start": "node server.js", "build": "vite build"}, devDependencies={"vite": "7"}), "server.js": EXPRESS + "app.use(express.static('dist'))"}, "BuildRequired", "serves the pages"),
    ("TypeScript without extensions", {"server.ts": "import { x } from './db'\n" + HTTP, "db.ts": "export const x = 1"}, "BuildRequired", "./db"),
    ("TypeScript with decorators", {"server.ts": "@Controller('x')\nclass A {}\n" + HTTP}, "BuildRequired", "decorators"),
    ("functions of Vercel alone", {"api/index.js": "module.exports = (req, res) => res.end('x')\n", "vercel.json": "{}"}, "NotAWebApp", "‘api/index.js’ exports from a server.js"),
    ("a function alone", {"netlify/functions/hello.js": "exports.handler = async () => ({ statusCode: 200 })\n"}, "NotAWebApp", "another host"),
    ("functions in Python", {"api/index.py": "from http.server import BaseHTTPRequestHandler\nclass handler(BaseHTTPRequestHandler):\n    pass\n"}, "NotAWebApp", "HTTPServer"),
    ("an entry that is missing", {"wrangler.toml": 'main = "dist/worker.js"'}, "BuildRequired", "dist/worker.js"),
    ("assets that are missing", {"wrangler.toml": 'main = "w.js"\nassets = { directory = "dist" }', "w.js": WORKER}, "BuildRequired", "dist"),
    ("wrangler without an entry", {"wrangler.toml": 'name = "x"', "README.md": ""}, "NoEntrypoint", "main ="),
    ("a start script of a program that is not there", {"package.json": pkg(scripts={"start": "make serve"}), "pages/index.html": PAGE}, "NoEntrypoint", "make"),
    ("pictures", {"a.png": b"\x89PNG", "b.pdf": b"%PDF"}, "NoEntrypoint", "index.html"),
    ("one text", {"README.md": "# hi"}, "NoEntrypoint", "app.py"),
    ("two Python servers", {"one.py": FLASK + MAIN, "two.py": FLASK + MAIN}, "AmbiguousProject", "one.py"),
    ("Python and Node", {"app.py": FLASK + MAIN, "server.js": HTTP}, "AmbiguousProject", "python-313"),
    ("two folders", {"backend/app.py": "x = 1", "frontend/package.json": pkg(devDependencies={"vite": "7"}), "frontend/x.js": "", "backend/requirements.txt": ""}, "AmbiguousProject", "vibed deploy backend"),
    ("two Go programs", {"go.mod": "module x", "cmd/a/main.go": GO, "cmd/b/main.go": GO}, "AmbiguousProject", "cmd/a"),
    ("two programs", {"a": ELF, "b": ELF}, "AmbiguousProject", "Procfile"),
    ("missing Python packages", {"app.py": FLASK + "import cv2, torch\n", "requirements.txt": "flask\nopencv-python\ntorch==2.5\n"}, "DependenciesMissing", "opencv-python, torch==2.5"),
    ("missing Node packages", {"server.js": EXPRESS + "require('mongoose')\n", "package.json": pkg(dependencies={"express": "5", "mongoose": "^8"})}, "DependenciesMissing", "mongoose@^8"),
    ("missing Go modules", {"go.mod": "module x\nrequire (\n\tgithub.com/gin-gonic/gin v1.10.0\n)\n", "main.go": GO}, "DependenciesMissing", "go mod vendor"),
    ("missing packages of a worker", {"worker.js": "import x from 'left-pad'\n" + WORKER}, "DependenciesMissing", "left-pad"),
    ("prose in requirements", {"app.py": FLASK, "requirements.txt": "flask\nInstall these with pip!\n"}, "BadRequirements", "line 2"),
    ("a typing error in requirements", {"app.py": FLASK, "requirements.txt": "flask==1.4..3\n"}, "BadRequirements", "1.4..3"),
    ("a source in Markdown", {"app.py": "```python\n" + FLASK + "```\n"}, "BadSource", "between the fences"),
    ("package.json that is not JSON", {"package.json": "{", "server.js": HTTP}, "BadConfiguration", "package.json"),
    ("wrangler.toml that is not TOML", {"wrangler.toml": "main = ", "w.js": WORKER}, "BadConfiguration", "wrangler.toml"),
]  # fmt: skip


NEEDS = [
    # what, what app.py imports or the source, its requirements, all of the hint
    ("a pin", "import pandas\n", "pandas==1.5.3", "ask for `pandas` without the pin (the template has 2.3.3)"),
    ("two pins", "import pandas, django\n", "pandas<2\ndjango==4.2.11", "ask for `pandas` without the pin (the template has 2.3.3); ask for `django` without the pin (the template has 5.2.8)"),
    ("another name to import", "from fpdf import FPDF\n", "fpdf2==2.7", ELSE),
    ("the old distribution of that name", "from fpdf import FPDF\n", "fpdf", ELSE),
    ("one that is only named", "BeautifulSoup(page, 'lxml')\n", "lxml", "remove those that are not used (lxml … are imported nowhere that was looked at); otherwise " + ELSE),
    ("a service", "import openai\n", "openai", "apps here have no network out, so that bringing openai would not help: answer without it, or from data in the archive"),
    ("services that share a name", "from google.cloud import storage\nfrom google import genai\n", "google-cloud-storage\ngoogle-genai", "apps here have no network out, so that bringing google-cloud-storage, google-genai would not help: answer without them, or from data in the archive"),
    ("a service and others", "import stripe, lxml\n", "stripe\nlxml", "apps here have no network out, so that bringing stripe would not help: answer without it, or from data in the archive; for the others, " + ELSE),
    ("a database by its address", "create_engine('postgresql://u:p@db/x')\n", "psycopg2-binary", DATABASE + "psycopg2-binary out"),
    ("a database by a variable", "create_engine(os.environ['DATABASE_URL'])\n", "psycopg2", DATABASE + "psycopg2 out"),
    ("a driver that is imported", "import psycopg2\n", "psycopg2-binary", DATABASE + "psycopg2-binary out"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "requirements", "hint"), [row[1:] for row in NEEDS], ids=[row[0] for row in NEEDS])
def test_the_hint_says_what_would_help(source: str, requirements: str, hint: str) -> None:
    with pytest.raises(DependenciesMissing) as caught:
        classify(table_of({"app.py": FLASK + source, "requirements.txt": f"flask\n{requirements}\n"}), None, TEMPLATES)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("source", "change"),
    [
        ("app.get('*', f)", "‘/{*path}’ for ‘*’ in ‘a.js’"),
        ("app.get('/*', f)", "‘/{*path}’ for ‘/*’ in ‘a.js’"),
        ("app.options('(.*)', f)", "‘/{*path}’ for ‘(.*)’ in ‘a.js’"),
        ('router.get("/u/:id?", f)', "‘/u{/:id}’ for ‘/u/:id?’ in ‘a.js’"),
        ("app.get('/:id(\\d+)', f)", "several paths or a parameter for ‘/:id(\\d+)’ in ‘a.js’"),
        ("app.del('/x', f)", ".delete( for ‘.del(’ in ‘a.js’"),
        ("app.get('*', f); app.get('/a/*', f)", "‘/{*path}’ for ‘*’ in ‘a.js’, ‘/a/{*path}’ for ‘/a/*’ in ‘a.js’"),
    ],
)
def test_the_hint_says_how_express_5_spells_a_route(source: str, change: str) -> None:
    package = pkg(dependencies={"express": "^4.19.2"}, scripts={"start": "node a.js"})
    with pytest.raises(DependenciesMissing) as caught:
        classify(table_of({"package.json": package, "a.js": EXPRESS + source}), None, TEMPLATES)
    assert caught.value.hint == f"the template has Express 5.1.0: write {change}"


@pytest.mark.parametrize("row", ROWS, ids=[row.what for row in ROWS])
def test_is_run_as(row: Row) -> None:
    decision = classify(table_of(row.files), None, TEMPLATES)
    found = {name: getattr(decision, name) for name in row.expected}
    assert (decision.rule, found) == (row.rule, row.expected)
    assert decision.why.endswith(".")
    assert "\n" not in decision.why
    runtime = decision.runtime()
    assert runtime.lane == ("fast" if decision.kind in ("static", "worker") else "general")
    assert bool(runtime.start.argv or runtime.start.shell) == (runtime.lane == "general")


@pytest.mark.parametrize(("files", "code", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_is_refused(files: dict[str, str | bytes], code: str, words: str) -> None:
    with pytest.raises(ClassifyError) as caught:
        classify(table_of(files), None, TEMPLATES)
    error = caught.value
    assert error.error_code == code
    assert words in f"{error.message} {error.hint}"
    assert error.hint
    assert error.http_status == 422
    assert not error.may_retry


def test_every_rule_and_every_refusal_has_a_row_here() -> None:
    refusing = {
        "two-servers",
        "reflex",
        "other-javascript",
        "other-language",
        "front-end",
        "unknown-start",
        "component",
        "functions",
        "mcp-on-standard-input",
        "not-a-server",
        "subfolder",
        "nothing",
    }
    assert {rule.name for rule in RULES} == {row.rule for row in ROWS} | refusing
    codes = {c.code for c in vars(errors).values() if isinstance(c, type) and issubclass(c, ClassifyError)}
    assert codes - {"CannotClassify", "BadOverride"} == {row[2] for row in REFUSED}


def test_the_documentation_has_every_rule_in_order_and_every_code() -> None:
    text = DOCS.read_text()
    rows = [
        line.split("|")[2].strip().strip("`")
        for line in text.splitlines()
        if line.startswith("| ") and line[2].isdigit()
    ]
    assert rows == [rule.name for rule in RULES]
    for rule in RULES:
        assert rule.when in text
        assert rule.then in text
    for cls in vars(errors).values():
        if isinstance(cls, type) and issubclass(cls, ClassifyError) and cls is not ClassifyError:
            assert f"`{cls.code}`" in text


@pytest.mark.parametrize(
    ("asked", "files", "expected"),
    [
        (Asked(template="static-nginx"), {"app.py": FLASK, "index.html": PAGE}, {"kind": "static", "rule": "index-page"}),
        (Asked(lane="fast"), {"app.py": FLASK, "index.html": PAGE}, {"kind": "static"}),
        (Asked(template="node-24"), {"app.py": FLASK + MAIN, "server.js": HTTP}, {"entrypoint": "node server.js"}),
        (Asked(template="python-313"), {"app.py": FLASK + MAIN, "server.js": HTTP}, {"entrypoint": "python3 app.py"}),
        (Asked(port=5000), {"app.py": FLASK}, {"port": 5000, "entrypoint": GUNICORN.replace("8080", "5000") + "app:app"}),
        (Asked(entrypoint="two.py"), {"one.py": FLASK + MAIN, "two.py": FLASK + MAIN}, {"argv": ("python3", "two.py")}),
        (Asked(entrypoint="python two.py --x"), {"two.py": "x"}, {"argv": ("python3", "two.py", "--x"), "kind": "python"}),
        (Asked(entrypoint="app:app"), {"app.py": FASTAPI}, {"entrypoint": "app:app", "argv": ("python3", "-m", "uvicorn", "app:app", "--host", "0.0.0.0", "--port", "8080")}),
        (Asked(entrypoint="rooms.main:app"), {"src/rooms/main.py": FASTAPI, "a.txt": ""}, {"argv": ("python3", "-m", "uvicorn", "rooms.main:app", "--host", "0.0.0.0", "--port", "8080", "--app-dir", "src")}),
        (Asked(entrypoint="src/rooms/main.py"), {"src/rooms/main.py": FLASK + "import rooms.db\n" + MAIN, "src/rooms/db.py": "", "a.txt": ""}, {"argv": ("python3", "-m", "rooms.main"), "env": {"PYTHONPATH": "src"}}),
        (Asked(entrypoint="a.js && b"), {"a.js": HTTP, "package.json": "{}"}, {"shell": "a.js && b"}),
        (Asked(entrypoint="./run.sh", template="base-debian"), {"run.sh": "#!/bin/sh"}, {"argv": ("./run.sh",), "kind": "binary"}),
        (Asked(entrypoint="b.html"), {"a.html": PAGE, "b.html": PAGE}, {"kind": "static", "index": "b.html"}),
        (Asked(entrypoint="lib/w.js"), {"lib/w.js": WORKER, "a.txt": ""}, {"kind": "worker", "entrypoint": "lib/w.js"}),
        (Asked(entrypoint="x/app.py"), {"x/app.py": FLASK + MAIN}, {"argv": ("python3", "app.py"), "strip": "x/"}),
    ],
)  # fmt: skip
def test_the_user_may_say_it(asked: Asked, files: dict[str, str | bytes], expected: dict[str, object]) -> None:
    decision = classify(table_of(files), asked, TEMPLATES)
    assert {name: getattr(decision, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (Asked(lane="slow"), "BadOverride"),
        (Asked(template="cobol"), "BadOverride"),
        (Asked(lane="fast", template="python-313"), "BadOverride"),
        (Asked(entrypoint="nonsense here"), "BadOverride"),
        (Asked(entrypoint="java -jar x.jar"), "BadOverride"),
        (Asked(template="go-123"), "NoEntrypoint"),
        (Asked(lane="general"), "NoEntrypoint"),
    ],
)
def test_what_the_user_says_must_fit(asked: Asked, code: str) -> None:
    with pytest.raises(ClassifyError) as caught:
        classify(table_of({"index.html": PAGE}), asked, TEMPLATES)
    assert caught.value.error_code == code


def test_the_word_from_in_a_list_of_strings_is_not_an_import() -> None:
    server = 'require("node:http").createServer(f).listen(3000);\nconst [a, b] = ["value", "from", "to"].map(f);\n'
    files: dict[str, str | bytes] = {"package.json": pkg(scripts={"start": "node server.js"}), "server.js": server}
    assert classify(table_of(files), None, TEMPLATES).template == "node-24"


def test_a_server_of_the_standard_library_by_its_dotted_name_is_one() -> None:
    app = "import http.server\nhttp.server.ThreadingHTTPServer(('', 8000), http.server.SimpleHTTPRequestHandler).serve_forever()\n"
    assert classify(table_of({"app.py": app}), None, TEMPLATES).template == "python-313"


def test_files_that_all_import_each_other_are_each_followed_once() -> None:
    imports = "".join(f"import m{number}\n" for number in range(200))
    tree: dict[str, str | bytes] = {f"m{number}.py": imports for number in range(200)}
    project = Sources(Tree.of(table_of(tree)))
    resolved = 0
    local = project.local

    def counted(name: str, importer: str) -> list[str]:
        nonlocal resolved
        resolved += 1
        return local(name, importer)

    project.local = counted  # type: ignore[method-assign]
    for number in range(200):
        project.reached(f"m{number}.py")
    assert resolved <= 200 * 100
