#!/usr/bin/env bash
# lightkube 1.0.1: a watch ends with msgspec.DecodeError at the first object that has U+0085 (next line) in one of its texts,
# an annotation or a message in a status. Kubernetes sends the character as it is, which JSON allows, and httpx2's lines, by
# which lightkube reads a watch, end where str.splitlines() has them end. A list of the same object works, so a loop of
# list and watch fails again and again. For vibeD: its client splits a watch at \n alone.
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
python3 -m venv v && v/bin/pip install --quiet lightkube==1.0.1
cat > finding.py <<'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from lightkube import Client, KubeConfig
from lightkube.config.models import Cluster, User
from lightkube.resources.core_v1 import ConfigMap

ITEM = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "one", "namespace": "default", "resourceVersion": "2"},
    "data": {"text": "one\u0085two"},
}


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        if "watch" in parse_qs(urlsplit(self.path).query):
            answer = {"type": "ADDED", "object": ITEM}
        else:
            answer = {"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "2"}, "items": [ITEM]}
        body = json.dumps(answer, ensure_ascii=False).encode() + b"\n"  # as Go's encoder writes it
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
threading.Thread(target=server.serve_forever, daemon=True).start()
cluster = Cluster(server=f"http://127.0.0.1:{server.server_address[1]}")
client = Client(config=KubeConfig.from_one(cluster=cluster, user=User()), trust_env=False)
listed = [item.data["text"] for item in client.list(ConfigMap, namespace="default")]
try:
    watched = next(iter(client.watch(ConfigMap, namespace="default")))[1].data["text"]
except Exception as error:
    watched = f"{type(error).__module__}.{type(error).__name__}: {error}"
print(f"listed: {listed[0]!r}; watched: {watched!r}; expected: the same")
raise SystemExit(0 if listed == ["one\u0085two"] and "DecodeError" in watched else 1)
PYTHON
v/bin/python finding.py
