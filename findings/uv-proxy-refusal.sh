#!/usr/bin/env bash
# uv 0.13.9: a proxy that refuses to open a tunnel (403 to CONNECT, a policy and no accident) is asked four times within
# some seconds, and neither its status nor its sentence is shown: "tunnel error: unsuccessful" is all. pip says
# "Tunnel connection failed: 403 Forbidden". For vibeD: what a build may not reach is told from the gate's own record.
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
python3 -m venv v && v/bin/pip install --quiet uv==0.13.9
cat > finding.py <<'PYTHON'
import os
import socket
import subprocess
import sys
import threading

SENTENCE = "this network has no way to that host"
asked = []


def refuse(proxy):
    while True:
        conn, _ = proxy.accept()
        asked.append(conn.recv(65536).split(b"\r\n")[0].decode())
        body = SENTENCE.encode()
        conn.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        conn.close()


with socket.create_server(("127.0.0.1", 0)) as proxy:
    threading.Thread(target=refuse, args=(proxy,), daemon=True).start()
    env = {"PATH": os.environ["PATH"], "HOME": os.getcwd(), "HTTPS_PROXY": f"http://127.0.0.1:{proxy.getsockname()[1]}"}
    argv = [sys.argv[1], "pip", "install", "--python", sys.executable, "--target", "t", "x @ https://host.invalid/x-1-py3-none-any.whl"]
    said = subprocess.run(argv, env=env, capture_output=True, text=True).stderr
print(said)
print(f"asked {len(asked)} times; expected: once, and the proxy's 403 or its sentence shown")
raise SystemExit(0 if len(asked) == 4 and "403" not in said and SENTENCE not in said else 1)
PYTHON
v/bin/uv --version
v/bin/python finding.py v/bin/uv
