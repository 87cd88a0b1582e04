export const page = `<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Pulse</title>
  <style>
    body { font: 17px/1.6 system-ui, sans-serif; max-width: 38rem; margin: 10vh auto; padding: 0 1.5rem; }
    dl { display: flex; gap: 2.5rem; } dd { margin: 0; font-size: 1.8rem; font-variant-numeric: tabular-nums; }
    svg { width: 100%; height: 7rem; } polyline { fill: none; stroke: #c8401f; stroke-width: 2; }
  </style>
</head>
<body>
  <h1>Pulse</h1>
  <dl>
    <div><dt>Samples</dt><dd id="count">0</dd></div>
    <div><dt>Memory, MiB</dt><dd id="memory">–</dd></div>
    <div><dt>Up, s</dt><dd id="uptime">–</dd></div>
  </dl>
  <svg viewBox="0 0 100 30" preserveAspectRatio="none"><polyline id="line" vector-effect="non-scaling-stroke"/></svg>
  <script>
    const field = (id) => document.getElementById(id);
    const memory = [];
    new EventSource("/events").onmessage = ({ data }) => {
      const sample = JSON.parse(data);
      memory.push(sample.memory);
      if (memory.length > 60) memory.shift();
      field("count").textContent = Number(field("count").textContent) + 1;
      field("memory").textContent = sample.memory;
      field("uptime").textContent = sample.uptime;
      const most = Math.max(...memory) * 1.1;
      field("line").setAttribute("points", memory.map((m, i) => (i * 100) / 59 + "," + (30 - (m / most) * 28)).join(" "));
    };
  </script>
</body>
</html>
`;
