#!/usr/bin/env bash
# uvicorn 0.54.0 with --workers: an app that fails at its import never ends. The parent starts its children again and
# again, nothing ever listens, and no status tells anybody (with one worker it ends with 1, gunicorn ends with 3).
# For vibeD: a start that times out is explained by the error in the output, as one that ends is.
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
python3 -m venv v && v/bin/pip install --quiet uvicorn==0.54.0
echo 'raise RuntimeError("no configuration")' > main.py
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
v/bin/uvicorn main:app --port "$port" > one.txt 2>&1 && one=0 || one=$?
timeout 30 v/bin/uvicorn main:app --port "$port" --workers 2 > several.txt 2>&1 && several=0 || several=$?
failures=$(grep -c '^RuntimeError: no configuration' several.txt)
echo "uvicorn 0.54.0: one worker ends with $one; two are still at it after 30 s (status $several of timeout), $failures imports failed"
echo "expected: an end, and a status other than 0, in both cases"
[ "$one" != 0 ] && [ "$several" = 124 ] && [ "$failures" -gt 2 ]
