#!/usr/bin/env bash
# Node 24.11.1, node:cluster: the primary gives a connection to a worker that ends before it has taken it. It is neither given
# to another worker nor closed: the client waits for ever, while whoever comes later is answered. (A connection that a worker
# declines is given to the next one.)
# For vibeD: that the primary has taken a connection does not say that anybody will answer on it (agent/inside/cluster.go).
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
npm init -y > /dev/null
npm install --silent --no-audit --no-fund node@24.11.1
cat > finding.js <<'JS'
const cluster = require("node:cluster"), http = require("node:http"), net = require("node:net");
if (cluster.isPrimary) {
  const free = net.createServer().listen(0, "127.0.0.1", () => {
    const { port } = free.address();
    free.close(() => run(port));
  });
} else {
  process.on("message", () => {
    for (const until = Date.now() + 500; Date.now() < until; ); // it is at something
    process.exit(1);
  });
  http.createServer((request, response) => response.end("served")).listen(process.env.PORT, "127.0.0.1");
}
function run(PORT) {
  const told = {};
  const ask = (who) => {
    told[who] = "waits";
    const request = http.get({ port: PORT, host: "127.0.0.1", agent: false }, (answer) => { answer.resume(); told[who] = answer.statusCode; });
    request.on("error", (error) => { told[who] = error.code; });
  };
  const ends = cluster.fork({ PORT });
  ends.on("listening", () => cluster.fork({ PORT }).on("listening", () => {
    ends.send("end");
    ask("first"); // the turn of the worker that ends
    ends.on("exit", () => setTimeout(ask, 500, "later"));
    setTimeout(() => {
      console.log(`after 10 s the first visitor: ${told.first}, a later one: ${told.later}; expected: 200 or a reset, and 200`);
      process.exit(told.first === "waits" && told.later === 200 ? 0 : 1);
    }, 10_000);
  }));
}
JS
node=node_modules/node/bin/node
echo "Node $($node --version), a connection to a worker that ends:"
"$node" finding.js
