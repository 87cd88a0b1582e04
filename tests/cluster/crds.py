"""agent-sandbox's CRDs as its 1.x has them: the version that is stored and no other, and no webhook that converts.

Its controller then runs as a plain process, without a certificate that the API server would have to trust.
"""

from __future__ import annotations

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
