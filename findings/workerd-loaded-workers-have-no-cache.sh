#!/usr/bin/env bash
# workerd 1.20261117.1: a worker from the configuration gets its Cache API from the service in cacheApiOutbound. A worker from a Worker
# Loader has `caches` too, inherits no such service from the worker that loads it, and its code takes none (an unknown
# field is ignored): every call throws, in code that runs everywhere else.
# For vibeD: the shim puts a bounded cache of its own in the place of `caches` (drivers/workerd/shim/cache.js).
set -euo pipefail
cd "$(mktemp -d)" && trap 'kill "${server:-}" 2> /dev/null || true; rm -rf "$PWD"' EXIT
npm init -y > /dev/null
npm install --silent --no-audit --no-fund workerd@1.20261117.1 2> /dev/null
workerd=./node_modules/.bin/workerd
cat > asks.js <<'JS'
export default { async fetch() {
  try { return new Response(`answers ${await caches.default.match("http://example.com/")}`); }
  catch (error) { return new Response(`throws ${error.message}`); }
} };
JS
cat > loads.js <<'JS'
import code from "asks";
export default { async fetch(request, env, ctx) {
  const loaded = env.LOADER.get("app", () => ({ compatibilityDate: "2026-11-01", mainModule: "m.js",
    modules: { "m.js": code }, cacheApiOutbound: env.CACHE }));
  return loaded.getEntrypoint().fetch(request);
} };
JS
# a cache that has nothing: what workerd asks it with only-if-cached is answered 504
echo 'export default { fetch() { return new Response(null, { status: 504, headers: { "CF-Cache-Status": "MISS" } }); } };' > cache.js
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
one=$(port) two=$(port)
cat > config.capnp <<CAPNP
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "configured", worker = .configured), (name = "loader", worker = .loader), (name = "cache", worker = .cache)],
  sockets = [(name = "one", address = "127.0.0.1:$one", http = (), service = "configured"),
             (name = "two", address = "127.0.0.1:$two", http = (), service = "loader")]);
const configured :Workerd.Worker = (modules = [(name = "asks", esModule = embed "asks.js")],
  compatibilityDate = "2026-11-01", cacheApiOutbound = "cache");
const loader :Workerd.Worker = (modules = [(name = "loads", esModule = embed "loads.js"), (name = "asks", text = embed "asks.js")],
  compatibilityDate = "2026-11-01", compatibilityFlags = ["experimental"], cacheApiOutbound = "cache",
  bindings = [(name = "LOADER", workerLoader = ()), (name = "CACHE", service = "cache")]);
const cache :Workerd.Worker = (modules = [(name = "cache", esModule = embed "cache.js")], compatibilityDate = "2026-11-01");
CAPNP
"$workerd" serve --experimental config.capnp > said.txt 2>&1 &
server=$!
ask() { python3 -c "import urllib.request as u; print(u.urlopen('http://127.0.0.1:$1/').read().decode())"; }
for _ in $(seq 100); do ask "$one" > /dev/null 2>&1 && break; sleep 0.1; done
configured=$(ask "$one") loaded=$(ask "$two")
echo "$("$workerd" --version): caches.default.match of a configured worker $configured, of a loaded one $loaded"
echo "expected: the loaded worker has its loader's cache, or can be given one"
[ "$configured" = "answers undefined" ] && [[ "$loaded" = "throws No Cache was configured" ]]
