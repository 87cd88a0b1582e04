// What a worker has in `env` for the services that its wrangler file binds, by kind. This module is the one place for
// them: a kind that comes to be here (over a stub in `env`, as the shim gives the content of Workers Sites) replaces its row.
import { env } from "cloudflare:workers";

const declared = @BINDINGS@;

// Methods that are chained (`prepare().bind()`) fail at once, others as the promise that they would have returned.
const KINDS = {
  kv: absent(),
  d1: absent({ chained: true }),
  r2: absent(),
  durable_object: absent({ chained: true }),
  queue: absent(),
  workflow: absent(),
  service: absent(),
  dispatch: absent({ chained: true }),
  hyperdrive: absent({ chained: true, values: ["connectionString", "host", "port", "user", "password", "database"] }),
  vectorize: absent(),
  analytics: absent({ chained: true }),
  rate_limit: absent(),
  ai: absent(),
  browser: absent(),
  images: absent({ chained: true }),
  media: absent({ chained: true }),
  email: absent(),
  pipeline: absent(),
  mtls: absent(),
  vpc: absent(),
  secret: absent(),
  unsafe: absent(),
  file: absent({ chained: true }),
};

function absent({ chained = false, values = [] } = {}) {
  return (binding) => {
    const fails = (from) => {
      const error = new Error(`${binding.called} ${binding.name} is not there: ${binding.instead}`);
      Error.captureStackTrace(error, from);
      return error;
    };
    return new Proxy({}, {
      get(target, member) {
        // what languages and libraries look at without using it
        if (typeof member === "symbol" || member === "then" || member === "toJSON" || member in target) return target[member];
        if (values.includes(member)) throw fails();
        return function method() {
          const error = fails(method);
          if (chained) throw error;
          return Promise.reject(error);
        };
      },
    });
  };
}

for (const binding of declared) {
  if (!(binding.name in env)) env[binding.name] = KINDS[binding.kind](binding);
}
