'use strict'
// Fonts of Google for next/font/google, from the npm registry: a builder reaches nobody else, and Next.js ends a build
// whose fonts it cannot fetch. It takes what such a request would answer from a file; here it is written.
//
// Fontsource publishes the same files as npm packages. What cannot be had there is the visitor's own font of that name,
// or the fallback that Next.js chooses.

const fs = require('node:fs')
const path = require('node:path')
const vm = require('node:vm')
const zlib = require('node:zlib')

const OWN = 'next/dist/compiled/@next/font/dist/google'
const SOURCE = /\.[cm]?[jt]sx?$/
const IMPORT = /import\s*\{([^{}]{1,2000})\}\s*from\s*['"]next\/font\/google['"]/g
const ANSWERS = '/tmp/google-fonts.json'
const WAIT_MS = 20_000

/** What a build has to be told so that its fonts are found; nothing where `app` asks for none. */
async function environment (app) {
  const asked = calls(app)
  if (!asked.length || !fs.existsSync(path.join(app, 'node_modules', OWN))) return {}
  const own = (name) => require(path.join(app, 'node_modules', OWN, name))
  const { validateGoogleFontFunctionCall: checked } = own('validate-google-font-function-call.js')
  const { getFontAxes } = own('get-font-axes.js')
  const { getGoogleFontsUrl } = own('get-google-fonts-url.js')
  const answers = {}
  for (const { name, options } of asked) {
    try {
      const font = checked(name, options)
      const axes = getFontAxes(font.fontFamily, font.weights, font.styles, font.selectedVariableAxes)
      answers[getGoogleFontsUrl(font.fontFamily, axes, font.display)] = await faces(font, axes)
    } catch (error) {
      // Next.js says the same, with the line that is wrong
      console.log(`${name} of next/font/google: ${error.message}`)
    }
  }
  fs.writeFileSync(ANSWERS, JSON.stringify(answers))
  return { NEXT_FONT_GOOGLE_MOCKED_RESPONSES: ANSWERS }
}

/** The calls of fonts in the sources, with their options: literals, as Next.js wants them. */
function calls (folder, found = []) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const at = path.join(folder, entry.name)
    if (entry.isDirectory()) {
      if (entry.name !== 'node_modules' && !entry.name.startsWith('.')) calls(at, found)
    } else if (entry.isFile() && SOURCE.test(entry.name)) {
      const text = fs.readFileSync(at, 'utf8')
      for (const [, names] of text.matchAll(IMPORT)) {
        for (const one of names.split(',').map((word) => word.trim()).filter(Boolean)) {
          const [name, local = name] = one.split(/\s+as\s+/)
          for (const { index } of text.matchAll(new RegExp(`\\b${local}\\s*\\(`, 'g'))) {
            const options = literal(text.slice(text.indexOf('(', index)))
            if (options !== null) found.push({ name, options })
          }
        }
      }
    }
  }
  return found
}

/** What is between the brackets that `text` begins with; null where that is no literal. */
function literal (text) {
  let depth = 0
  for (let at = 0; at < Math.min(text.length, 4000); at++) {
    if ('([{'.includes(text[at])) depth++
    else if (')]}'.includes(text[at]) && --depth === 0) {
      try { return vm.runInNewContext(`(${text.slice(1, at).replace(/\bas\s+const\b/g, '').trim() || 'undefined'})`) } catch { return null }
    }
  }
  return null
}

/** The style sheet for a font, its files in it. */
async function faces (font, axes) {
  const id = font.fontFamily.toLowerCase().replaceAll(' ', '-')
  const variable = font.weights[0] === 'variable'
  const files = await packed(`${variable ? '@fontsource-variable' : '@fontsource'}/${id}`)
  const subsets = font.subsets?.length ? font.subsets : ['latin']
  let css = ''
  for (const style of font.styles) {
    for (const weight of variable ? axes.wght ?? ['400'] : font.weights) {
      for (const subset of subsets) {
        const file = files.get(`${id}-${subset}-${variable ? 'wght' : weight}-${style}.woff2`)
        const source = file ? `url(data:font/woff2;base64,${file.toString('base64')}) format('woff2')` : `local('${font.fontFamily}')`
        css += `/* ${subset} */\n@font-face{font-family:'${font.fontFamily}';font-style:${style};` +
          `font-weight:${String(weight).replace('..', ' ')};font-display:${font.display};src:${source}}\n`
      }
    }
  }
  if (!files.size) console.log(`${font.fontFamily} is not in the npm registry: visitors see their own font of that name, or the fallback`)
  return css
}

/** The files of a package by their names; none where it cannot be had. */
async function packed (name) {
  const files = new Map()
  const registry = process.env.npm_config_registry ?? process.env.NPM_CONFIG_REGISTRY
  try {
    const get = (url) => fetch(url, { signal: AbortSignal.timeout(WAIT_MS) })
    const about = await (await get(`${registry.replace(/\/?$/, '/')}${name.replace('/', '%2f')}`)).json()
    const answer = await get(about.versions[about['dist-tags'].latest].dist.tarball)
    const tar = zlib.gunzipSync(Buffer.from(await answer.arrayBuffer()))
    for (let at = 0; at + 512 <= tar.length && tar[at] !== 0;) {
      const text = (from, length) => tar.toString('utf8', at + from, at + from + length).replace(/\0.*$/s, '')
      const size = parseInt(text(124, 12), 8) || 0
      if (text(0, 100).endsWith('.woff2')) files.set(path.basename(text(0, 100)), tar.subarray(at + 512, at + 512 + size))
      at += 512 + Math.ceil(size / 512) * 512
    }
  } catch (error) { console.log(`${name}: ${error.message}`) }
  return files
}

module.exports = { environment }
