// The service-worker form: `addEventListener("fetch", …)` and variables as globals, on top of the module form.
import { env } from "cloudflare:workers";

const listeners = [];
const add = globalThis.addEventListener.bind(globalThis);

globalThis.addEventListener = (type, listener) => {
  if (type === "fetch") listeners.push(typeof listener === "function" ? listener : listener.handleEvent.bind(listener));
  else if (type !== "scheduled") add(type, listener);
};
for (const [name, value] of Object.entries(env)) {
  if (!(name in globalThis)) globalThis[name] = value;
}

export const handler = {
  get fetch() {
    return listeners.length ? dispatch : undefined;
  },
};

async function dispatch(request, env, ctx) {
  for (const listener of listeners) {
    let answer;
    listener({
      type: "fetch",
      request,
      respondWith: (response) => { answer = Promise.resolve(response); },
      waitUntil: (promise) => ctx.waitUntil(promise),
      passThroughOnException() {},
    });
    if (answer) return answer;
  }
  return new Response("no listener answered this request\n", { status: 500 });
}
