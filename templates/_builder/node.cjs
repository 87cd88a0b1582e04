'use strict'
// Resolves or installs an app's npm packages; runs in a builder sandbox, with npm.
//
//   node node.cjs        orders in /layers/out/request.json, what comes of it to the socket beside it
//
// What is sent is what python.py sends: eight bytes with the length of a JSON object, the object, and then, of an
// installation, a tarball of the layer.

const fs = require('node:fs')
const path = require('node:path')
const { spawn, spawnSync } = require('node:child_process')
const answer = require('./answer.cjs')

const NPM = '/layers/tools/npm/bin/npm-cli.js'
const PLACE = '/tmp/layer'
const COMPILERS = '/layers/compilers'
const HEADERS = '/layers/headers'
const MOST_LOOKED_FOR = 300
const QUIET = ['--no-audit', '--no-fund', '--no-update-notifier', '--no-progress', '--loglevel=warn']

async function main () {
  const request = answer.request()
  // where node_modules is made it stays: programs in it know their place
  const place = request.inPlace ? '/app' : PLACE
  fs.mkdirSync(place, { recursive: true })
  fs.mkdirSync('/tmp/home', { recursive: true })
  for (const [name, text] of Object.entries(request.files)) fs.writeFileSync(path.join(place, name), text)
  const env = { ...process.env, HOME: '/tmp/home', npm_config_cache: '/tmp/cache', CI: 'true' }
  env.PATH = `/layers/tools/bin:${env.PATH}`
  // by default npm 12 refuses the registry's own tarballs of packages that bring others with them (Tailwind 4)
  env.npm_config_allow_remote = 'all'
  if (request.compilers) {
    console.log('a package has no ready-made file for this machine: it is compiled')
    compilers(env)
  }
  return request.step === 'resolve' ? resolve(request, place, env) : install(request, place, env)
}

/** Has gcc, what belongs to it and Python be found, with the headers of this Node. */
function compilers (env) {
  env.PATH = `${COMPILERS}/bin:${env.PATH}:${COMPILERS}/python`
  env.PYTHON = env.npm_config_python = `${COMPILERS}/python/python3`
  // node-gyp asks Python where it is, and from then on calls it there
  env.LD_LIBRARY_PATH = `${COMPILERS}/lib`
  env.PYTHONPYCACHEPREFIX = '/tmp/pycache'
  // node-gyp's settings; those of npm's own, and of an older one that a package brings
  for (const prefix of ['npm_package_config_node_gyp_', 'npm_config_']) env[`${prefix}nodedir`] = HEADERS
  env.JOBS = '2'
}

/** Writes the lock that `npm ci` then follows; no code of any package runs. */
async function resolve (request, place, env) {
  console.log('resolving the dependencies of package.json')
  const argv = [NPM, 'install', '--package-lock-only', '--ignore-scripts', ...QUIET, ...request.flags]
  const { status, told } = await run(argv, place, env)
  // npm names one that does not exist at a time
  if (status !== 0) return answer.failed(told, { unknown: told.includes('code E404') ? await unknown(place, env) : [] })
  await answer.finish(await answer.send({ resolution: fs.readFileSync(path.join(place, 'package-lock.json'), 'utf8') }))
  return 0
}

async function install (request, place, env) {
  const scripts = ['--dangerously-allow-all-scripts', '--foreground-scripts']
  const { status, told } = await run([NPM, request.follow, ...scripts, ...QUIET, ...request.flags], place, env)
  if (status !== 0) return answer.failed(told)
  const modules = path.join(place, 'node_modules')
  fs.mkdirSync(modules, { recursive: true })
  const connection = await answer.send({ installed: true, lacking: request.compilers ? compiled(place) : {} })
  return pack(place, connection)
}

/** Removes what compiling left and nobody needs; returns the libraries that its outcome wants and that are not there. */
function compiled (place) {
  for (const left of fs.globSync('node_modules/**/build/{Release,Debug}/{obj.target,obj,.deps}', { cwd: place })) {
    fs.rmSync(path.join(place, left), { recursive: true, force: true })
  }
  const argv = ['-I', path.join(answer.OUT, 'linked.py'), place]
  return JSON.parse(spawnSync(`${COMPILERS}/python/python3`, argv, { encoding: 'utf8' }).stdout || '{}')
}

/** The names in package.json that the registry does not have. */
async function unknown (place, env) {
  const manifest = JSON.parse(fs.readFileSync(path.join(place, 'package.json'), 'utf8'))
  const registry = (env.npm_config_registry || env.NPM_CONFIG_REGISTRY || '').replace(/\/$/, '')
  const specs = Object.entries({ ...manifest.dependencies, ...manifest.devDependencies })
  const names = specs.filter(([, spec]) => !/[:/]/.test(spec)).map(([name]) => name).slice(0, MOST_LOOKED_FOR)
  const absent = []
  for (let at = 0; at < names.length; at += 8) {
    await Promise.all(names.slice(at, at + 8).map(async (name) => {
      try {
        const found = await fetch(`${registry}/${name.replace('/', '%2f')}`, { signal: AbortSignal.timeout(20000) })
        if (found.status === 404) absent.push(name)
        await found.body?.cancel()
      } catch {}
    }))
  }
  return absent.sort()
}

/** Runs node on argv, its words in the log; resolves to its status and the end of what it said. */
function run (argv, cwd, env) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, argv, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
    const told = answer.heard(child)
    child.on('error', reject)
    child.on('close', (status) => resolve({ status: status ?? 1, told: told() }))
  })
}

function pack (place, connection) {
  return new Promise((resolve, reject) => {
    const tar = spawn('tar', ['-C', place, '-cf', '-', 'node_modules'], { stdio: ['ignore', 'pipe', 'inherit'] })
    tar.on('error', reject)
    connection.on('error', reject)
    tar.stdout.pipe(connection, { end: false })
    tar.on('close', async (status) => { await answer.finish(connection); resolve(status ?? 1) })
  })
}

main().then((status) => { process.exitCode = status }, (error) => { console.error(error); process.exitCode = 1 })
