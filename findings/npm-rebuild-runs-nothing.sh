#!/usr/bin/env bash
# npm 12.2.2: `npm rebuild PACKAGE` says "rebuilt dependencies successfully", ends with 0, and has run nothing: the scripts
# of dependencies are blocked (a warning on stderr says so), in `install` as in the command whose purpose is to run them.
# For vibeD, when layers are built: what a build brought is judged by the file that is there, not by the installer's status.
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
npm init -y > /dev/null
npm install --silent --no-audit --no-fund --prefix tool npm@12.2.2
npm=$PWD/tool/node_modules/.bin/npm
"$npm" install --silent --no-audit --no-fund esbuild@0.28.2 2> /dev/null
# esbuild's postinstall puts the native program in the place of a script
kind() { if head -c 2 node_modules/esbuild/bin/esbuild | grep -q '#!'; then echo script; else echo program; fi; }
before=$(kind)
said=$("$npm" rebuild esbuild 2> /dev/null) && status=0 || status=$?
after=$(kind)
echo "npm $("$npm" --version 2> /dev/null): rebuild said '$said', status $status; bin/esbuild was a $before and is a $after"
echo "expected: a program, or a status other than 0"
[ "$status" = 0 ] && [ "$before" = script ] && [ "$after" = script ]
