"""A guest book with nothing but the standard library."""

import html
import json
import os
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

ENTRIES = [{"name": "Ada", "text": "First!", "at": "once upon a time"}]

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Guest book</title>
<style>body {{ font: 17px/1.6 system-ui; max-width: 36rem; margin: 8vh auto; padding: 0 1.5rem }}
article {{ border-left: 3px solid #b58900; padding-left: 1rem; margin: 1.2rem 0 }} small {{ color: #777 }}
input {{ font: inherit; padding: .4rem }}</style></head>
<body><h1>Guest book</h1>{entries}
<form method="post"><input name="name" placeholder="Your name" required>
<input name="text" placeholder="What you want to say" required> <button>Sign</button></form></body></html>"""


class GuestBook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/":
            entries = "".join(
                f"<article>{html.escape(e['text'])}<br><small>{html.escape(e['name'])}, {e['at']}</small></article>"
                for e in ENTRIES
            )
            self.answer(200, "text/html; charset=utf-8", PAGE.format(entries=entries))
        elif path == "/api/entries":
            self.answer(200, "application/json", json.dumps(ENTRIES))
        else:
            self.answer(404, "text/plain", "not found\n")

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        name, text = form.get("name", [""])[0].strip(), form.get("text", [""])[0].strip()
        if not name or not text:
            self.answer(400, "text/plain", "a name and a text, please\n")
            return
        ENTRIES.append({"name": name, "text": text, "at": datetime.now().strftime("%d %b %Y, %H:%M")})
        self.send_response(303)
        self.send_header("Location", "/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, status, kind, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    port = int(os.environ.get("PORT", 8000))
    print(f"guest book on port {port}")
    ThreadingHTTPServer(("0.0.0.0", port), GuestBook).serve_forever()
