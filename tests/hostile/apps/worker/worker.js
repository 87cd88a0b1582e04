// A worker that tries what it is asked for by `/NAME?[json arguments]` and tells what it got.
import { connect } from "cloudflare:sockets";
import * as workers from "cloudflare:workers";
import fs from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import process from "node:process";

const kept = [];
const soon = (ms) => new Promise((resolve, reject) => setTimeout(() => reject(new Error("timeout")), ms));
const got = async (found, name, attempt) => {
  try {
    const result = await Promise.race([attempt(), soon(3000)]);
    if (result !== undefined && result !== null && result !== false) found[name] = String(result).slice(0, 200);
  } catch {}
};

const attacks = {
  async fetches(env, ctx, urls) {
    const found = {};
    for (const url of urls) await got(found, url, async () => `${(await fetch(url)).status}`);
    return found;
  },
  async sockets(env, ctx, addresses) {
    const found = {};
    for (const [hostname, port] of addresses) {
      await got(found, `connect ${hostname}:${port}`, async () => (await connect({ hostname, port }).opened, "opened"));
      await got(found, `net ${hostname}:${port}`, () => new Promise((resolve, reject) => {
        net.connect(port, hostname, () => resolve("connected")).on("error", reject);
      }));
    }
    return found;
  },
  async unix(env, ctx, paths) {
    const found = {};
    for (const path of paths) {
      await got(found, `net ${path}`, () => new Promise((resolve, reject) => {
        net.connect(path, () => resolve("connected")).on("error", reject);
      }));
      await got(found, `fetch ${path}`, async () => (await fetch(`http://unix:${path}:/`)).status);
      await got(found, `connect ${path}`, async () => (await connect(`unix:${path}`).opened, "opened"));
    }
    return found;
  },
  async files(env, ctx, paths) {
    const found = {};
    const require = createRequire("/");
    for (const path of paths) {
      await got(found, `readFile ${path}`, () => fs.readFileSync(path, "utf8"));
      await got(found, `readdir ${path}`, () => fs.readdirSync(path).join());
      await got(found, `stat ${path}`, () => fs.existsSync(path));
      await got(found, `import ${path}`, async () => Object.keys(await import(path)).join() || "loaded");
      await got(found, `require ${path}`, () => JSON.stringify(require(path)) ?? "loaded");
      await got(found, `fetch ${path}`, async () => (await fetch(`file://${path}`)).status);
    }
    return found;
  },
  async modules(env, ctx, names) {
    const found = {};
    for (const name of names) await got(found, name, async () => Object.keys(await import(name)).join() || "loaded");
    return found;
  },
  async programs() {
    const found = {};
    const require = createRequire("/");
    for (const name of ["execSync", "spawnSync", "execFileSync", "fork"]) {
      await got(found, name, () => require("node:child_process")[name]("/workerd").toString());
    }
    await got(found, "Worker", () => new (require("node:worker_threads").Worker)("1", { eval: true }) && "made");
    await got(found, "vm", () => require("node:vm").runInThisContext("1+1"));
    await got(found, "eval", () => eval("1+1"));
    await got(found, "Function", () => new Function("return 1+1")());
    await got(found, "dlopen", () => process.dlopen({ exports: {} }, "/lib/libc.so.6") ?? "loaded");
    await got(found, "binding", () => process.binding("fs") && "bound");
    await got(found, "kill", () => process.kill(1, 9));
    await got(found, "inspector", () => require("node:inspector").open(9229, "0.0.0.0") ?? "opened");
    return found;
  },
  async seen(env, ctx) {
    return {
      env: Object.keys(env),
      inherited: Object.getOwnPropertyNames(Object.getPrototypeOf(env) ?? {}),
      polluted: {}.polluted ?? null,
      process: { ...process.env },
      argv: process.argv,
      exports: Object.keys(ctx.exports ?? {}),
      workers: Object.keys(workers.env ?? {}),
      globals: Object.getOwnPropertyNames(globalThis).filter((name) => /vibed|shim|loader|files|admin/i.test(name)),
      modules: Object.keys(workers),
    };
  },
  async assets(env, ctx, paths) {
    const found = {};
    for (const path of paths) {
      await got(found, path, async () => {
        const answer = await env.ASSETS.fetch(`http://assets${path}`);
        return answer.status === 200 && await answer.text();
      });
    }
    return found;
  },
  async scratch(env, ctx, mib) {
    let written = 0;
    try {
      for (; written < mib; written++) fs.writeFileSync(`/tmp/f${written}`, new Uint8Array(1 << 20));
    } catch {}
    return written;
  },
  async heap() { for (let i = 0; ; i++) { kept.push({ i, text: `${i}`.repeat(50), more: [i, i, i] }); if (i % 50000 === 0) await scheduler.wait(1); } },
  async buffers() { for (;;) { kept.push(new Uint8Array(8 << 20).fill(1)); await scheduler.wait(1); } },
  async wasm() { const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536 }); for (;;) { memory.grow(256); new Uint8Array(memory.buffer).fill(1); await scheduler.wait(1); } },
  async strings() { let text = "x".repeat(1 << 20); for (;;) { kept.push(new TextEncoder().encode(text)); await scheduler.wait(1); } },
  async spin() { for (;;); },
  async regex() { return /^(a+)+$/.test("a".repeat(64) + "!"); },
  async recursion() { const deep = (n) => deep(n + 1) + 1; try { return deep(0); } catch (error) { return error.name; } },
  async timers() { for (let i = 0; i < 20000; i++) setTimeout(() => {}, 3_600_000); return "set"; },
  async later(env, ctx) { ctx.waitUntil(new Promise(() => {})); return "waiting"; },
  async flood(env, ctx, lines) { for (let i = 0; i < lines; i++) console.log(`flood ${i} ${"y".repeat(200)}`); return lines; },
  async line(env, ctx, mib) { console.log("z".repeat(mib << 20)); console.error("\u0000\u001b[2J\u2028\ud800".repeat(1000)); return mib; },
  async forged() {
    console.log('\n{"seq": 999999, "ts": 0, "stream": "system", "text": "forged by a line"}\n');
    console.log('{"timestamp": 1, "level": "system", "message": "forged by structure"}');
    return "forged";
  },
};

export default {
  async fetch(request, env, ctx) {
    const url = new URL(request.url);
    const attack = attacks[url.pathname.slice(1)];
    if (!attack) return new Response(`hello ${env.GREETING ?? ""}`);
    const given = url.search ? JSON.parse(decodeURIComponent(url.search.slice(1))) : [];
    return Response.json(await attack(env, ctx, ...given));
  },
};
