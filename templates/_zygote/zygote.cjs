'use strict'
// A Node process that has loaded what an app will load, and waits to become that app.
//
//   node zygote.cjs NAME [MODULE …]
//
// Descriptor 3 is a socket to the agent: `ready` goes out when the modules are loaded, one JSON line
// {"argv", "env", "cwd", "entropy"} comes in, and from then on this process behaves as if it had been started as
// `node FILE args…` (docs/reference/supervisor.md, section Agent). Modules are found from this file upwards, so those
// in /node_modules are the same files, and the same instances, that an app finds; an app's own copies stay its own.
// Nothing here is a copy of another process: generators of random numbers have seeds of their own.

const fs = require('node:fs')
const http = require('node:http')
const net = require('node:net')
const path = require('node:path')
const { Module } = require('node:module')

const AGENT = 3

/** Loads a module both ways, since a package may have one file for require and another for import. */
async function load (zygote, name) {
  let failure = null
  try { require(name) } catch (error) { failure = error }
  try { await import(name) } catch (error) {
    if (failure !== null) process.stderr.write(`zygote ${zygote}: ${name} is not loaded: ${failure.message}\n`)
  }
}

/** Blocks until the agent's line is there. An agent that goes away ends the process. */
function readOrders () {
  const chunks = []
  const buffer = Buffer.alloc(65536)
  for (;;) {
    let n
    try { n = fs.readSync(AGENT, buffer) } catch (error) {
      if (error.code === 'EAGAIN' || error.code === 'EINTR') continue
      throw error
    }
    if (n === 0) process.exit(0)
    chunks.push(Buffer.from(buffer.subarray(0, n)))
    if (buffer[n - 1] === 0x0a) return JSON.parse(Buffer.concat(chunks).toString('utf8'))
  }
}

function become ({ argv, env, cwd }) {
  for (const key of Object.keys(process.env)) if (!Object.hasOwn(env, key)) delete process.env[key]
  Object.assign(process.env, env) // TZ takes effect on assignment
  process.chdir(cwd)
  process.argv = [process.execPath, path.resolve(argv[1]), ...argv.slice(2)]
  delete require.cache[__filename]
  process.mainModule = undefined
  Module.runMain(process.argv[1])
}

/**
 * Serves one request to itself. What a server does first (functions that are compiled when they are called, pages of the
 * program that are read when they are touched) takes longer in a sandbox than all that an app's own code does for it.
 * The connection is reset, so that no port is kept for it.
 */
function rehearse () {
  const server = http.createServer((request, response) => {
    request.resume()
    response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' })
    response.end('rehearsed')
  })
  return new Promise((resolve) => {
    server.on('error', resolve)
    server.on('close', resolve)
    server.listen(0, '127.0.0.1', () => {
      const client = net.connect(server.address().port, '127.0.0.1')
      client.on('error', () => {})
      client.on('close', () => server.close())
      client.on('data', () => client.resetAndDestroy())
      client.write('GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n')
    })
  })
}

async function main () {
  const [zygote, ...modules] = process.argv.slice(2)
  for (const name of modules) await load(zygote, name)
  await rehearse()
  for (let turn = 0; turn < 2; turn++) await new Promise(setImmediate) // what it closed is gone at a turn's end
  fs.writeSync(AGENT, 'ready\n')
  const orders = readOrders()
  fs.closeSync(AGENT)
  setImmediate(become, orders) // outside of this promise: an app's exception is an exception, not a rejection
}

main()
