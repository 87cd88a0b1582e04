'use strict'
// What was built, as a gzipped tarball behind an answer.

const fs = require('node:fs')
const path = require('node:path')
const zlib = require('node:zlib')
const answer = require('./answer.cjs')
const { APP, LAYER } = require('./project.cjs')

/** Sends facts, and what is below a folder but for `without`. */
async function pack (facts, folder, { without = [], followed = false }) {
  const connection = await answer.send(facts)
  const zipped = zlib.createGzip({ level: 1 })
  const sent = new Promise((resolve, reject) => zipped.on('end', resolve).on('error', reject))
  connection.on('error', (error) => { throw error })
  zipped.pipe(connection, { end: false })
  for (const piece of tarball(folder, '', without, followed)) {
    if (!zipped.write(piece)) await new Promise((resolve) => zipped.once('drain', resolve))
  }
  zipped.end(Buffer.alloc(1024))
  await sent
  await answer.finish(connection)
  return 0
}

/** Sends the folders of packages as they are now, as an installation does. */
async function packModules (folders) {
  const connection = await answer.send({ installed: true, folders })
  connection.on('error', (error) => { throw error })
  const put = (piece) => connection.write(piece) || new Promise((resolve) => connection.once('drain', resolve))
  for (const folder of folders) {
    await put(header(`${folder}/`, '5', 0, 0o755))
    for (const piece of tarball(APP, folder, folders.map((one) => path.join(one, '.cache')), 'layer')) await put(piece)
  }
  await put(Buffer.alloc(1024))
  await answer.finish(connection)
  return 0
}

/** The pieces of a tarball of what is below `folder`, in order, the same for the same files; `followed`: links are what
 * they lead to; `layer`: those that lead into the layer are. `as`: the name of `at` in it. */
function * tarball (folder, at, without, followed, as = at) {
  for (const name of fs.readdirSync(path.join(folder, at)).sort()) {
    const inside = path.posix.join(as, name)
    let whole = path.join(folder, at, name)
    if (without.includes(inside)) continue
    let found
    try { found = followed === true ? fs.statSync(whole) : fs.lstatSync(whole) } catch { continue } // a link that leads nowhere
    if (followed === 'layer' && found.isSymbolicLink() && fs.readlinkSync(whole).startsWith(`${LAYER}/`)) {
      whole = fs.readlinkSync(whole)
      try { found = fs.lstatSync(whole) } catch { continue }
    }
    if (found.isDirectory()) {
      yield header(`${inside}/`, '5', 0, 0o755)
      yield * tarball(whole, '', without, followed, inside)
    } else if (found.isSymbolicLink()) {
      yield header(inside, '2', 0, 0o777, fs.readlinkSync(whole))
    } else if (found.isFile()) {
      yield header(inside, '0', found.size, found.mode & 0o111 ? 0o755 : 0o644)
      yield * content(whole, found.size)
    }
  }
}

/** A file's bytes, as many as its header says, and what fills the last block. */
function * content (whole, size) {
  const descriptor = fs.openSync(whole, 'r')
  try {
    for (let left = size; left > 0;) {
      const piece = Buffer.alloc(Math.min(left, 1 << 18))
      fs.readSync(descriptor, piece)
      yield piece
      left -= piece.length
    }
  } finally { fs.closeSync(descriptor) }
  yield Buffer.alloc((512 - size % 512) % 512)
}

/** One of POSIX' (pax), after a record with what its fields do not hold. */
function header (name, type, size, mode, target = '') {
  const records = [['path', name, 100], ['linkpath', target, 100]].filter(([, value, most]) => Buffer.byteLength(value) > most)
    .map(([key, value]) => record(key, value)).join('')
  const before = records ? [block('pax', 'x', Buffer.byteLength(records), 0o644, ''), Buffer.from(records),
    Buffer.alloc((512 - Buffer.byteLength(records) % 512) % 512)] : []
  return Buffer.concat([...before, block(name, type, size, mode, target)])
}

function record (key, value) {
  let length = 0
  let text = ''
  do { length = Buffer.byteLength(text); text = `${length} ${key}=${value}\n` } while (Buffer.byteLength(text) !== length)
  return text
}

function block (name, type, size, mode, target) {
  const bytes = Buffer.alloc(512)
  bytes.write(name, 0, 100)
  bytes.write(`${mode.toString(8).padStart(7, '0')}\0${'0'.repeat(7)}\0${'0'.repeat(7)}\0`, 100)
  bytes.write(`${size.toString(8).padStart(11, '0')}\0${'0'.repeat(11)}\0        ${type}`, 124)
  bytes.write(target, 157, 100)
  bytes.write('ustar\x0000', 257)
  const sum = bytes.reduce((total, byte) => total + byte, 0)
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return bytes
}

module.exports = { pack, packModules }
