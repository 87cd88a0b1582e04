'use strict'
// Fonts of Angular's builds: by default it fetches the style sheets that pages and styles name at Google's and writes
// them into what it makes; a builder reaches the registries alone, and the build ends with that. Told to leave them, it
// makes pages whose fonts each visitor's browser fetches, as in development.

const fs = require('node:fs')
const path = require('node:path')

/** From here on it is a setting, and what is not said is built for production. */
const SINCE = 12
const BUILDERS = /^@angular(?:-devkit\/build-angular|\/build):(?:browser|browser-esbuild|application)$/
const DEFAULT = { scripts: true, styles: { minify: true, inlineCritical: true }, fonts: false }

/** Has the builds that angular.json of `app` describes leave fonts where they are. */
function left (app) {
  const file = path.join(app, 'angular.json')
  let settings
  try {
    const { version } = JSON.parse(fs.readFileSync(path.join(app, 'node_modules/@angular/cli/package.json'), 'utf8'))
    if (parseInt(version, 10) < SINCE) return
    settings = JSON.parse(fs.readFileSync(file, 'utf8'))
  } catch { return } // there is none, or the tool itself says what is wrong with it
  for (const project of Object.values(settings.projects ?? {})) {
    for (const target of Object.values(project.architect ?? project.targets ?? {})) {
      if (!BUILDERS.test(target.builder)) continue
      target.options = { ...target.options, optimization: without(target.options?.optimization ?? true) }
      for (const one of Object.values(target.configurations ?? {})) {
        if ('optimization' in one) one.optimization = without(one.optimization)
      }
    }
  }
  fs.writeFileSync(file, JSON.stringify(settings, null, 2))
}

function without (optimization) {
  if (optimization === true) return DEFAULT
  return optimization ? { ...optimization, fonts: false } : optimization
}

module.exports = { left }
