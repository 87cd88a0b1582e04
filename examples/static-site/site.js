const show = (id, text) => { document.getElementById(id).textContent = text; };
const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

show("host", location.hostname || "This page");

async function measure() {
  const [page] = performance.getEntriesByType("navigation");
  if (page?.responseStart) show("first-byte", milliseconds(page.responseStart - page.requestStart));

  const times = [];
  for (let i = 0; i < 10; i += 1) {
    const began = performance.now();
    await fetch(`favicon.svg?${i}`, { cache: "no-store" });
    times.push(performance.now() - began);
  }
  times.sort((a, b) => a - b);
  show("round-trip", milliseconds((times[4] + times[5]) / 2));

  let bytes = 0;
  for (const file of ["./", "style.css", "site.js", "favicon.svg"]) {
    bytes += (await (await fetch(file)).arrayBuffer()).byteLength;
  }
  show("weight", `${(bytes / 1024).toFixed(1)} kB`);
}

measure().catch(() => {
  for (const id of ["first-byte", "round-trip", "weight"]) {
    const field = document.getElementById(id);
    if (field.textContent === "measuring") field.textContent = "offline";
  }
});

document.getElementById("copy").addEventListener("click", async ({ currentTarget: button }) => {
  const label = button.innerHTML;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy by hand";
  }
  setTimeout(() => { button.innerHTML = label; }, 1600);
});
