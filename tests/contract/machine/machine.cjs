// What Node.js finds. A line for each thing that is not as on any Linux machine; then `done`.
const assert = require("node:assert");
const { execFileSync, execSync } = require("node:child_process");
const cluster = require("node:cluster");
const crypto = require("node:crypto");
const dns = require("node:dns/promises");
const fs = require("node:fs");
const net = require("node:net");
const os = require("node:os");
const tls = require("node:tls");
const { once } = require("node:events");
const { Worker } = require("node:worker_threads");

async function listens(host) {
  const server = net.createServer((socket) => socket.end()).listen(0, host);
  await once(server, "listening");
  const client = net.connect(server.address().port, host);
  await once(client, "connect");
  client.destroy();
  server.close();
}

const checks = {
  "user": () => assert.equal(os.userInfo().username, "app"),
  "home": () => assert.equal(os.homedir(), process.env.HOME),
  "the host's name resolves": () => dns.lookup(os.hostname()),
  "localhost": () => dns.lookup("localhost"),
  "localhost as localhost": () => listens("localhost"),
  "listen on 127.0.0.1": () => listens("127.0.0.1"),
  "listen on ::": () => listens("::1"),
  "Unix sockets": async () => { const s = net.createServer().listen("/tmp/s"); await once(s, "listening"); s.close(); },
  "/data": () => { fs.mkdirSync("/data", { recursive: true }); fs.writeFileSync("/data/x", "x"); },
  "temporary files": () => fs.mkdtempSync(`${os.tmpdir()}/x-`),
  "languages": () => assert.equal((1234.5).toLocaleString("de-DE"), "1.234,5"),
  "time zones": () => assert.match(new Date(0).toLocaleString("en", { timeZone: "Asia/Tokyo" }), /9:00/),
  "random": () => assert.equal(crypto.randomBytes(16).length, 16),
  "certificates": () => assert(tls.rootCertificates.length > 50),
  "processors": () => assert(os.availableParallelism() >= 1 && os.cpus().length >= 1),
  "memory": () => assert(os.totalmem() > 0 && os.freemem() > 0),
  "load": () => assert.equal(os.loadavg().length, 3),
  "interfaces": () => assert(Object.keys(os.networkInterfaces()).length >= 1),
  "disk": () => assert(fs.statfsSync("/app").bavail > 0),
  "watching a folder": async () => { const w = fs.watch("/app"); setTimeout(() => fs.writeFileSync("/app/w", ""), 20); await once(w, "change"); w.close(); },
  "a shell": () => assert.equal(execSync("echo x").toString(), "x\n"),
  "another node": () => assert.equal(execFileSync(process.execPath, ["-p", "1"]).toString(), "1\n"),
  "threads": async () => { const w = new Worker("1", { eval: true }); await once(w, "exit"); },
  "cluster": async () => { cluster.setupPrimary({ exec: "/app/child.cjs" }); fs.writeFileSync("/app/child.cjs", "process.exit(0)"); await once(cluster.fork(), "exit"); },
  "SQLite": () => new (require("node:sqlite").DatabaseSync)("machine.db").exec("pragma journal_mode=wal; create table t(a)"),
};

(async () => {
  for (const [name, check] of Object.entries(checks)) {
    const late = new Promise((_, reject) => setTimeout(() => reject(new Error("takes for ever")), 5000).unref());
    try { await Promise.race([check(), late]); } catch (error) { console.log(`wrong: ${name}: ${error.message}`); }
  }
  console.log("done");
  process.exit(0);
})();
