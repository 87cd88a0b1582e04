# One workerd, one app: a warm shim that is told over the socket "admin" what to serve on the socket "http".
# Both sockets are descriptors that the supervisor passes. There is no network: nothing here has a service for it.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .shim),
    (name = "files", disk = (path = "@ASSETS@")),
    (name = "internet", network = (allow = []))
  ],
  logging = (structuredLogging = true),
  v8Flags = ["--max-heap-size=@HEAP_MB@"],
  sockets = [
    (name = "http", http = (), service = "main"),
    (name = "admin", http = (), service = (name = "main", entrypoint = "Admin"))
  ]
);

const shim :Workerd.Worker = (
  modules = [(name = "shim", esModule = embed "shim.js")],
  compatibilityDate = "2026-11-01",
  compatibilityFlags = ["experimental"],
  bindings = [
    (name = "LOADER", workerLoader = ()),
    (name = "FILES", service = "files")
  ]
);
