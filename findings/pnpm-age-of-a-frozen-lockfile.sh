#!/usr/bin/env bash
# pnpm 12.21.0: `minimumReleaseAge` is held against a frozen lockfile too. What was resolved and committed yesterday, with
# hashes, does not install in CI until its packages are old enough, and the check needs the registry even where the store
# has every package. (npm and yarn hold their age gates against a resolution only.)
# For vibeD, when layers are built: the age of a lock is judged outside, and the tools' own gates are off for locked installs.
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
mkdir project
npm install --silent --no-audit --no-fund --prefix tool pnpm@12.21.0 2> /dev/null
cd project
pnpm=../tool/node_modules/.bin/pnpm
echo '{"name": "finding", "version": "1.0.0", "dependencies": {"itty-router": "6.0.0"}}' > package.json
"$pnpm" install --silent --config.minimum-release-age=0 > /dev/null
rm -r node_modules
"$pnpm" install --frozen-lockfile --config.minimum-release-age=0 > /dev/null && open=0 || open=$?
rm -rf node_modules
# fifty years, in minutes: whatever is in the lockfile is younger
"$pnpm" install --frozen-lockfile --config.minimum-release-age=26280000 > said.txt 2>&1 && gated=0 || gated=$?
echo "pnpm $("$pnpm" --version): frozen install without an age gate: status $open; with one: status $gated"
grep -o 'ERR_PNPM_[A-Z_]*' said.txt | head -1 || true
echo "expected: 0 both times, since nothing is resolved"
[ "$open" = 0 ] && [ "$gated" != 0 ]
