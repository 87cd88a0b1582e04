"""A server whose answers are no HTTP, or too much of it."""

import os
import socket
import threading

CLOSE = b"Connection: close\r\n\r\n"


def serve(client):
    path = client.recv(65536).split()[1]
    try:
        if path == b"/headers":
            client.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"y" * (64 << 20) + b"\r\n\r\n")
        elif path == b"/none":
            client.sendall(os.urandom(1 << 20))
        elif path == b"/informational":
            for _ in range(100_000):
                client.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
        elif path == b"/chunk":
            client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx")
        elif path == b"/two":
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + CLOSE + b"ok")
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        elif path == b"/upgrade":
            client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        else:
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + CLOSE + b"hello")
    except OSError:
        pass
    client.close()


server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=50)
while True:
    connection, _ = server.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
