# ruff: noqa: E501 (tables of inputs)
"""Where the source says that its site listens."""

from __future__ import annotations

import pytest
from classify_trees import TEMPLATES, Asked, table_of

from vibed.classify.classifier import classify

HTTP = "const http = require('http')\n"
FLASK = "from flask import Flask\napp = Flask(__name__)\n"

NAMED: list[tuple[str, dict[str, str | bytes], tuple[int, ...]]] = [
    ("a fallback for PORT", {"server.js": HTTP + "http.createServer(f).listen(process.env.PORT || 3000)"}, (8080, 3000)),
    ("a variable with a default", {"server.js": HTTP + "const { PORT = 4000 } = process.env\nserver.listen(PORT)"}, (8080, 4000)),
    ("a number", {"server.js": HTTP + "http.createServer(f).listen(3000)"}, (3000,)),
    ("an option", {"server.js": HTTP + "http.createServer(f).listen({ port: 4000, host: '::' })"}, (4000,)),
    ("a constant", {"server.js": HTTP + "const PORT = 3333\nhttp.createServer(f).listen(PORT)"}, (3333,)),
    ("Flask's run", {"app.py": FLASK + "if __name__ == '__main__':\n    app.run(host='0.0.0.0', port=5001)\n"}, (5001,)),
    ("a number from the environment", {"app.py": FLASK + "import os\napp.run(port=int(os.environ.get('PORT', 7000)))\n"}, (8080, 7000)),
    ("the standard library", {"app.py": "from http.server import *\nHTTPServer(('', 8000), BaseHTTPRequestHandler).serve_forever()\n"}, (8000,)),
    ("metrics before the site", {"app.py": FLASK + "start_http_server(9100)\ntime.sleep(3)\napp.run(port=5000)\n"}, (5000,)),
    ("metrics by a server of the standard library", {"app.py": FLASK + "import http.server\nhttp.server.HTTPServer(('', 9100), H)\napp.run(port=5000)\n"}, (5000, 9100)),
    ("metrics of an app of their own", {"server.js": HTTP + "metricsApp.listen(9100)\nhttp.createServer(f).listen(3000)"}, (3000,)),
    ("a constant for metrics", {"app.py": "import http.server as h\nMETRICS_PORT = 9100\nPORT = 5000\nserve(METRICS_PORT)\nh.HTTPServer(('', PORT), H).serve_forever()\n"}, (5000,)),
    ("a constant for a database", {"server.js": HTTP + "const MAIN_DB_PORT = 5433\nconst WEB_PORT = 3100\nhttp.createServer(f).listen(WEB_PORT)"}, (3100,)),
    ("vibeD's own command", {"app.py": FLASK}, (8080,)),
    ("a port in the Procfile", {"Procfile": "web: gunicorn app:app --bind 0.0.0.0:8000", "app.py": FLASK}, (8000,)),
    ("Go", {"go.mod": "module x", "main.go": 'package main\nimport "net/http"\nfunc main() { go http.ListenAndServe(":2112", promhttp.Handler())\nhttp.ListenAndServe(":8081", nil) }'}, (8081,)),
    ("EXPOSE alone", {"Dockerfile": "FROM x\nEXPOSE 9999\n", "server.js": HTTP + "http.createServer(f).listen(config.at)"}, (9999,)),
    ("a database's port is none", {"server.js": HTTP + "const db = { host: 'x', port: 5432 }\nhttp.createServer(f).listen(3000)"}, (3000,)),
    ("nothing said", {"server.js": HTTP + "http.createServer(f).listen(config.at)"}, ()),
    ("a site", {"index.html": "<p>"}, ()),
]  # fmt: skip


@pytest.mark.parametrize(("files", "ports"), [row[1:] for row in NAMED], ids=[row[0] for row in NAMED])
def test_the_ports_that_the_source_names(files: dict[str, str | bytes], ports: tuple[int, ...]) -> None:
    start = classify(table_of(files), None, TEMPLATES).runtime().start
    assert (start.expected_ports, start.port) == (ports, 8080)


SOCKETS = HTTP + "new WebSocketServer({ port: 8080 })\nhttp.createServer(f).listen(process.env.PORT || 3000)"
SOCKETS_PY = FLASK + "websockets.serve(f, '', 8080)\napp.run(port=int(os.getenv('PORT', '5000')))\n"


TAKEN: list[tuple[str, dict[str, str | bytes], int]] = [
    ("Node", {"server.js": SOCKETS}, 3000),
    ("Python", {"app.py": SOCKETS_PY}, 5000),
    ("two servers of one kind", {"server.js": HTTP + "http.createServer(g).listen(8080)\nhttp.createServer(f).listen(process.env.PORT || 3000)"}, 3000),
    ("a default of another variable", {"server.js": HTTP + "const WS_PORT = process.env.WS_PORT || 8080\nconst PORT = process.env.PORT || 3000\nhttp.createServer(f).listen(PORT)"}, 3000),
    ("in another file", {"server.js": "require('./ws')()\n" + HTTP + "http.createServer(f).listen(process.env.PORT || 3000)", "ws.js": "module.exports = () => new WebSocketServer({ port: 8080 })"}, 3000),
    ("Go", {"go.mod": "module x", "main.go": 'package main\nfunc main() { go http.ListenAndServe(":8080", ws)\nport := os.Getenv("PORT")\nif port == "" {\n\tport = "3000"\n}\nhttp.ListenAndServe(":"+port, nil) }'}, 3000),
    ("no default", {"server.js": HTTP + "http.createServer(g).listen(8080)\nhttp.createServer(f).listen(process.env.PORT)"}, 8081),
    ("a Procfile's $PORT", {"Procfile": "web: gunicorn -b :$PORT app:app", "app.py": FLASK + "websockets.serve(f, '', 8080)\n"}, 8081),
    ("a Procfile's $PORT in a shell", {"Procfile": "web: cd web && node server.js --port $PORT", "web/server.js": HTTP + "new WebSocketServer({ port: 8080 })\nhttp.createServer(f).listen(argv.port)"}, 8081),
    ("vibeD's own command", {"app.py": FLASK + "import feed\n", "feed.py": "def begin():\n    Thread(target=TCPServer(('', 8080), H).serve_forever).start()\n"}, 8081),
    ("no default, the next one taken", {"server.js": HTTP + "new WebSocketServer({ port: 8081 })\nhttp.createServer(g).listen(8080)\nhttp.createServer(f).listen(process.env.PORT)"}, 8082),
]  # fmt: skip


@pytest.mark.parametrize(("files", "port"), [row[1:] for row in TAKEN], ids=[row[0] for row in TAKEN])
def test_port_does_not_say_what_the_app_opens_for_something_else(files: dict[str, str | bytes], port: int) -> None:
    start = classify(table_of(files), None, TEMPLATES).runtime().start
    assert (start.port, start.expected_ports) == (port, (port,))
    assert "8080" not in f"{start.argv} {start.shell}"


@pytest.mark.parametrize(
    "listen",
    ["listen(process.env.PORT || 8080)", "listen(process.env.PORT || config.port)\nconst config = { port: 8080 }", "listen(8080)"],
)  # fmt: skip
def test_port_says_8080_where_that_is_the_sites_own(listen: str) -> None:
    assert classify(table_of({"server.js": HTTP + "http.createServer(f)." + listen}), None, TEMPLATES).port == 8080


def test_a_command_that_its_project_wrote_out_stays() -> None:
    files = {"Procfile": "web: gunicorn -b :8080 app:app", "app.py": FLASK + "websockets.serve(f, '', 8080)\n"}
    start = classify(table_of(files), None, TEMPLATES).runtime().start
    assert (start.port, start.expected_ports) == (8080, (8080,))


def test_port_says_what_the_user_says_all_the_same() -> None:
    assert classify(table_of({"server.js": SOCKETS}), Asked(port=8080), TEMPLATES).port == 8080


def test_the_port_that_the_user_says_is_the_likeliest() -> None:
    files = {"server.js": HTTP + "http.createServer(f).listen(config.at)\nhttp.createServer(g).listen(3000)"}
    assert classify(table_of(files), Asked(port=7000), TEMPLATES).expected_ports == (7000, 3000)
