'use strict'
// One module of all that a worker's entry reaches, with esbuild, as Wrangler bundles: for the conditions workerd, worker
// and browser; what Node brings is left to workerd; WebAssembly and data are modules of their own.

const crypto = require('node:crypto')
const fs = require('node:fs')
const path = require('node:path')
const { builtinModules } = require('node:module')
const esbuild = require(process.env.VIBED_ESBUILD ?? '/layers/tools/bundler/node_modules/esbuild')

const TEXTS = ['.txt', '.html', '.sql', '.md']
const NODE = new Set(builtinModules.map((name) => name.replace(/^node:/, '')))

/** Writes `index.js`, and what it imports that is no JavaScript, into a folder. */
async function bundle (root, entry, into) {
  const told = (messages, kind) => esbuild.formatMessages(messages, { kind, color: false })
  try {
    const { outputFiles, warnings } = await esbuild.build({
      absWorkingDir: root,
      entryPoints: [`./${entry}`],
      outfile: path.join(into, 'index.js'),
      write: false,
      bundle: true,
      format: 'esm',
      target: 'es2024',
      platform: 'neutral',
      mainFields: ['workerd', 'worker', 'browser', 'module', 'main'],
      conditions: ['workerd', 'worker', 'browser'],
      external: ['cloudflare:*', 'workerd:*', '__STATIC_CONTENT_MANIFEST'],
      loader: { '.js': 'jsx', '.mjs': 'jsx', '.cjs': 'jsx', ...Object.fromEntries(TEXTS.map((kind) => [kind, 'text'])) },
      define: { 'process.env.NODE_ENV': '"production"' },
      keepNames: true,
      charset: 'utf8',
      logLevel: 'silent',
      logLimit: 20,
      plugins: [ofNode, files(into)],
    })
    for (const file of outputFiles) fs.writeFileSync(file.path, file.contents)
    return { failed: null, warned: await told(warnings.slice(0, 5), 'warning'), bytes: outputFiles[0].contents.length }
  } catch (error) {
    if (!error.errors) throw error
    return { failed: (await told(error.errors.slice(0, 20), 'error')).join(''), warned: [], bytes: 0 }
  }
}

/** What Node brings is workerd's, also under the names that packages of npm stand in for it; and for CommonJS, which
 * cannot wait for a module, it is imported before. */
const ofNode = {
  name: 'node',
  setup (build) {
    build.onResolve({ filter: /^(?:node:)?[a-z][\w/]*$/ }, ({ path: name, kind }) => {
      const bare = name.replace(/^node:/, '')
      if (bare === name ? !NODE.has(name) : false) return undefined
      const module = `node:${bare}`
      return kind === 'require-call' ? { path: module, namespace: 'required' } : { path: module, external: true }
    })
    build.onLoad({ filter: /.*/, namespace: 'required' }, ({ path: name }) => ({
      contents: `import * as all from ${JSON.stringify(name)}; module.exports = all.default ?? all`,
      loader: 'js',
    }))
  },
}

/** WebAssembly and data, from wherever: beside the module, under names of their own. */
const files = (into) => ({
  name: 'files',
  setup (build) {
    build.onResolve({ filter: /\.(?:wasm|bin)(?:\?\w+)?$/ }, async ({ path: name, pluginData, ...how }) => {
      if (pluginData === 'looked for') return undefined
      const { resolveDir, importer, kind } = how
      const found = await build.resolve(name.replace(/\?\w+$/, ''), { resolveDir, importer, kind, pluginData: 'looked for' })
      if (found.errors.length) return { errors: found.errors }
      const content = fs.readFileSync(found.path)
      const digest = crypto.createHash('sha256').update(content).digest('hex').slice(0, 12)
      const own = `${digest}-${path.basename(found.path)}`
      fs.writeFileSync(path.join(into, own), content)
      return { path: `./${own}`, external: true }
    })
  },
})

module.exports = { bundle }
