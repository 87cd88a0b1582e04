const app = require("fastify")();

app.get("/", async () => "Hello from Fastify!");
app.listen({ port: 3000 });
