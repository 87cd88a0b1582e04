"""What makes the tables of a Prisma project's database in a file, run by Node before the app starts.

As `prisma migrate deploy` does it, whose engine would have to be fetched and takes seconds: each migration that the
database has not seen is run, and written down where Prisma itself looks. A database with tables and without such a
record was made by `prisma db push`, and is left as it is.
"""

from __future__ import annotations

TABLES = r"""
const fs = require('node:fs'), path = require('node:path'), crypto = require('node:crypto')
const { DatabaseSync } = require('node:sqlite')
const { variable, url, place, migrations } = JSON.parse(process.argv[1])

function written (file) {
  const line = new RegExp(`^\\s*(?:export\\s+)?${variable}\\s*=\\s*["']?([^"'\\n#]+)`, 'm')
  try { return fs.readFileSync(file, 'utf8').match(line)?.[1].trim() } catch { return undefined }
}

function end (status, text) {
  console.log(`Prisma: ${text}`)
  process.exit(status)
}

const files = ['.env.local', '.env.production', '.env', path.join(place, '.env'), 'prisma/.env']
const address = (variable && (process.env[variable] || files.map(written).find(Boolean))) || url
if (!address) end(0, `no tables are made, since ${variable || 'the address of its database'} is not set`)
if (!address.startsWith('file:')) end(0, `no tables are made, since ${variable || 'its address'} names no file`)
const file = path.resolve(place, address.replace(/^file:(?:\/\/(?=\/))?/, '').replace(/\?.*$/, ''))
fs.mkdirSync(path.dirname(file), { recursive: true })
const database = new DatabaseSync(file)
const tables = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").all()
const own = tables.map((row) => row.name).filter((name) => !name.startsWith("sqlite_"))
if (own.length && !own.includes('_prisma_migrations')) end(0, `${file} has tables and no record of migrations`)
database.exec(`CREATE TABLE IF NOT EXISTS "_prisma_migrations" (
    "id"                    TEXT PRIMARY KEY NOT NULL,
    "checksum"              TEXT NOT NULL,
    "finished_at"           DATETIME,
    "migration_name"        TEXT NOT NULL,
    "logs"                  TEXT,
    "rolled_back_at"        DATETIME,
    "started_at"            DATETIME NOT NULL DEFAULT current_timestamp,
    "applied_steps_count"   INTEGER UNSIGNED NOT NULL DEFAULT 0
)`)
const seen = database.prepare('SELECT migration_name FROM _prisma_migrations WHERE rolled_back_at IS NULL').all()
const done = new Set(seen.map((row) => row.migration_name))
const record = database.prepare(`INSERT INTO _prisma_migrations
  (id, checksum, finished_at, migration_name, started_at, applied_steps_count) VALUES (?, ?, ?, ?, ?, 1)`)
for (const name of fs.readdirSync(migrations).sort()) {
  const script = path.join(migrations, name, 'migration.sql')
  if (done.has(name) || !fs.existsSync(script)) continue
  const text = fs.readFileSync(script)
  const began = Date.now()
  try { database.exec(text.toString()) } catch (error) { end(1, `the migration ${script} fails: ${error.message}`) }
  record.run(crypto.randomUUID(), crypto.createHash('sha256').update(text).digest('hex'), Date.now(), name, began)
  console.log(`Prisma: migration ${name}`)
}
"""
