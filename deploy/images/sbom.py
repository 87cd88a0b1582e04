"""What is in an image, as a CycloneDX document: made from what package managers left, the same for the same content."""

from __future__ import annotations

import email.parser
import json
import urllib.parse
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAMESPACE = uuid.UUID("76696265-4400-4000-8000-000000000002")


@dataclass(frozen=True, order=True)
class Package:
    """One package; `kind` is of the package URL: deb, pypi, npm, generic."""

    kind: str
    name: str
    version: str

    @property
    def url(self) -> str:
        """https://github.com/package-url/purl-spec"""
        namespace = "debian/" if self.kind == "deb" else ""
        name = urllib.parse.quote(self.name.lower() if self.kind == "pypi" else self.name, safe="/")
        return f"pkg:{self.kind}/{namespace}{name}@{urllib.parse.quote(self.version, safe='')}"


def of_debian(versions: Mapping[str, str]) -> list[Package]:
    """Debian packages: name -> version."""
    return [Package("deb", name, version) for name, version in versions.items()]


def of_tree(root: Path) -> list[Package]:
    """Python and npm packages that are installed below `root`."""
    found = set()
    for metadata in root.rglob("*.dist-info/METADATA"):
        head = email.parser.Parser().parsestr(metadata.read_text(errors="replace"), headersonly=True)
        if head["Name"] and head["Version"]:
            found.add(Package("pypi", head["Name"], head["Version"]))
    for manifest in root.rglob("node_modules/**/package.json"):
        try:
            data = json.loads(manifest.read_text())
        except (ValueError, OSError):
            continue
        if isinstance(data, dict) and isinstance(data.get("name"), str) and isinstance(data.get("version"), str):
            found.add(Package("npm", data["name"], data["version"]))
    return sorted(found)


def document(image: str, version: str, packages: Iterable[Package]) -> bytes:
    """The document for an image; its serial number is of its content, and it has no time."""
    components = [
        {"type": "library", "bom-ref": one.url, "name": one.name, "version": one.version, "purl": one.url}
        for one in sorted(set(packages))
    ]
    content: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": image, "name": image, "version": version}},
        "components": components,
    }
    serial = uuid.uuid5(_NAMESPACE, json.dumps(content, sort_keys=True))
    return json.dumps({**content, "serialNumber": f"urn:uuid:{serial}"}, indent=1, sort_keys=True).encode() + b"\n"
