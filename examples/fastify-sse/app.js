import { memoryUsage, uptime } from "node:process";
import { loadavg } from "node:os";
import Fastify from "fastify";
import { page } from "./page.js";

const app = Fastify({ logger: true });

const sample = () => ({
  at: new Date().toISOString(),
  uptime: Math.round(uptime() * 10) / 10,
  memory: Math.round(memoryUsage.rss() / 2 ** 20),
  load: Math.round(loadavg()[0] * 100) / 100,
});

app.get("/", (request, reply) => reply.type("text/html").send(page));
app.get("/api/sample", async () => sample());

app.get("/events", (request, reply) => {
  reply.hijack();
  reply.raw.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  let id = Number(request.headers["last-event-id"] ?? 0);
  const send = () => {
    id += 1;
    reply.raw.write(`id: ${id}\ndata: ${JSON.stringify(sample())}\n\n`);
  };
  send();
  const timer = setInterval(send, 500);
  request.raw.on("close", () => clearInterval(timer));
});

app.listen({ port: Number(process.env.PORT || 3000), host: "0.0.0.0" }).catch((error) => {
  app.log.error(error);
  process.exit(1);
});
