// A worker in one file: no package, no build.
let answered = 0;

const page = (greeting, name) => `<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${greeting}</title>
<body style="font: 18px/1.6 system-ui; max-width: 36rem; margin: 15vh auto; padding: 0 1.5rem">
<h1>${greeting}, ${name}!</h1>
<form><label>Who are you? <input name="name" autocomplete="off" autofocus></label> <button>Greet me</button></form>
<p>This isolate has answered ${answered} ${answered === 1 ? "request" : "requests"} so far.
Try <a href="/api/time">/api/time</a>.</p>`;

const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    answered += 1;
    if (url.pathname === "/") {
      const name = url.searchParams.get("name") || "world";
      return new Response(page(env.GREETING ?? "Hello", escape(name)), {
        headers: { "content-type": "text/html; charset=utf-8" },
      });
    }
    if (url.pathname === "/api/time") return Response.json({ now: new Date().toISOString() });
    if (url.pathname === "/api/echo" && request.method === "POST") {
      return Response.json({ received: await request.text() });
    }
    return Response.json({ error: "not found" }, { status: 404 });
  },
};
