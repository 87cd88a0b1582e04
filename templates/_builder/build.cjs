'use strict'
// Builds an app with its own build script, in a builder sandbox where its packages are mounted.
//
//   node build.cjs       orders in /layers/out/request.json, what comes of it to the socket beside it
//
// What is sent: eight bytes with the length of a JSON object, the object, and then a gzipped tarball of what was built:
// the folder that is a site, or the whole tree without its packages. Where it wrote among those, they come too, by a
// connection of their own, as from an installation.

const fs = require('node:fs')
const path = require('node:path')
const answer = require('./answer.cjs')
const { APP, packages, written, programs, environment, run } = require('./project.cjs')
const { pack, packModules } = require('./tarball.cjs')

const DEEPEST = 4
/** Of a site that some tool made, and never its source. */
const NO_SITE = new Set(['node_modules', 'public', 'static', 'src', 'app', 'coverage', 'test', 'tests'])

async function main () {
  const request = answer.request()
  const began = Date.now() - 1000
  const laid = packages(request)
  programs()
  const before = pages()
  console.log(`$ ${request.script}`)
  const { status, told } = await run(request.script, await environment(request.env, request.compilers))
  if (status !== 0) return answer.failed(told)
  if (!request.site) {
    const carried = request.folders.some((folder) => written(folder, request.copied ? laid : 0))
    if (carried) console.log('what it wrote among its packages is kept with them')
    const without = ['node_modules', ...request.folders, '.git', '.next/cache', '.vite']
    await pack({ built: true, carried }, APP, { without })
    return carried ? packModules(request.folders) : 0
  }
  const folder = output(request.outputs, before, began)
  if (folder === null) return answer.failed(told, { made: made(began) })
  console.log(`the site is in ${folder || '.'}`)
  return pack({ built: true, folder }, path.join(APP, folder), { without: ['node_modules', '.git'], followed: true })
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

main().then((status) => process.exit(status), (error) => { console.error(error); process.exit(1) })
