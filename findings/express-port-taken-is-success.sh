#!/usr/bin/env bash
# Express 5.3.0: where the port is taken, `app.listen(port, callback)` calls the callback that says "listening", as Express 4
# did not, and the program ends with 0. The error is the callback's first argument, which hardly any example takes.
# For vibeD: a program that ends before it listens has failed, whatever its status and its words.
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
npm init -y > /dev/null
npm install --silent --no-audit --no-fund express@5.3.0
cat > app.js <<'JS'
const port = Number(process.argv[2]);
require("express")().listen(port, () => console.log(`listening on ${port}`));
JS
cat > finding.js <<'JS'
const { spawnSync } = require("node:child_process");
const server = require("node:net").createServer().listen(0, () => {
  const { status, stdout } = spawnSync(process.execPath, ["app.js", server.address().port], { encoding: "utf8" });
  console.log(`it says '${stdout.trim()}' and ends with ${status}; expected: EADDRINUSE and a status other than 0`);
  process.exit(status === 0 && stdout.startsWith("listening") ? 0 : 1);
});
JS
echo "Express $(node -p 'require("express/package.json").version') on a port that is taken:"
node finding.js
