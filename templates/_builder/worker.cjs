'use strict'
// Makes a worker of an app's source, in a builder sandbox where its packages are mounted: its own build script first,
// where there is one, and then one module of all that its entry reaches, as Wrangler does.
//
//   node worker.cjs      orders in /layers/out/request.json, what comes of it to the socket beside it
//
// What is sent is what build.cjs sends; the tarball has
//
//   worker/         the module index.js, and what it imports that is no JavaScript; or what the app's own build made
//   assets/         the static files beside it, if there are any
//   wrangler.json   the worker's settings, where the build made them

const fs = require('node:fs')
const path = require('node:path')
const answer = require('./answer.cjs')
const { APP, packages, programs, environment, run } = require('./project.cjs')
const { bundle } = require('./bundle.cjs')
const { pack } = require('./tarball.cjs')

const PLACE = '/tmp/out'
/** Where tools that build for Cloudflare (Vite's plugin, and frameworks with it) say what they made. */
const MADE = '.wrangler/deploy/config.json'

async function main () {
  const request = answer.request()
  packages(request)
  programs()
  fs.mkdirSync(path.join(PLACE, 'worker'), { recursive: true })
  if (request.script) {
    console.log(`$ ${request.script}`)
    const { status, told } = await run(request.script, await environment(request.env, request.compilers))
    if (status !== 0) return answer.failed(told)
  }
  const told = request.script ? taken() : null
  if (told === null) {
    const failure = await bundled(request.entry)
    if (failure !== null) return answer.failed(failure)
    if (request.assets !== null) beside(request.assets)
  }
  const entry = `assets/${path.posix.relative(request.assets ?? '', request.entry)}`
  const without = ['assets/node_modules', 'assets/.git', 'assets/.wrangler', 'worker/.vite', 'worker/wrangler.json', 'worker/.dev.vars', entry]
  return pack({ built: true }, PLACE, { without, followed: true })
}

/** Takes over what the build says that it made; null where it says nothing. */
function taken () {
  const saying = path.join(APP, MADE)
  if (!fs.existsSync(saying)) return null
  const place = path.resolve(path.dirname(saying), JSON.parse(fs.readFileSync(saying, 'utf8')).configPath)
  const settings = JSON.parse(fs.readFileSync(place, 'utf8'))
  const folder = path.dirname(place)
  if (!settings.main) return null
  fs.rmdirSync(path.join(PLACE, 'worker'))
  fs.symlinkSync(folder, path.join(PLACE, 'worker'))
  console.log(`the worker is in ${path.relative(APP, folder)}`)
  if (settings.assets?.directory) {
    beside(path.relative(APP, path.resolve(folder, settings.assets.directory)))
    settings.assets.directory = 'assets'
  }
  settings.main = path.posix.join('worker', settings.main)
  fs.writeFileSync(path.join(PLACE, 'wrangler.json'), JSON.stringify(settings))
  return settings
}

function beside (folder) {
  const place = path.join(APP, folder)
  if (fs.existsSync(place)) fs.symlinkSync(place, path.join(PLACE, 'assets'))
}

/** Makes the module; what went wrong in esbuild's words, null where nothing did. */
async function bundled (entry) {
  if (!fs.existsSync(path.join(APP, entry))) return `[ERROR] the build ended well, and made no ${entry}\n`
  console.log(`bundling ${entry}`)
  const { failed, warned, bytes } = await bundle(APP, entry, path.join(PLACE, 'worker'))
  for (const words of warned) process.stderr.write(words)
  if (failed !== null) process.stderr.write(failed)
  else console.log(`the worker has ${Math.ceil(bytes / 1024)} KB`)
  return failed
}

main().then((status) => process.exit(status), (error) => { console.error(error); process.exit(1) })
