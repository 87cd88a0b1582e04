'use strict'
// What packages are compiled with, where a builder sandbox has it.

const COMPILERS = '/layers/compilers'
const HEADERS = '/layers/headers'

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

module.exports = { COMPILERS, compilers }
