'use strict'
// Runs a script of a package as `npm run NAME` does, without starting npm, which takes longer than many a script.
//
//   node run_script.cjs NPM NAME     NPM: npm's own program, which does what is anything but plain

const fs = require('node:fs')
const path = require('node:path')
const { spawnSync } = require('node:child_process')

const [npm, name] = process.argv.slice(2)
const folder = process.cwd()

function main () {
  const manifest = read(path.join(folder, 'package.json'))
  const scripts = manifest?.scripts
  // settings of the project may name another shell, or options of Node
  if (typeof scripts?.[name] !== 'string' || !scripts[name].trim() || fs.existsSync(path.join(folder, '.npmrc'))) {
    return run(process.execPath, [npm, 'run', name])
  }
  for (const event of [`pre${name}`, name, `post${name}`]) {
    if (typeof scripts[event] !== 'string' || !scripts[event].trim()) continue
    console.log(`> ${scripts[event]}`)
    const status = run('sh', ['-c', scripts[event]], environment(manifest, event))
    if (status) return status
  }
  return 0
}

function run (program, args, env = process.env) {
  const { status, error } = spawnSync(program, args, { stdio: 'inherit', env })
  if (error) console.error(error.message)
  return status ?? 1
}

function read (file) {
  try { return JSON.parse(fs.readFileSync(file, 'utf8').replace(/^\uFEFF/, '')) } catch { return null }
}

/** What npm tells a script. */
function environment (manifest, event) {
  const env = {
    ...process.env,
    INIT_CWD: process.env.INIT_CWD || folder,
    NODE: process.execPath,
    npm_command: 'run',
    npm_execpath: npm,
    npm_node_execpath: process.execPath,
    npm_config_user_agent: `npm/${read(path.join(npm, '../../package.json'))?.version ?? '0'} node/${process.version} ${process.platform} ${process.arch} workspaces/false`,
    npm_config_local_prefix: folder,
    npm_package_json: path.join(folder, 'package.json'),
    npm_lifecycle_event: event,
    npm_lifecycle_script: manifest.scripts[event],
    PATH: [...bins(folder), process.env.PATH].join(':')
  }
  for (const one of Object.keys(env)) if (one.startsWith('npm_package_') && one !== 'npm_package_json') delete env[one]
  tell(env, 'npm_package', Object.fromEntries(['name', 'version', 'config', 'engines', 'bin'].filter((key) => manifest[key]).map((key) => [key, manifest[key]])))
  return env
}

function tell (env, prefix, facts) {
  for (const [key, value] of Object.entries(facts)) {
    const named = `${prefix}_${key.replace(/[^a-zA-Z0-9_]/g, '_')}`
    if (value !== null && typeof value === 'object') tell(env, named, value)
    else env[named] = String(value)
  }
}

/** Where commands of packages are looked for: beside the package, and in every folder above it. */
function bins (from) {
  const found = []
  for (let at = from; ; at = path.dirname(at)) {
    found.push(path.join(at, 'node_modules', '.bin'))
    if (at === path.dirname(at)) return found
  }
}

process.exit(main())
