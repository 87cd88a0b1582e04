"""A cluster to try things on, which stays until ^C: `python -m tests.cluster fake|up|newest DIR`.

    fake    a control plane with a fake node, as any user: what tests on kwok run on
    up      a real node and vibeD installed by its chart, as root: `make cluster` (tests.cluster.development)
    newest  the newest Kubernetes: builds it, runs the tests of the chart and the CRD on it, ends (tests.cluster.newest)

Prints what to export. What it writes is below DIR.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.cluster import binaries, development, newest
from tests.cluster.box import cannot
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import ClusterFailed
from tests.prepare import home


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in ("fake", "up", "newest"):
        print(__doc__, file=sys.stderr)
        return 2
    if arguments[0] == "up":
        return _up(Path(arguments[1]))
    if arguments[0] == "newest":
        return newest.main(Path(arguments[1]))
    try:
        plane = ControlPlane(Path(arguments[1]), binaries.programs(binaries.CONTROL_PLANE, home()))
        plane.start()
    except (binaries.NotBuilt, ClusterFailed) as error:
        print(error, file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        plane.start_fake_node()
        print(
            f"export KUBECONFIG={plane.kubeconfig()}  PATH={plane.programs}:$PATH    # kube kubectl get nodes",
            flush=True,
        )
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        plane.stop()
    return 0


def _up(folder: Path) -> int:
    if reason := cannot():
        print(reason, file=sys.stderr)
        return 1
    try:
        return development.main(folder)
    except (binaries.NotBuilt, ClusterFailed) as error:
        print(error, file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"{error}\n{error.stderr or ''}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
