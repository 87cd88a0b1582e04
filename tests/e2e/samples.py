"""Small apps that tell which version they are: `/` says it, `/echo` answers a body with its hash, `/ws` echoes."""

from __future__ import annotations

Files = dict[str, str | bytes]


def static(version: object) -> Files:
    """A site of one page."""
    return {"index.html": f"<!doctype html><title>version {version}</title>\n<p>version {version}</p>\n"}


def worker(version: object) -> Files:
    """A worker in plain JavaScript."""
    return {"worker.js": _WORKER.replace("@VERSION@", str(version))}


def python(version: object) -> Files:
    """Starlette under uvicorn."""
    return {"main.py": _PYTHON.replace("@VERSION@", str(version)), "requirements.txt": "starlette\nuvicorn[standard]\n"}


def node(version: object) -> Files:
    """Node's own server, with `ws`."""
    return {
        "server.js": _NODE.replace("@VERSION@", str(version)),
        "package.json": '{"scripts": {"start": "node server.js"}, "dependencies": {"ws": "^8"}}',
    }


def go(version: object) -> Files:
    """Go's own server."""
    return {"go.mod": "module sample\n\ngo 1.23\n", "main.go": _GO.replace("@VERSION@", str(version))}


def python_hello(version: object) -> Files:
    """The standard library's server: the quickest start there is in Python."""
    return {"app.py": _PYTHON_HELLO.replace("@VERSION@", str(version))}


def python_after(*lines: str, version: object = 1) -> Files:
    """The same, after some lines of Python that run first."""
    return {"app.py": "\n".join((*lines, str(python_hello(version)["app.py"])))}


def node_hello(version: object) -> Files:
    """The same in Node."""
    return {"index.js": _NODE_HELLO.replace("@VERSION@", str(version))}


_WORKER = """
const hex = (bytes) => [...new Uint8Array(bytes)].map((b) => b.toString(16).padStart(2, "0")).join("");

export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === "/echo") {
      const digest = await crypto.subtle.digest("SHA-256", await request.arrayBuffer());
      return Response.json({ version: "@VERSION@", sha256: hex(digest) });
    }
    if (pathname === "/ws") {
      const [client, server] = Object.values(new WebSocketPair());
      server.accept();
      server.addEventListener("message", ({ data }) => server.send(`@VERSION@ ${data}`));
      return new Response(null, { status: 101, webSocket: client });
    }
    if (pathname === "/env") return Response.json(env);
    return new Response("version @VERSION@\\n");
  },
};
"""

_PYTHON = """
import hashlib
import os

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect


async def index(request):
    return PlainTextResponse("version @VERSION@\\n")


async def echo(request):
    digest, size = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    return JSONResponse({"version": "@VERSION@", "sha256": digest.hexdigest(), "size": size})


async def environment(request):
    return JSONResponse(dict(os.environ))


async def talk(socket):
    await socket.accept()
    try:
        while True:
            await socket.send_text(f"@VERSION@ {await socket.receive_text()}")
    except WebSocketDisconnect:
        pass


app = Starlette(routes=[
    Route("/", index),
    Route("/echo", echo, methods=["POST"]),
    Route("/env", environment),
    WebSocketRoute("/ws", talk),
])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
"""

_NODE = """
const http = require("node:http");
const crypto = require("node:crypto");
const { WebSocketServer } = require("ws");

const server = http.createServer((request, response) => {
  if (request.url === "/echo") {
    const hash = crypto.createHash("sha256");
    let size = 0;
    request.on("data", (piece) => { hash.update(piece); size += piece.length; });
    request.on("end", () => {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ version: "@VERSION@", sha256: hash.digest("hex"), size }));
    });
    return;
  }
  if (request.url === "/env") {
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(process.env));
    return;
  }
  response.end("version @VERSION@\\n");
});
new WebSocketServer({ server, path: "/ws" }).on("connection", (socket) => {
  socket.on("message", (data) => socket.send(`@VERSION@ ${data}`));
});
server.listen(process.env.PORT);
"""

_GO = """package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "version @VERSION@")
	})
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		hash := sha256.New()
		size, err := io.Copy(hash, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{
			"version": "@VERSION@", "sha256": hex.EncodeToString(hash.Sum(nil)), "size": size,
		})
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
"""

_PYTHON_HELLO = """
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"version @VERSION@\\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("", int(os.environ["PORT"])), Hello).serve_forever()
"""

_NODE_HELLO = """
require("node:http").createServer((request, response) => response.end("version @VERSION@\\n")).listen(process.env.PORT);
"""
