#!/usr/bin/env bash
# Robyn 0.88.0: at SIGTERM, by which every supervisor of services stops them, it closes its port and does not end. At SIGINT
# it does.
# For vibeD: the table of frameworks says which signal stops which (src/vibed/classify/python_frameworks.py).
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
python3 -m venv v && v/bin/pip install --quiet robyn==0.88.0
cat > app.py <<'PYTHON'
import sys

from robyn import Robyn

app = Robyn(__file__)


@app.get("/")
async def index(request):
    return "hello"


app.start(host="127.0.0.1", port=int(sys.argv[1]))
PYTHON
cat > finding.py <<'PYTHON'
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

with socket.create_server(("127.0.0.1", 0)) as probe:
    port = probe.getsockname()[1]
url = f"http://127.0.0.1:{port}/"


def hello():
    try:
        return urllib.request.urlopen(url, timeout=5).read() == b"hello"
    except OSError:
        return False


app = subprocess.Popen([sys.executable, "app.py", str(port)], start_new_session=True, stdout=subprocess.DEVNULL)
try:
    while not hello():
        time.sleep(0.2)
    os.killpg(app.pid, signal.SIGTERM)
    time.sleep(5)
    lives = app.poll() is None
    serves = "serves on" if hello() else "serves nobody"
    print(f"five seconds after SIGTERM it {f'lives and {serves}' if lives else 'is gone'}; expected: that it is gone")
    if lives:
        os.killpg(app.pid, signal.SIGINT)
        print(f"SIGINT ends it with {app.wait(20)}")
finally:
    if app.poll() is None:
        os.killpg(app.pid, signal.SIGKILL)
raise SystemExit(0 if lives else 1)
PYTHON
v/bin/pip list 2> /dev/null | grep -i '^robyn'
v/bin/python finding.py
