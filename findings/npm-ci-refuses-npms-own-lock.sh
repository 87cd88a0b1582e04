#!/usr/bin/env bash
# npm 11.19.1: an optional dependency that the registry does not have is passed over by `npm install`, which writes a lock
# file without it and ends well; `npm ci` refuses that very lock file as out of step with package.json ("Missing: … from
# lock file"). Registries that leave packages out (a mirror, a package of another system) make every such project one that
# its own lock cannot install.
# For vibeD: a lock file that its builder itself made is installed by `npm install`, not by `npm ci` (runtimes/layers).
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
npm install --silent --no-save --prefix tool npm@11.19.1 > /dev/null
npm() { node ../tool/node_modules/npm/bin/npm-cli.js "$@"; }
mkdir app && cd app
cat > package.json <<'JSON'
{"name": "app", "private": true, "dependencies": {"is-number": "7.0.0"},
 "optionalDependencies": {"no-such-package-of-another-system": "^1.0.0"}}
JSON
npm --version
npm install --silent && echo "npm install: ended well, wrote a lock file"
said=$(npm ci 2>&1) && { echo "npm ci: installed it; that has changed"; exit 1; }
grep -o "Missing: no-such-package-of-another-system.*" <<< "$said"
echo "expected: npm ci installs what npm install has locked"
