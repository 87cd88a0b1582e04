"""The apps that are deployed to be measured. Each answers `GET /` with a mark, so that what is old is known at sight.

They are written as people write such apps, and vibeD is told nothing about them: the classifier decides.
"""

from __future__ import annotations

import gzip
import io
import secrets
import tarfile
from collections.abc import Callable, Mapping

Source = Callable[[str], Mapping[str, str]]
"""From a mark to the files of an app that answers with it."""


def name_and_mark() -> tuple[str, str]:
    """Of a new app."""
    return f"b{secrets.token_hex(4)}", f"mark-{secrets.token_hex(6)}"


def packed(files: Mapping[str, str]) -> bytes:
    """A tar.gz of the files, the same bytes for the same files: what is built of a source is found by its digest."""
    out = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for name, text in files.items():
            content = text.encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def static(mark: str) -> Mapping[str, str]:
    """A site of 21 files."""
    page = f"<!doctype html><title>bench</title><h1>{mark}</h1>" + '<script src="a/1.js"></script>' * 3
    assets = {f"a/{number}.js": f"console.log({number}, '{mark}');\n" * 20 for number in range(20)}
    return {"index.html": page, **assets}


def tiny_static(mark: str) -> Mapping[str, str]:
    """A site of one file."""
    return {"index.html": f"<!doctype html><h1>{mark}</h1>"}


def worker(mark: str) -> Mapping[str, str]:
    """A worker in plain JavaScript that also takes bodies and WebSockets; `x-instance` names the isolate."""
    return {"worker.js": _WORKER.replace("MARK", mark)}


def bundled_worker(mark: str) -> Mapping[str, str]:
    """A worker in TypeScript that imports Hono: esbuild has to bundle it."""
    return {
        "wrangler.toml": 'name = "bench"\nmain = "src/index.ts"\ncompatibility_date = "2026-11-01"\n',
        "package.json": '{"name": "bench", "dependencies": {"hono": "^4"}, "devDependencies": {"wrangler": "^4"}}',
        "src/index.ts": _HONO.replace("MARK", mark),
    }


def anywhere(mark: str) -> Mapping[str, str]:
    """The same at whatever port is free: agents of a cluster that is one machine share its network."""
    return {"app.py": _ANYWHERE.replace("MARK", mark)}


def python(mark: str) -> Mapping[str, str]:
    """Hello with the standard library."""
    return {"app.py": _PYTHON.replace("MARK", mark)}


def node(mark: str) -> Mapping[str, str]:
    """Hello with node:http."""
    return {"server.js": _NODE.replace("MARK", mark)}


def flask(mark: str) -> Mapping[str, str]:
    return {"app.py": _FLASK.replace("MARK", mark), "requirements.txt": "flask\n"}


def gunicorn(mark: str) -> Mapping[str, str]:
    """Flask without a `__main__` block: gunicorn serves it."""
    app = _FLASK.replace("MARK", mark).partition("if __name__")[0]
    return {"app.py": app, "requirements.txt": "flask\n"}


def payloads(mark: str) -> Mapping[str, str]:
    """Flask by gunicorn, with answers and bodies of some size."""
    return {"app.py": _PAYLOADS.replace("MARK", mark), "requirements.txt": "flask\n"}


def payloads_by_itself(mark: str) -> Mapping[str, str]:
    """The same by Flask's own server."""
    run = 'if __name__ == "__main__":\n    app.run(host="0.0.0.0", port=int(os.environ.get("PORT", 5000)))\n'
    return {"app.py": f"import os\n\n{payloads(mark)['app.py']}\n\n{run}", "requirements.txt": "flask\n"}


def fastapi(mark: str) -> Mapping[str, str]:
    return {"main.py": _FASTAPI.replace("MARK", mark), "requirements.txt": "fastapi\nuvicorn\n"}


def express(mark: str) -> Mapping[str, str]:
    return {
        "index.js": _EXPRESS.replace("MARK", mark),
        "package.json": '{"name": "bench", "main": "index.js", "scripts": {"start": "node index.js"},'
        ' "dependencies": {"express": "^5"}}',
    }


def python_echo(mark: str) -> Mapping[str, str]:
    """aiohttp: takes bodies and WebSockets; `x-instance` names the process."""
    return {"app.py": _AIOHTTP.replace("MARK", mark), "requirements.txt": "aiohttp\n"}


_WORKER = """\
let instance;
export default {
  async fetch(request) {
    instance ??= crypto.randomUUID();
    if (request.headers.get("upgrade") === "websocket") {
      const [client, server] = Object.values(new WebSocketPair());
      server.accept();
      server.send("MARK");
      server.addEventListener("message", (event) => server.send(event.data));
      server.addEventListener("close", () => server.close(1000));
      return new Response(null, { status: 101, webSocket: client });
    }
    const size = request.method === "POST" ? (await request.arrayBuffer()).byteLength : 0;
    return new Response(`MARK ${size}`, { headers: { "x-instance": instance } });
  },
};
"""

_HONO = """\
import { Hono } from "hono";

interface Greeting { mark: string; at: number }

const app = new Hono();
const greeting: Greeting = { mark: "MARK", at: 1 };
app.get("/", (c) => c.text(greeting.mark));
app.get("/json", (c) => c.json(greeting));
export default app;
"""

_PYTHON = """\
import os
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

INSTANCE = uuid.uuid4().hex


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"MARK 0"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-instance", INSTANCE)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8000"))), Handler).serve_forever()
"""

# an answer is one segment, and 32 may connect at once: what is measured is what is in front of it
_ANYWHERE = (
    _PYTHON.replace('("0.0.0.0", int(os.environ.get("PORT", "8000")))', '("127.0.0.1", 0)')
    .replace('protocol_version = "HTTP/1.1"', 'protocol_version = "HTTP/1.1"\n    wbufsize = 1 << 16')
    .replace("\n\nThreadingHTTPServer(", "\n\nThreadingHTTPServer.request_queue_size = 128\nThreadingHTTPServer(")
)

_NODE = """\
const http = require("node:http");
const { randomUUID } = require("node:crypto");

const instance = randomUUID();
http
  .createServer((request, response) => {
    response.setHeader("x-instance", instance);
    response.end("MARK 0");
  })
  .listen(process.env.PORT || 3000);
"""

_FLASK = """\
import os

from flask import Flask, jsonify, render_template_string

app = Flask(__name__)


@app.get("/")
def index():
    return render_template_string("<h1>{{ mark }}</h1>", mark="MARK")


@app.get("/api")
def api():
    return jsonify(mark="MARK")


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=int(os.environ.get("PORT", 5000)))
"""

_PAYLOADS = """\
from flask import Flask, Response, jsonify, request

app = Flask(__name__)
items = [{"id": number, "name": f"item {number}", "tags": ["a", "b", "c"]} for number in range(520)]
large = b"x" * 1_000_000


@app.get("/")
def index():
    return "MARK"


@app.get("/json")
def json():
    return jsonify(items)


@app.get("/download")
def download():
    return Response(large, mimetype="application/octet-stream")


@app.post("/upload")
def upload():
    return str(len(request.get_data()))
"""

_FASTAPI = """\
from fastapi import FastAPI
from pydantic import BaseModel


class Note(BaseModel):
    text: str


app = FastAPI()
notes: list[Note] = []


@app.get("/")
def index():
    return {"mark": "MARK", "notes": len(notes)}


@app.post("/notes")
def add(note: Note):
    notes.append(note)
    return note
"""

_EXPRESS = """\
const express = require("express");

const app = express();
app.use(express.json());
app.get("/", (request, response) => response.send("MARK"));
app.listen(process.env.PORT || 3000);
"""

_AIOHTTP = """\
import os
import uuid

from aiohttp import WSMsgType, web

INSTANCE = uuid.uuid4().hex


async def index(request):
    size = len(await request.read())
    return web.Response(text=f"MARK {size}", headers={"x-instance": INSTANCE})


async def ws(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str("MARK")
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data)
    return socket


app = web.Application()
app.router.add_get("/", index)
app.router.add_post("/", index)
app.router.add_get("/ws", ws)
web.run_app(app, port=int(os.environ.get("PORT", 8080)), print=None)
"""
