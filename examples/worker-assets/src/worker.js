// Files in public/ are served as they are; what is not a file comes here.
export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    if (url.pathname === "/api/headers") return Response.json(Object.fromEntries(request.headers));
    if (url.pathname === "/about") return env.ASSETS.fetch(new URL("/colophon", url));
    if (url.pathname === "/ws") return echo(request);
    return new Response("Not found", { status: 404 });
  },
};

function echo(request) {
  if (request.headers.get("Upgrade") !== "websocket") return new Response("Expected a WebSocket", { status: 426 });
  const [client, server] = Object.values(new WebSocketPair());
  server.accept();
  server.addEventListener("message", ({ data }) => {
    server.send(typeof data === "string" ? `echo: ${data}` : data);
  });
  return new Response(null, { status: 101, webSocket: client });
}
