// The warm shim: loads the one worker that it is given over the admin socket, and serves it and its static assets.
// What it is given is the worker code of vibed.drivers.workerd.code.
import { WorkerEntrypoint } from "cloudflare:workers";

let code = null;

function load(env, ctx) {
  // The loader caches by name. The stub itself belongs to a request and cannot be kept.
  return env.LOADER.get("app", () => {
    const bindings = { ...code.env };
    if (code.assets?.binding) bindings[code.assets.binding] = ctx.exports.Assets({});
    if (code.assets?.sites) bindings.__STATIC_CONTENT = ctx.exports.StaticContent({});
    return {
      compatibilityDate: code.compatibilityDate,
      compatibilityFlags: code.compatibilityFlags,
      mainModule: code.mainModule,
      modules: Object.fromEntries(Object.entries(code.modules).map(([name, module]) => [name, asModule(module)])),
      env: bindings,
      globalOutbound: null,
    };
  });
}

// JSON has no bytes: they come in base64.
function asModule(module) {
  const kind = module.wasm ? "wasm" : module.data ? "data" : null;
  return kind ? { [kind]: Uint8Array.from(atob(module[kind]), (letter) => letter.charCodeAt(0)).buffer } : module;
}

// Loads a worker that is forgotten at once, so that the app's does not pay for what happens only the first time.
const rehearsed = {
  compatibilityDate: "2026-11-01",
  mainModule: "main.js",
  modules: {
    "main.js": `
      import { WorkerEntrypoint } from "cloudflare:workers";
      export class VibedInspect extends WorkerEntrypoint { handlers() { return ["fetch"]; } }
      export default { fetch() { return new Response(); } };`,
  },
  globalOutbound: null,
};

async function rehearse(env) {
  const worker = env.LOADER.get(null, () => rehearsed);
  await worker.getEntrypoint("VibedInspect").handlers();
  await worker.getEntrypoint().fetch("http://worker/");
}

export class Admin extends WorkerEntrypoint {
  async fetch(request) {
    if (request.method !== "POST") {
      // The supervisor asks this once before it calls the sandbox warm.
      if (code === null) await rehearse(this.env);
      return Response.json({ ok: true, loaded: code !== null });
    }
    if (code !== null) return refuse("this sandbox has its worker already");
    code = await request.json();
    if (!code.mainModule) return Response.json({ ok: true });
    try {
      const found = await load(this.env, this.ctx).getEntrypoint("VibedInspect").handlers();
      if (found.includes("fetch")) return Response.json({ ok: true, handlers: found });
      const others = found.length ? ` (it has ${found.join(", ")}, which nothing here calls)` : "";
      return refuse(`the worker has no fetch handler${others}: export default { fetch(request, env, ctx) { … } }`);
    } catch (error) {
      return refuse(told(error));
    }
  }
}

// What the app sees as its assets binding.
export class Assets extends WorkerEntrypoint {
  async fetch(request) {
    return (await serveAsset(this.env, request, true)) ?? new Response("Not Found\n", { status: 404 });
  }
}

// The KV namespace in which a worker of Workers Sites finds its files; their keys are those of the manifest that
// vibed.drivers.workerd.code makes: an etag and the path.
export class StaticContent extends WorkerEntrypoint {
  async get(key, options) {
    const path = key.slice(key.indexOf("/"));
    if (!has(path) || key !== keyOf(path.slice(1), code.assets.files[path.slice(1)])) return null;
    const found = await fileOf(this.env, path);
    if (!found.ok) return null;
    const type = (typeof options === "string" ? options : options?.type) ?? "text";
    return type === "stream" ? found.body : type === "arrayBuffer" ? found.arrayBuffer() : type === "json" ? found.json() : found.text();
  }

  async getWithMetadata(key, options) {
    return { value: await this.get(key, options), metadata: null };
  }

  async list({ prefix = "" } = {}) {
    const keys = Object.entries(code.assets.files).map(([path, etag]) => ({ name: keyOf(path, etag) }));
    return { keys: keys.filter(({ name }) => name.startsWith(prefix)), list_complete: true };
  }
}

const keyOf = (path, etag) => `${etag.replaceAll('"', "")}/${path}`;

export default {
  async fetch(request, env, ctx) {
    if (code === null) return new Response("not loaded\n", { status: 503 });
    if (code.assets && !workerFirst(new URL(request.url).pathname)) {
      const answer = await serveAsset(env, request, !code.mainModule || navigates(request));
      if (answer) return answer;
      if (!code.mainModule) return new Response("Not Found\n", { status: 404 });
    }
    try {
      return await load(env, ctx).getEntrypoint().fetch(request);
    } catch (error) {
      console.error(`${request.method} ${new URL(request.url).pathname}: ${told(error)}`);
      return new Response("Internal Server Error\n", {
        status: 500,
        headers: { "content-type": "text/plain;charset=utf-8", "x-vibed-error": "WorkerException" },
      });
    }
  },
};

function refuse(message) {
  return Response.json({ ok: false, message }, { status: 422 });
}

function told(error) {
  const text = String(error?.message ?? error);
  return text.replace(/^(Error: )?Failed to start Worker:\s*/, "").replaceAll("__vibed_main__.js", "the worker");
}

// Static assets: the semantics of html_handling, not_found_handling and run_worker_first are Cloudflare's.

function workerFirst(path) {
  const first = code.assets.run_worker_first;
  if (!code.mainModule || !first) return false;
  if (first === true) return true;
  const matches = (rule) => new RegExp(`^${rule.split("*").map(escape).join(".*")}$`).test(path);
  return first.some((rule) => !rule.startsWith("!") && matches(rule)) &&
    !first.some((rule) => rule.startsWith("!") && matches(rule.slice(1)));
}

const escape = (text) => text.replace(/[.+?^${}()|[\]\\]/g, "\\$&");

// A single-page app answers page loads itself; what the page then fetches is for the worker.
function navigates(request) {
  return request.headers.get("sec-fetch-mode") === "navigate";
}

async function serveAsset(env, request, orFallback) {
  if (request.method !== "GET" && request.method !== "HEAD") return null;
  const url = new URL(request.url);
  let path;
  try {
    path = decodeURIComponent(url.pathname);
  } catch {
    return null;
  }
  const found = resolve(path, code.assets.html_handling ?? "auto-trailing-slash");
  const ruled = await redirected(env, request, url, path, found !== null);
  if (ruled) return ruled;
  if (found?.redirect) {
    // relative: whether the browser came by http or https is not known here
    return new Response(null, { status: 307, headers: { location: encodeURI(found.redirect) + url.search } });
  }
  if (found) return respond(env, request, found.file, 200);
  if (!orFallback) return null;
  const fallback = code.assets.not_found_handling;
  if (fallback === "single-page-application" && has("/index.html")) return respond(env, request, "/index.html", 200);
  if (fallback === "404-page") {
    for (let at = path.replace(/[^/]*$/, ""); ; at = at.replace(/[^/]*\/$/, "")) {
      if (has(`${at}404.html`)) return respond(env, request, `${at}404.html`, 404);
      if (at === "/" || at === "") break;
    }
  }
  return null;
}

// Rules that the assets bring (_redirects, _headers), as vibed.classify.host_rules has understood them.

function groupsOf(rule, path) {
  if (rule.path !== undefined) return path === rule.path || path === `${rule.path}/` ? [] : null;
  rule.expression ??= new RegExp(rule.pattern);
  return rule.expression.exec(path)?.slice(1) ?? null;
}

async function redirected(env, request, url, path, isFile) {
  for (const rule of code.assets.redirects) {
    const groups = rule.force || !isFile ? groupsOf(rule, path) : null;
    if (!groups) continue;
    const filled = (change) => rule.to.map((part) => (typeof part === "number" ? change(groups[part] ?? "") : part)).join("");
    if (rule.status >= 300 && rule.status < 400) {
      let to = filled((text) => text.split("/").map(encodeURIComponent).join("/"));
      if (to.startsWith("/")) to = `/${to.replace(/^\/+/, "")}`;
      const [place, fragment] = to.split("#", 2);
      const whole = place.includes("?") ? place : place + url.search;
      if (whole === url.pathname + url.search) continue;
      const location = fragment === undefined ? whole : `${whole}#${fragment}`;
      return new Response(null, { status: rule.status, headers: { location } });
    }
    const target = filled((text) => text).split("?")[0].replace(/\/+$/, "");
    const file = [target, `${target}.html`, `${target}/index.html`].find((name) => has(name));
    return file ? respond(env, request, file, rule.status) : new Response("Not Found\n", { status: 404 });
  }
  return null;
}

function dress(headers, path) {
  const touched = new Set();
  for (const rule of code.assets.headers) {
    if (!groupsOf(rule, path)) continue;
    for (const name of rule.unset) headers.delete(name);
    for (const [name, value] of rule.set) {
      const key = name.toLowerCase();
      if (touched.has(key) && key === "set-cookie") headers.append(name, value);
      else headers.set(name, touched.has(key) && headers.has(name) ? `${headers.get(name)}, ${value}` : value);
      touched.add(key);
    }
  }
}

const has = (path) => Object.hasOwn(code.assets.files, path.slice(1));

// Which file a path means, or where it redirects to.
function resolve(path, handling) {
  if (handling === "none") return has(path) ? { file: path } : null;
  const bare = path.replace(/(\/index)?\.html$|\/index$|\/$/, "") || "/";
  const page = bare === "/" ? null : `${bare}.html`;
  const index = bare === "/" ? "/index.html" : `${bare}/index.html`;
  if (has(path) && !path.endsWith(".html")) return { file: path };
  const pageAt = handling === "force-trailing-slash" ? `${bare}/` : bare;
  const indexAt = bare === "/" ? "/" : handling === "drop-trailing-slash" ? bare : `${bare}/`;
  const preferIndex = path.endsWith("/") || path.endsWith("/index") || path.endsWith("/index.html");
  const choices = [[index, indexAt], [page, pageAt]];
  for (const [file, at] of preferIndex ? choices : choices.reverse()) {
    if (file && has(file)) return at === path ? { file } : { redirect: at };
  }
  return null;
}

async function respond(env, request, file, status) {
  const etag = code.assets.files[file.slice(1)];
  const headers = new Headers({
    "content-type": typeOf(file),
    "cache-control": "public, max-age=0, must-revalidate",
    "x-content-type-options": "nosniff",
    "accept-ranges": "bytes",
    etag,
  });
  dress(headers, decodeURIComponent(new URL(request.url).pathname));
  if (status === 200 && request.headers.get("if-none-match")?.includes(etag)) {
    return new Response(null, { status: 304, headers });
  }
  const source = await fileOf(env, file);
  if (!source.ok) return new Response("Not Found\n", { status: 404 });
  const size = Number(source.headers.get("content-length"));
  const range = status === 200 && rangeOf(request.headers.get("range"), size);
  if (range) {
    const bytes = await source.arrayBuffer();
    headers.set("content-range", `bytes ${range[0]}-${range[1]}/${size}`);
    return new Response(bytes.slice(range[0], range[1] + 1), { status: 206, headers });
  }
  if (request.method === "HEAD") {
    await source.body?.cancel();
    headers.set("content-length", String(size));
    return new Response(null, { status, headers });
  }
  const { readable, writable } = new FixedLengthStream(size);
  source.body.pipeTo(writable).catch(() => {});
  return new Response(readable, { status, headers });
}

const fileOf = (env, path) => env.FILES.fetch(`http://files/site/${path.slice(1).split("/").map(encodeURIComponent).join("/")}`);

function rangeOf(header, size) {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? "");
  if (!match || (!match[1] && !match[2])) return null;
  const first = match[1] ? Number(match[1]) : Math.max(0, size - Number(match[2]));
  const last = match[1] && match[2] ? Math.min(Number(match[2]), size - 1) : size - 1;
  return first <= last && first < size ? [first, last] : null;
}

const TYPES = @TYPES@;

function typeOf(file) {
  const name = file.slice(file.lastIndexOf("/") + 1);
  return TYPES[name.includes(".") ? name.slice(name.lastIndexOf(".") + 1).toLowerCase() : ""] ?? @UNKNOWN@;
}
