#!/usr/bin/env bash
# Prisma 7.10.1: `prisma generate` fetches the engine for migrations from another host than npm's registry and fails
# without it, though the client that it generates, and the generator, come whole with the npm packages: told of any program in
# the engine's place (PRISMA_SCHEMA_ENGINE_BINARY), it generates the same. For vibeD: builders reach registries alone, and tell it so.
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
mkdir prisma && cat > prisma/schema.prisma <<'SCHEMA'
generator client {
  provider = "prisma-client-js"
}
datasource db {
  provider = "sqlite"
}
model User {
  id Int @id
}
SCHEMA
echo "export default { schema: 'prisma/schema.prisma' }" > prisma.config.ts
echo '{"name": "finding", "private": true}' > package.json
npm install --silent --ignore-scripts --no-audit --no-fund prisma@7.10.1 @prisma/client@7.10.0
node -p '`prisma ${require("prisma/package.json").version}`'
generate() { unshare --net --map-root-user env CHECKPOINT_DISABLE=1 "$@" node node_modules/prisma/build/index.js generate > said 2>&1; }
if generate; then
  echo "changed: it generates without a network"
  exit 1
fi
grep --only-matching 'request to https://[^/]*' said
generate PRISMA_SCHEMA_ENGINE_BINARY=/bin/false
ls node_modules/.prisma/client | grep wasm$
echo "it generates once it is told of an engine, whatever that is"
