'use strict'
// What programs of a builder sandbox share: their orders, the log, and how what came of it is sent: eight bytes with the
// length of a JSON object, the object, and then whatever comes with it.

const fs = require('node:fs')
const net = require('node:net')
const path = require('node:path')

const OUT = '/layers/out'
const TOLD_BYTES = 48 << 10
const CREDENTIALS = /^[ \t]*["']?(?:\/\/[^\s=]{1,200}:)?(?:_authToken|_auth|_password|username|email|certfile|keyfile|cert|key|tokenHelper|npmAuthToken|npmAuthIdent|always-auth|npmAlwaysAuth)["']?(?:\[\])?[ \t]*[=: ].*$\n?/gm

/** What packages are told that fetch what they do not need for this, where its source cannot be reached: Prisma's command
 * fetches an engine for migrations whatever it is called for, unless it is told of one. */
const WITHOUT = [
  { of: /\bprisma\b/, source: 'PRISMA_ENGINES_MIRROR', told: { PRISMA_SCHEMA_ENGINE_BINARY: '/bin/false' } }
]

function request () {
  return JSON.parse(fs.readFileSync(path.join(OUT, 'request.json'), 'utf8'))
}

/** What is said besides to packages that a text names. */
async function without (text) {
  const told = {}
  for (const one of WITHOUT) {
    if (!one.of.test(text)) continue
    const asked = fetch(`${process.env[one.source]}/`, { method: 'HEAD', signal: AbortSignal.timeout(20000) })
    if (!await asked.then((answer) => answer.ok, () => false)) Object.assign(told, one.told)
  }
  return told
}

/** Takes who asks a registry out of a folder's settings: packages' code reads them, and only the gate asks registries. */
function withoutCredentials (folder) {
  for (const name of ['.npmrc', '.yarnrc.yml', '.yarnrc']) {
    const file = path.join(folder, name)
    let text = ''
    try { text = fs.readFileSync(file, 'utf8') } catch { continue }
    fs.writeFileSync(file, text.replace(CREDENTIALS, ''))
  }
}

/** Puts a program's words into the log; returns what tells the end of them. */
function heard (child) {
  let told = ''
  const hear = (chunk) => { told = (told + chunk).slice(-TOLD_BYTES); process.stdout.write(chunk) }
  child.stdout.setEncoding('utf8').on('data', hear)
  child.stderr.setEncoding('utf8').on('data', hear)
  return () => told
}

async function failed (told, more = {}) {
  await finish(await send({ failed: told, ...more }))
  return 1
}

function send (answer) {
  return new Promise((resolve, reject) => {
    const connection = net.connect(path.join(OUT, 'out.sock'))
    connection.on('error', reject)
    connection.on('connect', () => {
      const body = Buffer.from(JSON.stringify(answer))
      const length = Buffer.alloc(8)
      length.writeBigUInt64BE(BigInt(body.length))
      connection.write(Buffer.concat([length, body]))
      resolve(connection)
    })
  })
}

/** Ends a connection, whether the other side does or not: nothing is read from it. */
function finish (connection) {
  return new Promise((resolve) => connection.end(() => { connection.destroy(); resolve() }))
}

module.exports = { OUT, request, without, withoutCredentials, heard, failed, send, finish }
