'use strict'
// An app's folder with the packages that were installed for it, and how its own scripts are run there.

const fs = require('node:fs')
const path = require('node:path')
const { spawn } = require('node:child_process')
const answer = require('./answer.cjs')
const googleFonts = require('./google_fonts.cjs')
const angularFonts = require('./angular_fonts.cjs')
const { compilers } = require('./compilers.cjs')

const APP = '/app'
const LAYER = '/layers/node'
const BIN = '/tmp/bin'
const NPM = '/layers/tools/npm/bin/npm-cli.js'
/** What tools keep among packages for their next time, and managers for themselves, by its name. */
const CACHES = /^\..*(?:cache|te?mp|vite|turbo|log|lock|state|yarn|\.ya?ml|\.json)|^\.(?:bin|pnpm|store)$/i
const KEPT = new Set(['.bin', '.pnpm', '.store'])
/** Whoever's packages they are, scripts of the project call the others by its usual managers. */
const MANAGERS = {
  npm: `[ "$1" = run ] && [ $# = 2 ] && exec node ${answer.OUT}/run_script.cjs ${NPM} "$2"
exec node ${NPM} "$@"`,
  npx: `[ "$1" = --yes ] || [ "$1" = -y ] && shift; exec "$@"`,
  bunx: `[ "$1" = --bun ] && shift; exec "$@"`,
  ...Object.fromEntries(['yarn', 'pnpm', 'bun'].map((name) => [name,
    `[ "$1" = run ] || [ "$1" = exec ] && shift
case "$1" in -s|--silent) shift;; esac
if node -e 'process.exit(require("./package.json").scripts?.[process.argv[1]] ? 0 : 1)' "$1"; then
  script=$1; shift; [ "$1" = -- ] && shift
  [ $# = 0 ] && exec node ${answer.OUT}/run_script.cjs ${NPM} "$script"
  exec node ${NPM} run "$script" -- "$@"
fi
exec "$@"`]))
}

/** Lays what was installed into the app's folders; returns the time (milliseconds) from which on what is written there is
 * the app's own. */
function packages ({ folders, copied }) {
  answer.withoutCredentials(APP)
  for (const folder of folders) lay(folder, copied)
  angularFonts.left(APP)
  const laid = Date.now() + 1
  while (Date.now() <= laid);
  return laid
}

/** A folder that tools may write to (they keep caches in it), of links to what is mounted. */
function lay (folder, copied) {
  const mounted = path.join(LAYER, folder)
  const place = path.join(APP, folder)
  if (!fs.existsSync(mounted)) return
  if (copied) {
    fs.cpSync(mounted, place, { recursive: true, verbatimSymlinks: true, force: false })
    return
  }
  fs.mkdirSync(place, { recursive: true })
  const link = (name) => {
    try { fs.symlinkSync(path.join(mounted, name), path.join(place, name)) } catch (error) { if (error.code !== 'EEXIST') throw error }
  }
  for (const name of fs.readdirSync(mounted)) {
    if (!name.startsWith('@')) { if (KEPT.has(name) || !CACHES.test(name)) link(name); continue }
    fs.mkdirSync(path.join(place, name), { recursive: true })
    for (const inner of fs.readdirSync(path.join(mounted, name))) link(path.join(name, inner))
  }
}

/** Whether there is more in a folder of packages than was laid there, but for what tools keep for their next time.
 * `since`: milliseconds, where the packages are copies; else they are links. */
function written (folder, since, at = '') {
  const place = path.join(APP, folder, at)
  let entries = []
  try { entries = fs.readdirSync(place, { withFileTypes: true }) } catch { return false }
  return entries.some((entry) => {
    if (!at && CACHES.test(entry.name)) return false
    const inner = path.join(at, entry.name)
    if (entry.isSymbolicLink() && !since) return !fs.readlinkSync(path.join(place, entry.name)).startsWith(`${LAYER}/`)
    if (entry.isDirectory() && (since || (!at && entry.name.startsWith('@')))) return written(folder, since, inner)
    return !since || (!entry.isDirectory() && fs.lstatSync(path.join(place, entry.name)).ctimeMs >= since)
  })
}

function programs () {
  for (const folder of [BIN, '/tmp/home']) fs.mkdirSync(folder, { recursive: true })
  for (const [name, text] of Object.entries(MANAGERS)) {
    fs.writeFileSync(path.join(BIN, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 })
  }
}

/** What names the packages that it uses: its package.json, and whose commands there are. */
function named () {
  try { return fs.readFileSync(path.join(APP, 'package.json'), 'utf8') } catch { return '' }
}

/** What its scripts are told; `own`: by its owner, or for its tool. */
async function environment (own, compiles) {
  const env = { ...process.env, HOME: '/tmp/home', CI: 'false', NEXT_TELEMETRY_DISABLED: '1',
    ASTRO_TELEMETRY_DISABLED: '1', NG_CLI_ANALYTICS: 'false', GATSBY_TELEMETRY_DISABLED: '1', NUXT_TELEMETRY_DISABLED: '1',
    DISABLE_OPENCOLLECTIVE: '1', BROWSERSLIST_IGNORE_OLD_DATA: '1', WRANGLER_SEND_METRICS: 'false',
    npm_config_cache: '/tmp/cache', ...await answer.without(named()), ...await googleFonts.environment(APP), ...own }
  env.PATH = `${APP}/node_modules/.bin:${BIN}:${env.PATH}`
  if (compiles) compilers(env)
  return env
}

/** Runs a line of the shell, its words in the log; resolves to its status and the end of what it said. */
function run (line, env) {
  return new Promise((resolve, reject) => {
    let status
    const child = spawn('sh', ['-c', line], { cwd: APP, env, stdio: ['ignore', 'pipe', 'pipe'] })
    const told = answer.heard(child)
    child.on('error', reject)
    const done = () => resolve({ status, told: told() })
    child.on('close', done)
    // what it left running holds its output open, and is ended with the sandbox
    child.on('exit', (code) => { status = code ?? 1; setTimeout(done, 50) })
  })
}

module.exports = { APP, LAYER, packages, written, programs, environment, run }
