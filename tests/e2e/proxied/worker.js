// A worker that does what a path names, as far as a worker can.
const hex = (bytes) => [...new Uint8Array(bytes)].map((b) => b.toString(16).padStart(2, "0")).join("");
const released = new Set();
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const tell = async (request) => {
  const body = await request.arrayBuffer();
  const url = new URL(request.url);
  return Response.json({
    method: request.method, target: url.pathname + url.search, fields: [...request.headers],
    size: body.byteLength, sha256: hex(await crypto.subtle.digest("SHA-256", body)),
  });
};

const down = (size) => {
  let sent = 0;
  return new Response(
    new ReadableStream({
      pull(controller) {
        if (sent === size) return controller.close();
        controller.enqueue(new Uint8Array(1 << 20).fill(sent % 251));
        sent += 1;
      },
    }),
    { headers: { "content-type": "application/octet-stream" } },
  );
};

const raw = {
  204: () => new Response(null, { status: 204, headers: { etag: '"a"', "x-kept": "yes" } }),
  304: () => new Response(null, { status: 304, headers: { etag: '"a"', "x-kept": "yes" } }),
  418: () => new Response("short and stout", { status: 418 }),
  duplicates: () => {
    const headers = new Headers({ "content-type": "text/plain" });
    for (const cookie of ["a=1", "b=2; Path=/"]) headers.append("set-cookie", cookie);
    return new Response("ok", { headers });
  },
  "no-type": () => new Response(new TextEncoder().encode("p { color: red }")),
  "large-head": () => new Response("ok", { headers: { "x-large": "h".repeat(40000) } }),
};

export default {
  async fetch(request) {
    const [, does, kind, key] = new URL(request.url).pathname.split("/");
    if (does === "pipe") return new Response(request.body, { headers: { "content-type": "application/octet-stream" } });
    if (does === "early") return new Response("no, thanks", { status: Number(kind) });
    if (does === "down") return down(Number(kind));
    if (does === "raw" && raw[kind]) return raw[kind]();
    if (does === "release") {
      released.add(kind);
      return new Response(null, { status: 204 });
    }
    if (does === "trickle") {
      const { readable, writable } = new TransformStream();
      const writer = writable.getWriter();
      const send = (text) => writer.write(new TextEncoder().encode(text));
      const both = async () => {
        await send("data: one\n\n");
        for (let n = 0; n < 600 && !released.has(key); n++) await pause(50);
        await send("data: two\n\n");
        await writer.close();
      };
      both();
      return new Response(readable, { headers: { "content-type": "text/event-stream" } });
    }
    if (does === "upgrade") return new Response("only WebSockets", { status: 426 });
    return tell(request);
  },
};
