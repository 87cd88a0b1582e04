#!/usr/bin/env bash
# esbuild 0.28.2: a CommonJS package that takes a module of Node (`require("node:path")`), bundled as an ES module with
# that module external, builds without a word and fails when it is loaded: "Dynamic require of "node:path" is not
# supported", though the module that runs it has node:path. `import` of the same external module is kept. For vibeD:
# templates/_builder/bundle.cjs has such calls import the module before, as Wrangler's own plugin does.
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
npm install --silent --no-audit --no-fund esbuild@0.28.2
echo 'module.exports = require("node:path").join("a", "b")' > package.cjs
echo 'import value from "./package.cjs"; console.log(value)' > required.mjs
echo 'import { join } from "node:path"; console.log(join("a", "b"))' > imported.mjs
npx esbuild --version
for name in required imported; do
  npx esbuild $name.mjs --bundle --format=esm --platform=neutral '--external:node:*' --outfile=out/$name.mjs --log-level=warning
done
imported=$(node out/imported.mjs)
required=$(node out/required.mjs 2>&1 | grep -o 'Dynamic require of "node:path" is not supported' | head -1 || true)
echo "imported: $imported; required: ${required:-$(node out/required.mjs)}; expected: the same"
[ "$imported" = a/b ] && [ "$required" = 'Dynamic require of "node:path" is not supported' ]
