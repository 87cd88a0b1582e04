"""`python -m bench.stand_in KUBECONFIG NAMESPACE`: one process in the place of the agents of all pods of a namespace.

For rows with hundreds of apps: as many agents, each with an app, would take the machine from what is measured. It
speaks the agents' line (TLS, claim, run, logs, drain, stop: docs/reference/supervisor.md) at the address of each pod
that has one, and at the app's port it answers 200 to whatever it is asked. It runs nothing, checks no claim, and pulls
no source.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.unit.certificates import authority, signed
from vibed.cluster.client import Client
from vibed.cluster.informer import Informer
from vibed.cluster.kinds import POD, Object
from vibed.drivers.agent_sandbox.line import CONTROL_PORT, INGRESS_PORT

_PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"


class Pod:
    """What its agent would know."""

    def __init__(self, ip: str) -> None:
        self.ip = ip
        self.state = "warm"
        self.servers: list[asyncio.Server] = []
        self.lines: set[asyncio.StreamWriter] = set()
        self.ended = asyncio.Event()

    async def open(self, tls: ssl.SSLContext) -> None:
        for port, talk, context in ((CONTROL_PORT, self._obey, tls), (INGRESS_PORT, self._serve, None)):
            self.servers.append(await asyncio.start_server(talk, self.ip, port, ssl=context, limit=1 << 22))

    def close(self) -> None:
        self.ended.set()
        for server in self.servers:
            server.close()
        for line in self.lines:
            line.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(_PAGE)
        writer.close()

    async def _obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines.add(writer)
        try:
            async with asyncio.TaskGroup() as tasks:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    while line := await reader.readline():
                        message = json.loads(line)
                        if message["op"] == "source":
                            await reader.readexactly(message["size"])
                        tasks.create_task(self._answer(message, writer))
        finally:
            self.lines.discard(writer)
            writer.close()

    async def _answer(self, message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(json.dumps({"id": message["id"], "ok": await self._did(message)}).encode() + b"\n")
            await writer.drain()

    async def _did(self, message: dict[str, Any]) -> dict[str, Any]:
        match message["op"]:
            case "run":
                self.state = "running"
                return {"port": 1, "timings": {}}
            case "logs":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(float(message.get("wait_s") or 0)):
                        await self.ended.wait()
                return {"lines": [], "complete": self.state == "exited"}
            case "requests":
                return {"open": 0, "websockets": 0, "total": 0, "last_at": 0}
            case "drain" | "stop":
                self.state = "exited"
                self.ended.set()
        return {"state": self.state, "isolation": {"level": "process", "evidence": ["a stand-in"]}}


class StandIn:
    """See the module's docstring."""

    def __init__(self, client: Client, namespace: str, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._pods: dict[str, Pod] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self.informer = Informer(client, POD, namespace=namespace, on_change=self._changed, trim=_trimmed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        pod = new or old
        assert pod is not None
        uid, ip = pod["metadata"]["uid"], pod["podIP"]
        if not pod["agent"]:
            return
        if new is None or "deletionTimestamp" in pod["metadata"]:
            if uid in self._pods:
                self._pods.pop(uid).close()
        elif ip and uid not in self._pods:
            self._pods[uid] = Pod(ip)
            opening = asyncio.create_task(self._pods[uid].open(self._tls))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)


def _trimmed(pod: Object) -> Object:
    metadata = pod["metadata"]
    return {
        "metadata": {
            key: metadata[key] for key in metadata if key in ("name", "uid", "resourceVersion", "deletionTimestamp")
        },
        "agent": "vibed-agent" in "".join(pod["spec"]["containers"][0].get("command") or ()),
        "podIP": (pod.get("status") or {}).get("podIP"),
    }


async def main(kubeconfig: Path, namespace: str) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        shown = await asyncio.to_thread(lambda: signed(authority(Path(folder) / "ca"), Path(folder) / "agent"))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(shown / "tls.crt", shown / "tls.key")
    await StandIn(Client.connect(kubeconfig=kubeconfig, namespace=namespace), namespace, tls).informer.run()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
