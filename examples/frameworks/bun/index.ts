import { Database } from 'bun:sqlite'
import { Hono } from 'hono'

const visits = new Database(':memory:')
visits.run('CREATE TABLE visit (at INTEGER)')

const app = new Hono()

app.get('/', (c) => {
  visits.run('INSERT INTO visit VALUES (?)', [Date.now()])
  const { count } = visits.query('SELECT count(*) AS count FROM visit').get() as { count: number }
  return c.text(`Hello from Bun! Visit ${count}.`)
})

// Bun serves what a file exports.
export default { port: process.env.PORT ?? 3000, fetch: app.fetch }
