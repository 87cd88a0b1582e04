// A unit converter with Node's own modules only.
const http = require("node:http");
const fs = require("node:fs");
const path = require("node:path");

const UNITS = {
  length: { m: 1, km: 1000, mi: 1609.344, ft: 0.3048, in: 0.0254 },
  mass: { kg: 1, g: 0.001, lb: 0.45359237, oz: 0.028349523125 },
};

function convert(value, from, to) {
  const kind = Object.values(UNITS).find((units) => from in units && to in units);
  if (!kind || !Number.isFinite(value)) return null;
  return (value * kind[from]) / kind[to];
}

const server = http.createServer((request, response) => {
  const url = new URL(request.url, "http://localhost");
  if (url.pathname === "/convert") {
    const [value, from, to] = ["value", "from", "to"].map((name) => url.searchParams.get(name));
    const result = convert(Number(value), from, to);
    response.writeHead(result === null ? 400 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(result === null ? { error: "cannot convert that" } : { value: Number(value), from, to, result }));
    return;
  }
  if (url.pathname === "/") {
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" });
    fs.createReadStream(path.join(__dirname, "index.html")).pipe(response);
    return;
  }
  response.writeHead(404, { "content-type": "text/plain" });
  response.end("not found\n");
});

const port = process.env.PORT || 3000;
server.listen(port, () => console.log(`converter on port ${port}`));
