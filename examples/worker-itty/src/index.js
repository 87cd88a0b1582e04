import { AutoRouter, error, html } from "itty-router";

const router = AutoRouter();

const roll = (sides) => 1 + (crypto.getRandomValues(new Uint32Array(1))[0] % sides);

router
  .get("/", () => html(`<!doctype html><meta charset="utf-8"><title>Dice</title>
    <body style="font: 18px system-ui; text-align: center; margin-top: 15vh">
    <h1>Dice</h1><p id="out" style="font-size: 3rem">&#9860;</p>
    <p><button onclick="roll('2d6')">Roll 2d6</button> <button onclick="roll('1d20')">Roll 1d20</button></p>
    <script>
      async function roll(what) {
        const answer = await (await fetch("/roll/" + what)).json();
        document.getElementById("out").textContent = answer.rolls.join(" + ") + " = " + answer.total;
      }
    </script>`))
  .get("/roll/:dice", ({ dice }) => {
    const match = /^(\d{1,2})d(\d{1,3})$/.exec(dice);
    if (!match || match[1] === "0" || match[2] === "0") return error(400, "write it like 2d6");
    const rolls = Array.from({ length: Number(match[1]) }, () => roll(Number(match[2])));
    return { dice, rolls, total: rolls.reduce((sum, one) => sum + one, 0) };
  });

export default { fetch: router.fetch };
