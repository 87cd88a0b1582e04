"""An HTTP/1.1 server without a framework: what it does is named by the path, and it tells exactly what arrived.

Deployed as it is (nothing of vibeD is imported), so that no library between the socket and the test tidies up.
"""

import asyncio
import gzip
import hashlib
import json
import os
import zlib

LIMIT = 1 << 20
released: dict[str, asyncio.Event] = {}
left: dict[str, asyncio.Event] = {}


class Request:
    """One request: its head as bytes, its body as it comes."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader) -> None:
        line, *fields = head.decode("latin-1").split("\r\n")
        self.method, self.target, self.version = line.split(" ")
        self.fields = [tuple(part.strip() for part in field.split(":", 1)) for field in fields if field]
        self.reader = reader
        self.framing = ""
        self.trailers: list[tuple[str, ...]] = []

    def get(self, name: str) -> str:
        return ", ".join(value for key, value in self.fields if key.lower() == name)

    async def pieces(self):
        """The body, piece by piece."""
        if "chunked" in self.get("transfer-encoding").lower():
            self.framing = "chunked"
            while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                while size:
                    piece = await self.reader.read(min(size, 65_536))
                    if not piece:
                        raise EOFError
                    size -= len(piece)
                    yield piece
                await self.reader.readexactly(2)
            while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                self.trailers.append(tuple(part.strip() for part in line.decode("latin-1").split(":", 1)))
        elif length := self.get("content-length"):
            self.framing = f"length {length}"
            missing = int(length)
            while missing:
                piece = await self.reader.read(min(missing, 65_536))
                if not piece:
                    raise EOFError
                missing -= len(piece)
                yield piece

    async def whole(self) -> dict[str, object]:
        """All that there is to say about it."""
        digest, size = hashlib.sha256(), 0
        async for piece in self.pieces():
            digest.update(piece)
            size += len(piece)
        return {
            "method": self.method, "target": self.target, "version": self.version, "fields": self.fields,
            "framing": self.framing, "size": size, "sha256": digest.hexdigest(), "trailers": self.trailers,
        }  # fmt: skip


def response(status: str, body: bytes = b"", *fields: str) -> bytes:
    """A response with a length."""
    head = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def drop(request: Request) -> None:
    async for _ in request.pieces():
        pass


# What the paths do. Each returns whether the connection can be used again.


async def tell(request: Request, writer: asyncio.StreamWriter) -> bool:
    body = json.dumps(await request.whole()).encode()
    writer.write(response("200 OK", body if request.method != "HEAD" else b"", "Content-Type: application/json"))
    return True


async def pipe(request: Request, writer: asyncio.StreamWriter) -> bool:
    """Answers with each piece while it still reads the next."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/octet-stream\r\n\r\n")
    async for piece in request.pieces():
        writer.write(chunk(piece))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    return True


async def early(request: Request, writer: asyncio.StreamWriter) -> bool:
    """Answers before it has read the body, and hangs up."""
    status = request.target.rpartition("/")[2]
    writer.write(response(f"{status} Early", b"no, thanks", "Connection: close", "Content-Type: text/plain"))
    await writer.drain()
    return False


async def early_and_reads_on(request: Request, writer: asyncio.StreamWriter) -> bool:
    """Answers before it has read the body, which it then throws away, as Node does."""
    status = request.target.rpartition("/")[2]
    writer.write(response(f"{status} Early", b"" if status == "401" else b"no, thanks"))
    if not request.get("expect"):
        await drop(request)
        return True
    return False


async def welcome(request: Request, writer: asyncio.StreamWriter) -> bool:
    """Says 100 to who expects it."""
    if request.get("expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return await tell(request, writer)


async def trailers(request: Request, writer: asyncio.StreamWriter) -> bool:
    announced = "unannounced" not in request.target
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n"
    writer.write(head + (b"Trailer: X-Sum, X-More\r\n" if announced else b"") + b"\r\n")
    writer.write(chunk(b"body") + b"0\r\nX-Sum: 4\r\nX-More: a, b\r\n\r\n")
    return True


async def hints(request: Request, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
    writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>; rel=preload\r\n\r\n")
    writer.write(response("200 OK", b"ok", "Content-Type: text/plain"))
    return True


async def compressed(request: Request, writer: asyncio.StreamWriter) -> bool:
    text = b"all the same " * 1000
    if "gzip" in request.get("accept-encoding"):
        zipped = gzip.compress(text, mtime=0)
        writer.write(
            response("200 OK", zipped, "Content-Encoding: gzip", "Vary: Accept-Encoding", "Content-Type: text/plain")
        )
    else:
        writer.write(response("200 OK", text, "Vary: Accept-Encoding", "Content-Type: text/plain"))
    return True


async def trickle(request: Request, writer: asyncio.StreamWriter) -> bool:
    """`/trickle/<kind>/<key>`: the first half now, the second when somebody asks for `/release/<key>`."""
    _, _, kind, key = request.target.split("/")
    first, second = b"data: one\n\n", b"data: two\n\n"
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    if kind == "length":
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(first + second)}\r\n"
    elif kind == "gzip":
        squeeze = zlib.compressobj(wbits=31)
        first = squeeze.compress(first) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        second = squeeze.compress(second) + squeeze.flush()
        head += "Content-Encoding: gzip\r\n"
    if kind != "length":
        head += "Transfer-Encoding: chunked\r\n"
        first, second = chunk(first), chunk(second) + b"0\r\n\r\n"
    writer.write(head.encode() + b"\r\n" + first)
    await writer.drain()
    await released.setdefault(key, asyncio.Event()).wait()
    writer.write(second)
    return True


async def release(request: Request, writer: asyncio.StreamWriter) -> bool:
    released.setdefault(request.target.rpartition("/")[2], asyncio.Event()).set()
    writer.write(response("204 No Content").replace(b"Content-Length: 0\r\n", b""))
    return True


async def stays(request: Request, writer: asyncio.StreamWriter) -> bool:
    """Never answers; `/left/<key>` answers once this one's client has gone."""
    gone = left.setdefault(request.target.rpartition("/")[2], asyncio.Event())
    while await request.reader.read(65_536):
        pass
    gone.set()
    return False


async def has_left(request: Request, writer: asyncio.StreamWriter) -> bool:
    await left.setdefault(request.target.rpartition("/")[2], asyncio.Event()).wait()
    writer.write(response("200 OK", b"gone", "Content-Type: text/plain"))
    return True


RAW = {
    "/raw/204": b'HTTP/1.1 204 No Content\r\nX-Kept: yes\r\nETag: "a"\r\n\r\n',
    "/raw/304": b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nX-Kept: yes\r\n\r\n',
    "/raw/duplicates": response(
        "200 OK",
        b"ok",
        "Content-Type: text/plain",
        "Set-Cookie: a=1",
        "Set-Cookie: b=2; Path=/",
        "X-Dup: 1",
        "X-Dup: 2",
        "Link: <a>",
        "Link: <b>",
    ),
    "/raw/underscores": response("200 OK", b"ok", "Content-Type: text/plain", "X_Under: 1", "x.dot: 2"),
    "/raw/no-type": response("200 OK", b"<html><body>not said to be HTML</body></html>"),
    "/raw/no-length": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nuntil the end",
    "/raw/1.0": b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end",
    "/raw/418": response("418 I'm a teapot", b"short and stout", "Content-Type: text/plain"),
    "/raw/599": response("599 Odd", b"odd", "Content-Type: text/plain"),
    "/raw/named": response(
        "200 OK",
        b"ok",
        "Content-Type: text/plain",
        "Server: mine/1",
        "Date: Sun, 06 Nov 1994 08:49:37 GMT",
        "Via: 1.1 another",
        "Alt-Svc: clear",
        "X-Powered-By: tests",
    ),
    "/raw/hops": response(
        "200 OK",
        b"ok",
        "Content-Type: text/plain",
        "Connection: x-mine",
        "X-Mine: 1",
        "X-Kept: 2",
        "Keep-Alive: timeout=9",
    ),
    "/raw/large-head": response("200 OK", b"ok", "Content-Type: text/plain", "X-Large: " + "h" * 40_000),
    "/raw/many-fields": response("200 OK", b"ok", "Content-Type: text/plain", *(f"X-N-{n}: {n}" for n in range(300))),
    "/raw/partial": response("206 Partial Content", b"cd", "Content-Type: text/plain", "Content-Range: bytes 2-3/10"),
    "/raw/refused": response(
        "426 Upgrade Required", b"not here", "Content-Type: text/plain", "Upgrade: other", "Connection: Upgrade"
    ),
    "/raw/short": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nnot a hundred",
    "/raw/short-chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nnot a hundred",
    "/raw/silence": b"",
    "/raw/nonsense": b"SSH-2.0-OpenSSH_9.9\r\n",
}
ENDS = {"/raw/no-length", "/raw/1.0", "/raw/short", "/raw/short-chunks", "/raw/silence", "/raw/nonsense"}


async def raw(request: Request, writer: asyncio.StreamWriter) -> bool:
    await drop(request)
    said = RAW[request.target]
    writer.write(said.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if request.method == "HEAD" else said)
    return request.target not in ENDS


async def down(request: Request, writer: asyncio.StreamWriter) -> bool:
    """`/down/<MiB>`."""
    size = int(request.target.rpartition("/")[2])
    writer.write(
        f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {size << 20}\r\n\r\n".encode()
    )
    for number in range(size):
        writer.write(bytes([number % 251]) * (1 << 20))
        await writer.drain()
    return True


async def upgrade(request: Request, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-Kept: yes\r\n\r\n")
    while data := await request.reader.read(65_536):
        writer.write(data)
    writer.write(b"and that was all")
    return False


DOES = {
    "pipe": pipe, "early": early, "early-and-reads-on": early_and_reads_on, "welcome": welcome, "trailers": trailers,
    "hints": hints, "compressed": compressed, "trickle": trickle, "release": release, "stays": stays, "left": has_left,
    "raw": raw, "down": down, "upgrade": upgrade,
}  # fmt: skip


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            request = Request(head[:-4], reader)
            does = DOES.get(request.target.strip("/").partition("/")[0], tell)
            again = await does(request, writer)
            await writer.drain()
            if not again:
                return
    except (OSError, EOFError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


async def main() -> None:
    where = ("127.0.0.1", int(os.environ["PORT"]))
    async with await asyncio.start_server(converse, *where, limit=LIMIT, backlog=1024) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
