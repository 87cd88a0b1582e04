// The main module of every worker: the app's own module, with its errors told in the log. `@MODULE@` is the app's.
import "./__vibed_cache__.js";
import "./__vibed_bindings__.js";
@PRELUDE@
import * as app from "@MODULE@";
import { WorkerEntrypoint } from "cloudflare:workers";
export * from "@MODULE@";

const own = @HANDLER@;

addEventListener("unhandledrejection", (event) => {
  console.error(`unhandled rejection: ${event.reason?.stack ?? event.reason}`);
});

function failed(request, error) {
  console.error(`${request.method} ${new URL(request.url).pathname}: ${error?.stack ?? error}`);
  return new Response("Internal Server Error\n", {
    status: 500,
    headers: { "content-type": "text/plain;charset=utf-8", "x-vibed-error": "WorkerException" },
  });
}

function guarded(handler) {
  if (typeof handler === "function" && typeof handler.prototype?.fetch === "function") {
    return class extends handler {
      async fetch(request) {
        try {
          return await super.fetch(request);
        } catch (error) {
          return failed(request, error);
        }
      }
    };
  }
  if (typeof handler?.fetch !== "function") return handler;
  return {
    ...handler,
    async fetch(request, env, ctx) {
      try {
        return await handler.fetch(request, env, ctx);
      } catch (error) {
        return failed(request, error);
      }
    },
  };
}

export default guarded(own);

export class VibedInspect extends WorkerEntrypoint {
  handlers() {
    const names = ["fetch", "scheduled", "queue", "email", "tail", "trace"];
    return names.filter((name) => typeof (own?.[name] ?? own?.prototype?.[name]) === "function");
  }
}
