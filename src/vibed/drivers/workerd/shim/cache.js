// The Cache API in memory. workerd's own asks a service for its content, which a loaded worker cannot be given; without
// one every call throws. This one belongs to the isolate: it is bounded, and ends with it, as a cache may at any time.
// What is stored, for how long, and what a match answers follow Cloudflare's documentation.

const MOST_BYTES = 16 << 20;
const LARGEST = 4 << 20;
const MOST = 1000;
const HEURISTIC_S = { 200: 7200, 203: 7200, 301: 7200, 302: 1200, 303: 1200, 404: 180, 410: 180 };

// One after the other by last use, those of all caches together: key -> { status, statusText, headers, body, … }.
const stored = new Map();
let bytes = 0;

function drop(key) {
  const entry = stored.get(key);
  if (!entry) return false;
  stored.delete(key);
  bytes -= entry.size;
  return true;
}

function lifetime(response) {
  const said = (response.headers.get("cache-control") ?? "").toLowerCase();
  const seconds = (name) => {
    const match = new RegExp(`(?:^|[\\s,])${name}\\s*=\\s*"?(\\d+)`).exec(said);
    return match ? Number(match[1]) : null;
  };
  if (/(?:^|[\s,])(?:no-store|no-cache|private)(?:[\s,]|$)/.test(said)) return 0;
  const given = seconds("s-maxage") ?? seconds("max-age");
  if (given !== null) return given;
  const expires = Date.parse(response.headers.get("expires") ?? "");
  if (!Number.isNaN(expires)) return (expires - Date.now()) / 1000;
  return HEURISTIC_S[response.status] ?? 0;
}

async function read(response) {
  const pieces = [];
  let size = 0;
  for await (const piece of response.body ?? []) {
    size += piece.byteLength;
    if (size <= LARGEST) pieces.push(piece);
  }
  if (size > LARGEST) return null;
  const whole = new Uint8Array(size);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.byteLength;
  }
  return whole;
}

class Cache {
  #name;

  constructor(name) {
    this.#name = name;
  }

  #key(request) {
    const url = new URL(request.url);
    url.hash = "";
    return `${this.#name}\n${url}`;
  }

  async put(info, response) {
    const request = new Request(info);
    if (request.method !== "GET") throw new TypeError("Cannot cache response to non-GET request.");
    if (response.status === 206) throw new TypeError("Cannot cache response to a range request (206 Partial Content).");
    if ((response.headers.get("vary") ?? "").includes("*")) throw new TypeError("Cannot cache response with 'Vary: *' header.");
    if (response.bodyUsed) throw new TypeError("Body has already been used.");
    const headers = [...response.headers];
    const body = await read(response);
    const seconds = lifetime(response);
    const key = this.#key(request);
    if (body === null || response.status === 304 || seconds <= 0 || response.headers.has("set-cookie")) return;
    drop(key);
    const size = body.byteLength + key.length + headers.flat().join("").length;
    const { status, statusText } = response;
    stored.set(key, { status, statusText, headers, body, size, at: Date.now(), until: Date.now() + seconds * 1000 });
    bytes += size;
    for (const oldest of stored.keys()) {
      if (bytes <= MOST_BYTES && stored.size <= MOST) break;
      drop(oldest);
    }
  }

  async match(info, options) {
    const request = new Request(info);
    if (request.method !== "GET" && !options?.ignoreMethod) return undefined;
    const key = this.#key(request);
    const entry = stored.get(key);
    if (!entry) return undefined;
    if (entry.until <= Date.now()) {
      drop(key);
      return undefined;
    }
    stored.delete(key);
    stored.set(key, entry); // it is the newest now
    return answer(request, entry);
  }

  async delete(info, options) {
    const request = new Request(info);
    if (request.method !== "GET" && !options?.ignoreMethod) return false;
    return drop(this.#key(request));
  }
}

// A stored response, whole, or as the conditions and the range of the request have it.
function answer(request, entry) {
  const headers = new Headers(entry.headers);
  headers.set("age", String(Math.floor((Date.now() - entry.at) / 1000)));
  headers.set("cf-cache-status", "HIT");
  const etag = headers.get("etag");
  const asked = request.headers.get("if-none-match");
  const modified = Date.parse(headers.get("last-modified") ?? "");
  const since = Date.parse(request.headers.get("if-modified-since") ?? "");
  const weak = (tag) => tag.trim().replace(/^W\//, "");
  const same = asked
    ? asked.trim() === "*" || (etag && asked.split(",").some((tag) => weak(tag) === weak(etag)))
    : modified <= since;
  if (same) return new Response(null, { status: 304, headers });
  const range = /^bytes=(\d*)-(\d*)$/.exec(request.headers.get("range") ?? "");
  if (range && (range[1] || range[2]) && entry.status === 200) {
    const size = entry.body.byteLength;
    const first = range[1] ? Number(range[1]) : Math.max(0, size - Number(range[2]));
    const last = range[1] && range[2] ? Math.min(Number(range[2]), size - 1) : size - 1;
    if (first > last) return new Response(null, { status: 416, headers: { "content-range": `bytes */${size}` } });
    headers.set("content-range", `bytes ${first}-${last}/${size}`);
    return new Response(entry.body.slice(first, last + 1), { status: 206, headers });
  }
  const { status, statusText } = entry;
  const bodiless = [101, 204, 205, 304].includes(status);
  return new Response(bodiless ? null : entry.body.slice(), { status, statusText, headers });
}

const named = new Map();

function open(name) {
  if (!named.has(name)) named.set(name, new Cache(name));
  return named.get(name);
}

const caches = {
  default: new Cache(""),
  async open(name) {
    return open(`:${name}`);
  },
};

Object.defineProperty(globalThis, "caches", { value: caches, configurable: true, enumerable: true, writable: true });
