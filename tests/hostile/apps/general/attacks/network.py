"""Reaches for everything that has an address."""

import array
import os
import socket
import struct


def tcp(addresses):
    """Those that accept a connection."""
    reached = []
    for host, port in addresses:
        try:
            socket.create_connection((host, port), 2).close()
            reached.append(f"{host}:{port}")
        except OSError:
            pass
    return reached


def unix(paths):
    """Sockets that accept a connection, reached directly, through a link, and as abstract names."""
    reached = []
    for number, path in enumerate(paths):
        link = f"/tmp/.socket-{number}"
        try:
            os.symlink(path, link)
        except OSError:
            pass
        for name in (path, link, f"/proc/1/root{path}", "\0" + path, "\0" + os.path.basename(path)):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
                with socket.socket(socket.AF_UNIX, kind) as s:
                    s.settimeout(2)
                    try:
                        s.connect(name)
                        reached.append(repr(name))
                    except OSError:
                        pass
    return reached


def every_unix_socket():
    """Socket files anywhere in the tree that accept a connection."""
    import stat

    reached = []
    for top, folders, names in os.walk("/", followlinks=False):
        folders[:] = [name for name in folders if os.path.join(top, name) not in ("/proc", "/sys", "/usr")]
        for name in names:
            path = os.path.join(top, name)
            try:
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    reached += unix([path])
            except OSError:
                pass
    return reached


def udp(addresses):
    """Those that a datagram left for."""
    sent = []
    for host, port in addresses:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                s.sendto(b"x", (host, port))
                sent.append(f"{host}:{port}")
            except OSError:
                pass
    return sent


def names():
    """Names that resolve to anything but this sandbox itself."""
    resolved = {}
    for name in ("example.com", "metadata.google.internal", "host.docker.internal", "gateway.docker.internal"):
        try:
            resolved[name] = repr(socket.getaddrinfo(name, 80))
        except OSError:
            pass
    return resolved


def sockets():
    """Socket families and kinds beyond what a web app uses that could be made."""
    made = []
    for what, family, kind, protocol in (
        ("packet", socket.AF_PACKET, socket.SOCK_RAW, 0x300),
        ("raw icmp", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        ("raw", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
        ("raw icmp6", socket.AF_INET6, socket.SOCK_RAW, 58),
        ("vsock", 40, socket.SOCK_STREAM, 0),
        ("alg", 38, socket.SOCK_SEQPACKET, 0),
        ("bluetooth", 31, socket.SOCK_RAW, 1),
        ("can", 29, socket.SOCK_RAW, 1),
        ("tipc", 30, socket.SOCK_STREAM, 0),
        ("xdp", 44, socket.SOCK_RAW, 0),
        ("netfilter", socket.AF_NETLINK, socket.SOCK_RAW, 12),
        ("audit", socket.AF_NETLINK, socket.SOCK_RAW, 9),
        ("uevent", socket.AF_NETLINK, socket.SOCK_RAW, 15),
    ):
        try:
            socket.socket(family, kind, protocol).close()
            made.append(what)
        except OSError:
            pass
    return made


def interfaces():
    """Names of the network interfaces."""
    return sorted(name for _, name in socket.if_nameindex())


def change_routes():
    """Whether a route, an address or a state of an interface could be changed."""
    done = []
    message = struct.pack("=IHHIIBBBBIHH", 28 + 8, 24, 5, 1, 0, 2, 0, 0, 0, 0, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as s:
            s.settimeout(1)
            s.send(message)
            answer = s.recv(4096)
            if len(answer) >= 20 and struct.unpack_from("=i", answer, 16)[0] == 0:
                done.append("route")
    except OSError:
        pass
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = array.array("B", struct.pack("16sh22x", b"lo", 0))
        try:
            fcntl.ioctl(s, 0x8914, request)
            done.append("interface down")
        except OSError:
            pass
    return done
