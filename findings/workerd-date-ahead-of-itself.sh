#!/usr/bin/env bash
# workerd 1.20261117.1: the newest compatibility date that it takes is seven days after the date in its own version, and one
# day more ends it at start. So "today" as a compatibility date, which generated configurations have, works for a week after a release
# and then no longer, without a change of anything.
# For vibeD: a worker's date is cut to what the installed workerd takes.
set -euo pipefail
cd "$(mktemp -d)" && trap 'kill "${server:-}" 2> /dev/null || true; rm -rf "$PWD"' EXIT
npm init -y > /dev/null
npm install --silent --no-audit --no-fund workerd@1.20261117.1 2> /dev/null
workerd=./node_modules/.bin/workerd
echo 'export default { fetch() { return new Response("ok"); } };' > w.js
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
answers() { # DATE: whether a worker of that date answers
  cat > config.capnp <<CAPNP
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (services = [(name = "main", worker = .worker)],
  sockets = [(name = "http", address = "127.0.0.1:$port", http = (), service = "main")]);
const worker :Workerd.Worker = (modules = [(name = "w.js", esModule = embed "w.js")], compatibilityDate = "$1");
CAPNP
  "$workerd" serve config.capnp > said.txt 2>&1 &
  server=$!
  for _ in $(seq 100); do
    if python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/')" 2> /dev/null; then
      kill "$server"; wait "$server" 2> /dev/null || true
      return 0
    fi
    kill -0 "$server" 2> /dev/null || return 1
    sleep 0.1
  done
  return 1
}
answers 2026-11-24 && ahead=answers || ahead=ends
answers 2026-11-25 && further=answers || further=ends
echo "$("$workerd" --version): with 2026-11-24 it $ahead, with 2026-11-25 it $further: $(grep -o 'newest date.*' said.txt || true)"
echo "expected: the date of the version is the newest"
[ "$ahead" = answers ] && [ "$further" = ends ]
