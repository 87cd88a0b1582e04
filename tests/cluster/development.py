"""The development cluster: `python -m tests.cluster up`, which is `make cluster`. As root; it stays until ^C.

A control plane and a real node in a box, agent-sandbox, an S3 server, vibeD's images, and its chart as a platform team
would install it, with gVisor as the runtime of apps. What visitors and kubectl need is forwarded to loopback.
"""

from __future__ import annotations

import base64
import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cluster import binaries, node
from tests.cluster.box import REPOSITORY, Box
from tests.cluster.cluster import Cluster
from tests.cluster.processes import Processes
from tests.cluster.small_images import small_images
from tests.prepare import home

TEMPLATES = ("static-nginx", "workerd", "python-313", "node-24")
IMAGES = ("vibed", "vibed-caddy", *TEMPLATES)
RELEASE, APPS = "vibed", "vibed-apps"
"""The namespaces, of the release and of the apps."""
LISTEN, API_LISTEN = "127.0.0.1:18080", "127.0.0.1:16443"
REGISTRY = "ghcr.io/vibed-project"
BUCKET, REGION = "vibed", "eu-test-1"
CHART = REPOSITORY / "deploy" / "helm" / "vibed"
_S3_PORT = 7480
_INSTALL_S = 300


class Development:
    """One development cluster below `folder`. `start`, then `install`; `end` in any case."""

    def __init__(self, folder: Path) -> None:
        """Raises tests.cluster.binaries.NotBuilt."""
        self.folder = folder.absolute()
        self.box = Box(self.folder)
        self._s3_programs = binaries.programs(binaries.S3, home())
        self._processes = Processes(self.folder / "logs")
        program = self.box.programs / "kube"
        self._kubectl = (str(program), "kubectl")
        self._s3_key = {"AWS_ACCESS_KEY_ID": secrets.token_hex(10), "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}

    @property
    def cluster(self) -> Cluster:
        """kubectl in the box."""
        return Cluster(self.box.kubeconfig, self.box.command(*self._kubectl), self.folder)

    def start(self) -> None:
        """The cluster and what vibeD needs of its surroundings. Raises ClusterFailed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.box.start(small_images(self.folder))
        (self.folder / "s3" / BUCKET).mkdir(parents=True)
        # in the box's network, since sandboxes fetch from it; not in its mounts: it links files by its own /proc, and
        # the box's is of other processes
        address = f"{node.ADDRESS}:{_S3_PORT}"
        keys = ("--access", self._s3_key["AWS_ACCESS_KEY_ID"], "--secret", self._s3_key["AWS_SECRET_ACCESS_KEY"])
        server = (str(self._s3_programs / "versitygw"), *keys, "--region", REGION, "--port", address)
        there = ("nsenter", f"--net=/proc/{self.box.pid}/ns/net", "--")
        self._processes.start("s3", [*there, *server, "posix", str(self.folder / "s3")])

    def import_images(self, names: Sequence[str]) -> None:
        """Build images (deploy/images) and give them to the node. Raises CalledProcessError, ClusterFailed."""
        built = images(names)
        for archive in built.values():
            self.box.import_image(archive)

    def install(self, values: Mapping[str, Any] | None = None) -> None:
        """`helm install --wait` of the chart. `values` come after those for this cluster. Raises CalledProcessError
        with what Helm says.
        """
        kubectl = self.cluster.kubectl
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RELEASE}}
        kubectl("create", "-f", "-", given=namespace)
        data = {name: base64.b64encode(value.encode()).decode() for name, value in self._s3_key.items()}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vibed-s3"}, "data": data}
        kubectl("create", "-n", RELEASE, "-f", "-", given=secret)
        given = [self.folder / "values.json", self.folder / "more-values.json"]
        given[0].write_text(json.dumps(self.values()))
        given[1].write_text(json.dumps(dict(values or {})))
        self.helm(
            *("install", "vibed", str(CHART), "-n", RELEASE, "--wait", f"--timeout={_INSTALL_S}s"),
            *(argument for path in given for argument in ("-f", str(path))),
        )

    def helm(self, *arguments: str) -> str:
        """What Helm prints. Raises CalledProcessError."""
        argv = (str(self.box.programs / "helm"), "--kubeconfig", str(self.box.kubeconfig), *arguments)
        return self.box.run(*argv, deadline_s=_INSTALL_S + 60)

    def values(self) -> dict[str, Any]:
        """The chart's values for this cluster."""
        api_port = int(self.cluster.server[0].rpartition(":")[2])
        api_server = [{"ipBlock": {"cidr": f"{node.API_SERVER}/32"}}]
        there = [{"ipBlock": {"cidr": f"{node.ADDRESS}/32"}}]
        # a node of two processors is to have room for apps beside vibeD, and for its pods' successors
        small = {"requests": {"cpu": "20m"}}
        return {
            "api": {"resources": small},
            "controller": {"resources": small},
            "router": {"resources": small, "caddyResources": small},
            "domain": "localhost",
            "images": {"registry": REGISTRY, "pullPolicy": "Never"},
            "sources": {
                "s3": {
                    "bucket": BUCKET,
                    "endpoint": f"http://{node.ADDRESS}:{_S3_PORT}",
                    "region": REGION,
                    "existingSecret": "vibed-s3",
                }
            },
            "sandboxes": {"runtimeClass": "gvisor", "templates": list(TEMPLATES)},
            "network": {
                "sourceStore": {"to": there, "ports": [_S3_PORT]},
                "s3": {"to": there, "ports": [_S3_PORT]},
                "apiServer": {"to": api_server, "ports": [443, api_port]},
            },
        }

    def forward(self) -> Path:
        """Visitors at LISTEN, and the API server at API_LISTEN, from when this returns; the kubeconfig for the latter.
        Raises TimeoutError.
        """
        service = self.cluster.get("-n", RELEASE, "service", "vibed-router")
        router = f"{service['spec']['clusterIP']}:80"
        api = self.cluster.server[0].removeprefix("https://")
        pairs = (LISTEN, router, API_LISTEN, api)
        module = [sys.executable, "-m", "tests.cluster.forward", str(self.box.pid)]
        path = f"{REPOSITORY}/src:{REPOSITORY}"
        self._processes.start("forward", [*module, *pairs], env={"PYTHONPATH": path})
        for address in (LISTEN, API_LISTEN):
            _until_listening(address)
        outside = self.folder / "outside.kubeconfig"
        outside.touch(mode=0o600)
        outside.write_text(self.box.kubeconfig.read_text().replace(api, API_LISTEN))
        return outside

    def admin_key(self) -> str:
        """The key of the installed vibeD's admin."""
        secret = self.cluster.get("-n", RELEASE, "secret", "vibed-keys")
        return base64.b64decode(secret["data"]["admin"]).decode()

    def commands(self) -> Path:
        """A folder with `vibed`, `kubectl` and `helm`, for whoever has none."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        for name, program in (("kubectl", "kube"), ("helm", "helm")):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(self.box.programs / program)
        vibed = folder / "vibed"
        module = f'PYTHONPATH="{REPOSITORY}/src" exec "{sys.executable}" -m vibed.cli.main "$@"'
        vibed.write_text(f"#!/bin/sh\n{module}\n")
        vibed.chmod(0o755)
        return folder

    def end(self) -> None:
        """Nothing of it runs afterwards."""
        self._processes.kill_all()
        self.box.end()


def _until_listening(address: str) -> None:
    host, _, port = address.rpartition(":")
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise TimeoutError(f"nobody listens at {address}") from None
            time.sleep(0.05)


def images(names: Sequence[str]) -> dict[str, Path]:
    """Build images that are not there yet: name -> archive. Raises CalledProcessError."""
    out = home() / "images"
    script = REPOSITORY / "deploy" / "images" / "build.py"
    argv = [sys.executable, str(script), "--home", str(home()), "--out", str(out), "--registry", REGISTRY]
    # what it prints is for who asked for images: names and digests
    subprocess.run([*argv, *names], check=True, stdout=subprocess.DEVNULL)
    return {name: out / f"{name}.tar" for name in map(image_name, names)}


def image_name(name: str) -> str:
    """An image's own name: `python-313` is short for `vibed-template-python-313`."""
    return name if name in ("vibed", "vibed-caddy") else f"vibed-template-{name.removeprefix('vibed-template-')}"


def main(folder: Path) -> int:
    """Until ^C or SIGTERM."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    made = Development(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        say("building images (minutes the first time: the templates)")
        images(IMAGES)
        made.start()
        say(f"Kubernetes {binaries.kubernetes_version()} with a real node, in a box")
        made.import_images(IMAGES)
        say("images imported")
        made.install()
        outside = made.forward()
        say("vibeD is installed")
        print(
            f"\n  export PATH={made.commands()}:$PATH KUBECONFIG={outside}"
            f"\n  export VIBED_URL=http://localhost:{LISTEN.rpartition(':')[2]} VIBED_TOKEN={made.admin_key()}"
            "\n  vibed deploy examples/flask-todo\n  kubectl get pods -A\n\n^C ends it."
        )
        sys.stdout.flush()
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        made.end()
    return 0
