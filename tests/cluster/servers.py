"""A small app that says one thing, whatever it is asked."""

from __future__ import annotations

SERVER = """

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        said = SAYS.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_POST = do_GET

print("serving", flush=True)
ThreadingHTTPServer(("127.0.0.1", 0), Handler).serve_forever()
"""


def server(says: str) -> dict[str, str]:
    """A small app."""
    return {"app.py": f"SAYS = {says!r}\n{SERVER}"}
