#!/usr/bin/env bash
# npm 12.2.2: its default `allow-remote=none`, which is about dependencies given as URLs ("tarballs that share a hostname
# with the configured registry … are still installed normally"), also refuses the registry's own tarball of an optional
# package that brings others with it (bundleDependencies), when the tree is resolved: EALLOWREMOTE for everything with
# Tailwind 4. For vibeD: its builders, which reach registries alone, say `all`.
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
mkdir tool app
npm install --silent --no-audit --no-fund --prefix tool npm@12.2.2
echo '{"private": true, "optionalDependencies": {"@tailwindcss/oxide": "4.3.3"}}' > app/package.json
npm() { node ../tool/node_modules/npm/bin/npm-cli.js install --package-lock-only --ignore-scripts --no-audit --no-fund "$@" 2>&1; }
cd app
echo "npm $(node ../tool/node_modules/npm/bin/npm-cli.js --version)"
told=$(npm) && { echo "it resolves now"; exit 1; }
grep -o 'Refusing to fetch.*oxide-wasm32-wasi-4.3.3.tgz' <<< "$told" || { echo "$told"; exit 1; }
npm --allow-remote=all > /dev/null
echo "with --allow-remote=all it resolves"
