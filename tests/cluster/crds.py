"""CRDs of the tests' clusters. agent-sandbox's are as its 1.x has them: the version that is stored and no other, and no
webhook that converts, so that its controller runs as a plain process, without a certificate that the API server would
have to trust.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def without_conversion(folder: Path) -> str:
    """All CRDs of the folder as one stream of YAML."""
    documents = []
    for file in sorted(folder.glob("*.yaml")):
        for crd in yaml.load_all(file.read_text(), _LOADER):
            crd["spec"]["versions"] = [version for version in crd["spec"]["versions"] if version["storage"]]
            crd["spec"]["conversion"] = {"strategy": "None"}
            documents.append(crd)
    return str(yaml.dump_all(documents, Dumper=_DUMPER, sort_keys=False))


def until_established(kubectl: Callable[..., str], *which: str, within_s: float = 30.0) -> None:
    """Wait until the API server serves them (`crd --all`, `crd/NAME`). Raises what `kubectl` raises.

    One without any condition yet (a machine that is busy) is an error to kubectl, and nothing to wait for.
    """
    ends = time.monotonic() + within_s
    while True:
        try:
            kubectl("wait", "--for=condition=Established", *which, f"--timeout={within_s:g}s")
            return
        except Exception as error:
            if "accessor error" not in str(error) or time.monotonic() > ends:
                raise
        time.sleep(0.1)
