'use strict'
// Resolves or installs an app's npm packages; runs in a builder sandbox, with the app's own package manager.
//
//   node node.cjs        orders in /layers/out/request.json, what comes of it to the socket beside it
//
// What is sent is what python.py sends: eight bytes with the length of a JSON object, the object, and then, of an
// installation, a tarball of the layer.

const fs = require('node:fs')
const path = require('node:path')
const { spawn, spawnSync } = require('node:child_process')
const answer = require('./answer.cjs')
const { COMPILERS, compilers } = require('./compilers.cjs')

const APP = '/app'
const PLACE = '/tmp/layer'
const MOST_LOOKED_FOR = 300
const ABSENT = /\bE?404\b|Couldn't find package|Package not found/
/** What managers write down for themselves, with times and places in it. */
const OWN_NOTES = ['.modules.yaml', '.pnpm-workspace-state.json', '.pnpm-workspace-state-v1.json', '.yarn-integrity',
  '.yarn-state.yml', '.package-map.json', '.cache']

async function main () {
  const request = answer.request()
  // where node_modules is made it stays: programs in it know their place
  const place = request.inPlace ? path.join(APP, request.folder || '') : PLACE
  fs.mkdirSync(place, { recursive: true })
  fs.mkdirSync('/tmp/home', { recursive: true })
  for (const [name, text] of Object.entries(request.files)) {
    fs.mkdirSync(path.dirname(path.join(place, name)), { recursive: true })
    fs.writeFileSync(path.join(place, name), text)
  }
  answer.withoutCredentials(APP)
  answer.withoutCredentials(place)
  const env = { ...process.env, HOME: '/tmp/home', npm_config_cache: '/tmp/cache', CI: 'true', ...request.env }
  if (request.step !== 'resolve') Object.assign(env, await answer.without(Object.values(request.files).join('\n')))
  env.PATH = `/layers/tools/bin:${env.PATH}`
  // by default npm 12 refuses the registry's own tarballs of packages that bring others with them (Tailwind 4)
  env.npm_config_allow_remote = 'all'
  if (request.compilers) {
    console.log('a package has no ready-made file for this machine: it is compiled')
    compilers(env)
  }
  if (request.laid) {
    // not who owned them: it would complain of each file, and of many that is more than is heard here
    const copied = spawnSync('cp', ['-R', '-P', path.join(request.laid, 'node_modules'), place], { encoding: 'utf8' })
    if (copied.status !== 0) return answer.failed(copied.stderr || 'what was laid out could not be copied')
  }
  if (request.step === 'resolve') console.log('resolving the dependencies of package.json')
  for (const command of request.commands) {
    const { status, told } = await run(command, place, env)
    // managers name one that does not exist at a time
    if (status !== 0) return answer.failed(told, { unknown: ABSENT.test(told) ? await unknown(place, env) : [] })
    if (request.held && grown(request, place)) return answer.failed(`${request.held.file}: it would become longer`)
  }
  return request.step === 'resolve' ? resolved(request, place) : installed(request, place)
}

/** Sends the lock that is then followed. */
async function resolved (request, place) {
  await answer.finish(await answer.send({ resolution: fs.readFileSync(path.join(place, request.lock), 'utf8') }))
  return 0
}

async function installed (request, place) {
  const root = request.inPlace ? APP : place
  fs.mkdirSync(path.join(place, 'node_modules'), { recursive: true })
  if (request.inPlace && request.linked) members(request.files, place)
  const folders = request.inPlace ? [...modules(root)] : ['node_modules']
  for (const folder of folders) {
    for (const name of OWN_NOTES) fs.rmSync(path.join(root, folder, name), { recursive: true, force: true })
  }
  if (request.inPlace) for (const folder of folders) lead(path.join(root, folder), folders.map((one) => path.join(root, one)))
  const lacking = request.compilers ? compiled(root) : {}
  return pack(root, folders, await answer.send({ installed: true, folders, lacking }))
}

/** Has each package of a workspace find what it names in its own folder too, as it does by pnpm's own links: type roots,
 * styles and scripts name it there. */
function members (files, place) {
  for (const [name, text] of Object.entries(files)) {
    const folder = path.dirname(name)
    if (path.basename(name) !== 'package.json' || folder === '.') continue
    const { dependencies, devDependencies, optionalDependencies } = JSON.parse(text)
    for (const wanted of Object.keys({ ...dependencies, ...devDependencies, ...optionalDependencies })) {
      const here = path.join(place, folder, 'node_modules', wanted)
      const there = path.join(place, 'node_modules', wanted)
      if (fs.existsSync(here) || !fs.existsSync(there)) continue
      fs.mkdirSync(path.dirname(here), { recursive: true })
      fs.symlinkSync(path.relative(path.dirname(here), there), here)
    }
  }
}

/** The folders of packages below one, none of them inside another: that of a project, and those of its workspaces. */
function * modules (root, at = '') {
  for (const entry of fs.readdirSync(path.join(root, at), { withFileTypes: true })) {
    if (!entry.isDirectory() || entry.name === '.git') continue
    if (entry.name === 'node_modules') yield path.join(at, entry.name)
    else yield * modules(root, path.join(at, entry.name))
  }
}

/** Has links lead where they will be: to what is packed by the way from here to there, which stays, and to the project's
 * own files (the packages of a workspace) by where the source is. */
function lead (folder, packed) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const whole = path.join(folder, entry.name)
    if (entry.isDirectory()) lead(whole, packed)
    if (!entry.isSymbolicLink()) continue
    const said = fs.readlinkSync(whole)
    const target = path.resolve(folder, said)
    const within = packed.some((one) => target.startsWith(`${one}/`))
    const right = within ? path.relative(folder, target) : target
    if (right === said) continue
    fs.unlinkSync(whole)
    if (within || target.startsWith(`${APP}/`)) fs.symlinkSync(right, whole)
  }
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

/** Whether a file has lines of a kind that it was not given. */
function grown ({ files, held }, place) {
  const kind = new RegExp(held.lines)
  const lines = (text) => text.split('\n').filter((line) => kind.test(line))
  const given = new Set(lines(files[held.file]))
  return lines(fs.readFileSync(path.join(place, held.file), 'utf8')).some((line) => !given.has(line))
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

function pack (root, folders, connection) {
  return new Promise((resolve, reject) => {
    const tar = spawn('tar', ['-C', root, '-cf', '-', '--', ...folders], { stdio: ['ignore', 'pipe', 'inherit'] })
    tar.on('error', reject)
    connection.on('error', reject)
    tar.stdout.pipe(connection, { end: false })
    tar.on('close', async (status) => { await answer.finish(connection); resolve(status ?? 1) })
  })
}

main().then((status) => { process.exitCode = status }, (error) => { console.error(error); process.exitCode = 1 })
