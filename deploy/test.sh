#!/usr/bin/env bash
# All tests, in the order of their cost: lint, types, Go, then pytest (unit, contract, hostile, end to end).
# Slow things are built first, so that nothing with a deadline waits for a build. `fast` stops before what needs one;
# `all` adds what is marked as `everything`; `cluster` is the tests on Kubernetes alone, with a real node. Under CI=true
# a real node is built in any case.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

python=$("${PYTHON:-python3}" deploy/bootstrap.py dev)
bin=$(dirname "$python")
export PYTHONPATH=$PWD/src
began=$SECONDS
step() { printf '  ..  %-14s %s\n' "$1" "(at $((SECONDS - began)) s)"; }

step lint
"$bin/ruff" check .
"$bin/ruff" format --check .
# one core is enough for it, and the next steps wait for the network or for other programs
types=$(mktemp)
"$bin/mypy" > "$types" 2>&1 &
checking=$!

export VIBED_TEST_HOME=${VIBED_TEST_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/vibed/test-home}
step system
"$python" -m tests.prepare system
step tools
"$python" -m tests.prepare tools
# Kubernetes is built beside all that follows: minutes the first time, at once when nothing has changed.
stack=cluster
if [ "${CI:-}" = true ] || [ "${1:-}" = cluster ]; then stack=cluster-node; fi
building=
if [ "${1:-}" != fast ]; then
    nice "$python" -m tests.prepare "$stack" &
    building=$!
    trap 'kill "$building" 2> /dev/null || true' EXIT
fi
if [ "${1:-}" = cluster ]; then
    wait "$building"
    trap - EXIT
    "$python" -m tests.prepare images
    exec "$python" -m pytest tests/cluster
fi
go=$("$python" -m tests.prepare go)
"$python" -m tests.prepare client

step agent
(cd agent && test -z "$("$(dirname "$go")/gofmt" -l .)" && "$go" vet ./... && "$go" test ./...)

step types
status=0
wait "$checking" || status=$?
cat "$types"
rm "$types"
[ "$status" = 0 ] || exit "$status"

if [ "${1:-}" = fast ]; then
    exec "$python" -m pytest tests/unit -q
fi
step acme
"$python" -m tests.prepare acme
step templates
"$python" -m tests.prepare templates
step cluster
wait "$building"
trap - EXIT
[ "$stack" = cluster ] || "$python" -m tests.prepare images
step pytest
# Most tests wait for programs. Two files at a time: more would fight for the two cores that a test may have to itself.
marks=()
[ "${1:-}" != all ] || marks=(-m "everything or not everything")
exec "$python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "${marks[@]}"
