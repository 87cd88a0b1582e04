'use strict'
// Builds an app with its own build script, in a builder sandbox where its packages are mounted.
//
//   node build.cjs       orders in /layers/out/request.json, what comes of it to the socket beside it
//
// What is sent: eight bytes with the length of a JSON object, the object, and then a gzipped tarball of what was built:
// the folder that is a site, or the whole tree without its packages.

const fs = require('node:fs')
const path = require('node:path')
const zlib = require('node:zlib')
const { spawn } = require('node:child_process')
const answer = require('./answer.cjs')
const googleFonts = require('./google_fonts.cjs')

const APP = '/app'
const MODULES = '/layers/node/node_modules'
const BIN = '/tmp/bin'
const NPM = '/layers/tools/npm/bin/npm-cli.js'
const DEEPEST = 4
/** Of a site that some tool made, and never its source. */
const NO_SITE = new Set(['node_modules', 'public', 'static', 'src', 'app', 'coverage', 'test', 'tests'])
const KEPT = new Set(['.bin', '.pnpm', '.store', '.prisma'])
/** Whoever's packages they are, scripts of the project call the others by its usual managers. */
const MANAGERS = {
  npm: `exec node ${NPM} "$@"`,
  npx: `[ "$1" = --yes ] || [ "$1" = -y ] && shift; exec "$@"`,
  ...Object.fromEntries(['yarn', 'pnpm', 'bun'].map((name) => [name,
    `[ "$1" = run ] || [ "$1" = exec ] && shift
case "$1" in -s|--silent) shift;; esac
if node -e 'process.exit(require("./package.json").scripts?.[process.argv[1]] ? 0 : 1)' "$1"; then
  script=$1; shift; [ "$1" = -- ] && shift; exec node ${NPM} run "$script" -- "$@"
fi
exec "$@"`]))
}

async function main () {
  const request = answer.request()
  const began = Date.now() - 1000
  packages(request.copied)
  programs()
  const before = pages()
  const env = { ...process.env, HOME: '/tmp/home', CI: 'false', NEXT_TELEMETRY_DISABLED: '1',
    ASTRO_TELEMETRY_DISABLED: '1', NG_CLI_ANALYTICS: 'false', GATSBY_TELEMETRY_DISABLED: '1', NUXT_TELEMETRY_DISABLED: '1',
    DISABLE_OPENCOLLECTIVE: '1', BROWSERSLIST_IGNORE_OLD_DATA: '1', npm_config_cache: '/tmp/cache',
    ...await googleFonts.environment(APP), ...request.env }
  env.PATH = `${APP}/node_modules/.bin:${BIN}:${env.PATH}`
  console.log(`$ ${request.script}`)
  const { status, told } = await run(request.script, env)
  if (status !== 0) return answer.failed(told)
  if (!request.site) return pack({ built: true }, APP, { without: ['node_modules', '.git', '.next/cache', '.vite'] })
  const folder = output(request.outputs, before, began)
  if (folder === null) return answer.failed(told, { made: made(began) })
  console.log(`the site is in ${folder || '.'}`)
  return pack({ built: true, folder }, path.join(APP, folder), { without: ['node_modules', '.git'], followed: true })
}

/** A folder that tools may write to (they keep caches in it), of links to what is mounted. */
function packages (copied) {
  const place = path.join(APP, 'node_modules')
  if (!fs.existsSync(MODULES)) return
  if (copied) {
    fs.cpSync(MODULES, place, { recursive: true, verbatimSymlinks: true, force: false })
    return
  }
  fs.mkdirSync(place, { recursive: true })
  const link = (name) => {
    try { fs.symlinkSync(path.join(MODULES, name), path.join(place, name)) } catch (error) { if (error.code !== 'EEXIST') throw error }
  }
  for (const name of fs.readdirSync(MODULES)) {
    // what else begins with a dot is a cache that an install script left
    if (!name.startsWith('@')) { if (name[0] !== '.' || KEPT.has(name)) link(name); continue }
    fs.mkdirSync(path.join(place, name), { recursive: true })
    for (const inner of fs.readdirSync(path.join(MODULES, name))) link(path.join(name, inner))
  }
}

function programs () {
  for (const folder of [BIN, '/tmp/home']) fs.mkdirSync(folder, { recursive: true })
  for (const [name, text] of Object.entries(MANAGERS)) {
    fs.writeFileSync(path.join(BIN, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 })
  }
}

/** Index pages, by their folders below APP (shallow ones first), with the time of their last change. */
function pages (folder = '', depth = 0, found = new Map()) {
  let entries = []
  try { entries = fs.readdirSync(path.join(APP, folder), { withFileTypes: true }) } catch { return found }
  const page = entries.find((entry) => entry.isFile() && entry.name === 'index.html')
  if (page) found.set(folder, fs.statSync(path.join(APP, folder, page.name)).mtimeMs)
  if (depth === DEEPEST) return found
  for (const entry of entries) {
    const hidden = entry.name.startsWith('.') && !['.vitepress', '.vuepress', '.output'].includes(entry.name)
    if (entry.isDirectory() && entry.name !== 'node_modules' && !hidden) pages(path.join(folder, entry.name), depth + 1, found)
  }
  return found
}

/** The folder that is the site: one that is expected, if the build made or left a page in it; else where it made one. */
function output (expected, before, began) {
  const now = pages()
  const fresh = [...now].filter(([folder, at]) => at >= began || before.get(folder) !== at).map(([folder]) => folder)
  const depth = (folder) => folder.split('/').length
  for (const folder of expected) {
    if (fresh.includes(folder)) return folder
    // Angular: dist/<project>/browser
    const inside = fresh.filter((one) => one.startsWith(`${folder}/`)).sort((a, b) => depth(a) - depth(b))
    if (inside.length) return inside[0]
  }
  const others = fresh.filter((folder) => folder && !folder.split('/').some((part) => NO_SITE.has(part)))
  others.sort((a, b) => depth(a) - depth(b) || (a < b ? -1 : 1))
  if (others.length) return others[0]
  // styles or scripts that are made for a page which is written by hand
  return now.has('') ? '' : null
}

/** What the build made at the top, for who looks for the page. */
function made (began) {
  return fs.readdirSync(APP).filter((name) => name !== 'node_modules' && fs.statSync(path.join(APP, name)).ctimeMs >= began).slice(0, 20)
}

/** Runs a line of the shell, its words in the log; resolves to its status and the end of what it said. */
function run (line, env) {
  return new Promise((resolve, reject) => {
    const child = spawn('sh', ['-c', line], { cwd: APP, env, stdio: ['ignore', 'pipe', 'pipe'] })
    const told = answer.heard(child)
    child.on('error', reject)
    // what it left running holds its output open, and is ended with the sandbox
    child.on('exit', (status) => setTimeout(() => resolve({ status: status ?? 1, told: told() }), 50))
  })
}

async function pack (facts, folder, { without = [], followed = false }) {
  const connection = await answer.send(facts)
  const zipped = zlib.createGzip({ level: 1 })
  const sent = new Promise((resolve, reject) => zipped.on('end', resolve).on('error', reject))
  connection.on('error', (error) => { throw error })
  zipped.pipe(connection, { end: false })
  for (const piece of tarball(folder, '', without, followed)) {
    if (!zipped.write(piece)) await new Promise((resolve) => zipped.once('drain', resolve))
  }
  zipped.end(Buffer.alloc(1024))
  await sent
  await answer.finish(connection)
  return 0
}

/** The pieces of a tarball of what is below `folder`, in order, the same for the same files; `followed`: links are what
 * they lead to. */
function * tarball (folder, at, without, followed) {
  for (const name of fs.readdirSync(path.join(folder, at)).sort()) {
    const inside = path.posix.join(at, name)
    const whole = path.join(folder, inside)
    if (without.includes(inside)) continue
    let found
    try { found = followed ? fs.statSync(whole) : fs.lstatSync(whole) } catch { continue } // a link that leads nowhere
    if (found.isDirectory()) {
      yield header(`${inside}/`, '5', 0, 0o755)
      yield * tarball(folder, inside, without, followed)
    } else if (found.isSymbolicLink()) {
      yield header(inside, '2', 0, 0o777, fs.readlinkSync(whole))
    } else if (found.isFile()) {
      yield header(inside, '0', found.size, found.mode & 0o111 ? 0o755 : 0o644)
      yield * content(whole, found.size)
    }
  }
}

/** A file's bytes, as many as its header says, and what fills the last block. */
function * content (whole, size) {
  const descriptor = fs.openSync(whole, 'r')
  try {
    for (let left = size; left > 0;) {
      const piece = Buffer.alloc(Math.min(left, 1 << 18))
      fs.readSync(descriptor, piece)
      yield piece
      left -= piece.length
    }
  } finally { fs.closeSync(descriptor) }
  yield Buffer.alloc((512 - size % 512) % 512)
}

/** One of POSIX' (pax), after a record with what its fields do not hold. */
function header (name, type, size, mode, target = '') {
  const records = [['path', name, 100], ['linkpath', target, 100]].filter(([, value, most]) => Buffer.byteLength(value) > most)
    .map(([key, value]) => record(key, value)).join('')
  const before = records ? [block('pax', 'x', Buffer.byteLength(records), 0o644, ''), Buffer.from(records),
    Buffer.alloc((512 - Buffer.byteLength(records) % 512) % 512)] : []
  return Buffer.concat([...before, block(name, type, size, mode, target)])
}

function record (key, value) {
  let length = 0
  let text = ''
  do { length = Buffer.byteLength(text); text = `${length} ${key}=${value}\n` } while (Buffer.byteLength(text) !== length)
  return text
}

function block (name, type, size, mode, target) {
  const bytes = Buffer.alloc(512)
  bytes.write(name, 0, 100)
  bytes.write(`${mode.toString(8).padStart(7, '0')}\0${'0'.repeat(7)}\0${'0'.repeat(7)}\0`, 100)
  bytes.write(`${size.toString(8).padStart(11, '0')}\0${'0'.repeat(11)}\0        ${type}`, 124)
  bytes.write(target, 157, 100)
  bytes.write('ustar\x0000', 257)
  const sum = bytes.reduce((total, byte) => total + byte, 0)
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return bytes
}

main().then((status) => process.exit(status), (error) => { console.error(error); process.exit(1) })
