// A box for links: node:http and node:sqlite, in TypeScript that Node runs as it is.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { LinkBox, type Link } from "./links.ts";

const links = new LinkBox("links.db");

const escape = (text: string): string => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

const page = (saved: Link[]): string => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Link box</title>
<style>body { font: 17px/1.6 system-ui; max-width: 38rem; margin: 8vh auto; padding: 0 1.5rem } input { font: inherit; padding: .3rem } small { color: #777 }</style>
</head><body><h1>Link box</h1>
<form method="post" action="/links"><input name="url" type="url" placeholder="https://" required> <input name="note" placeholder="why?"> <button>Keep</button></form>
<ul>${saved.map((link) => `<li><a href="${escape(link.url)}">${escape(link.url)}</a> ${escape(link.note)} <small>${link.at}</small></li>`).join("")}</ul>
</body></html>`;

async function read(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const piece of request) {
    text += piece;
    if (text.length > 10_000) throw new Error("too long");
  }
  return text;
}

function json(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
}

const server = createServer(async (request, response) => {
  try {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    if (request.method === "GET" && pathname === "/") {
      response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(page(links.all()));
    } else if (request.method === "GET" && pathname === "/api/links") {
      json(response, 200, links.all());
    } else if (request.method === "POST" && pathname === "/links") {
      const form = new URLSearchParams(await read(request));
      const url = form.get("url") ?? "";
      if (!/^https?:/.test(url) || !URL.canParse(url)) return json(response, 400, { error: "that is no link" });
      links.keep(url, form.get("note") ?? "");
      response.writeHead(303, { location: "/" }).end();
    } else {
      json(response, 404, { error: "not found" });
    }
  } catch (error) {
    console.error(error);
    json(response, 500, { error: "internal error" });
  }
});

server.listen(Number(process.env.PORT ?? 8080), () => console.log("link box is open", server.address()));
