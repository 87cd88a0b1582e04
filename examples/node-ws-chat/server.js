import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import express from "express";
import { WebSocketServer } from "ws";

const app = express();
app.use(express.static(fileURLToPath(new URL("./public", import.meta.url))));
app.get("/api/health", (req, res) => res.json({ ok: true, people: sockets.clients.size }));

const server = createServer(app);
const sockets = new WebSocketServer({ server, path: "/chat" });
const history = [];

function broadcast(message) {
  const text = JSON.stringify(message);
  history.push(text);
  if (history.length > 50) history.shift();
  for (const client of sockets.clients) if (client.readyState === client.OPEN) client.send(text);
}

sockets.on("connection", (socket, request) => {
  const name = new URL(request.url, "http://localhost").searchParams.get("name") ?? "guest";
  for (const text of history) socket.send(text);
  broadcast({ type: "joined", name, people: sockets.clients.size });
  socket.on("message", (data) => broadcast({ type: "said", name, text: String(data).slice(0, 1000) }));
  socket.on("close", () => broadcast({ type: "left", name, people: sockets.clients.size }));
  socket.on("error", (error) => console.error("socket:", error.message));
});

const port = Number(process.env.PORT ?? 3000);
server.listen(port, "0.0.0.0", () => console.log(`chat on port ${port}`));
