"""A container image from directories, without a daemon: an archive that Docker, Podman, buildah and containerd load.

The same directories are the same bytes: entries in order, one time for all, no name or id of who built it. Layers are
not compressed; what pushes them to a registry does that. Standard library only.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIME = 1_577_836_800
"""Unix seconds of every entry and of the image: 2020-01-01. Not 0, for which some servers make no ETag."""
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class File:
    """A file of an image that lies in no directory: its content, or where that is."""

    content: bytes | Path
    mode: int = 0o644


@dataclass(frozen=True)
class Layer:
    """One layer: a directory and its place in the image, and files beside it. Everything belongs to root."""

    root: Path | None = None
    at: str = ""
    """Below this directory of the image; empty: the directory is the image's root."""
    files: Mapping[str, File] = field(default_factory=dict)
    """Path in the image, without a slash in front -> file."""
    directories: Mapping[str, int] = field(default_factory=dict)
    """The same for directories -> mode."""
    links: Mapping[str, str] = field(default_factory=dict)
    """The same for symbolic links -> where they lead."""
    packed: Path | None = None
    """What `pack` made of a layer earlier; then there is nothing else."""


@dataclass(frozen=True)
class Image:
    """What an image is made of and how it is run."""

    name: str
    """`name:tag`, as it is known where it is loaded."""
    layers: Sequence[Layer]
    entrypoint: Sequence[str]
    command: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = "65532:65532"
    """Numbers: Kubernetes cannot see from a name that it is not root's."""
    directory: str = "/"
    ports: Sequence[int] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    architecture: str = os.uname().machine


def write(image: Image, out: Path) -> str:
    """Write the image's archive to `out`, in one rename; returns the digest of its manifest. Raises OSError."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
        folder = Path(work)
        files = [layer.packed or pack(layer, folder / f"layer-{n}") for n, layer in enumerate(image.layers)]
        layers = [(_described_file(file, _LAYER), file) for file in files]
        config = json.dumps(_config(image, [layer["digest"] for layer, _ in layers]), sort_keys=True).encode()
        described = _described(config, _CONFIG)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": described,
                "layers": [layer for layer, _ in layers],
                "annotations": dict(image.annotations),
            },
            sort_keys=True,
        ).encode()
        named = {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name}
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{**_described(manifest, _MANIFEST), "annotations": named}],
        }
        # what Docker before 25 reads; newer ones and all others read index.json
        older = [
            {
                "Config": _blob(described["digest"]),
                "RepoTags": [image.name],
                "Layers": [_blob(layer["digest"]) for layer, _ in layers],
            }
        ]
        finished = folder / "archive"
        with tarfile.open(finished, "w", format=tarfile.PAX_FORMAT) as archive:
            _put(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _put(archive, "index.json", json.dumps(index, sort_keys=True).encode())
            _put(archive, "manifest.json", json.dumps(older, sort_keys=True).encode())
            _put(archive, _blob(described["digest"]), config)
            _put(archive, _blob(_digest(manifest)), manifest)
            for path, content in {_blob(layer["digest"]): file for layer, file in layers}.items():
                _put(archive, path, content)
        finished.replace(out)
        return _digest(manifest)


def _config(image: Image, layers: Sequence[str]) -> dict[str, Any]:
    run: dict[str, Any] = {
        "User": image.user,
        "Entrypoint": list(image.entrypoint),
        "Env": [f"{name}={value}" for name, value in sorted(image.env.items())],
        "WorkingDir": image.directory,
        "Labels": dict(image.labels),
    }
    if image.command:
        run["Cmd"] = list(image.command)
    if image.ports:
        run["ExposedPorts"] = {f"{port}/tcp": {} for port in image.ports}
    return {
        "architecture": _ARCHITECTURES.get(image.architecture, image.architecture),
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": list(layers)},
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "deploy/images/build.py"} for _ in layers],
    }


def pack(layer: Layer, out: Path) -> Path:
    """Write a layer alone to `out`, for images that share it; returns `out`. Raises OSError."""
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:
        made: set[str] = set()
        for entry, content in sorted(_entries(layer), key=lambda found: found[0].name):
            if entry.name in made:  # what is named in the layer comes before what lies in its directory
                continue
            made.add(entry.name)
            if content is None:
                tar.addfile(entry)
            elif isinstance(content, bytes):
                tar.addfile(entry, io.BytesIO(content))
            else:
                with content.open("rb") as opened:
                    tar.addfile(entry, opened)
    return out


_Entry = tuple[tarfile.TarInfo, bytes | Path | None]


def _entries(layer: Layer) -> Iterator[_Entry]:
    for path, mode in layer.directories.items():
        yield _entry(path, tarfile.DIRTYPE, mode), None
    for path, target in layer.links.items():
        link = _entry(path, tarfile.SYMTYPE, 0o777)
        link.linkname = target
        yield link, None
    for path, file in layer.files.items():
        entry = _entry(path, tarfile.REGTYPE, file.mode)
        entry.size = len(file.content) if isinstance(file.content, bytes) else file.content.stat().st_size
        yield entry, file.content
    # what lies in no directory of its own still needs one
    places = {*layer.files, *layer.links, *layer.directories, *([f"{layer.at}/x"] if layer.at else [])}
    given = set(layer.directories)
    for place in places:
        for parent in Path(place).parents:
            if parent.name and str(parent) not in given and not (layer.root and (layer.root / parent).is_dir()):
                given.add(str(parent))
                yield _entry(str(parent), tarfile.DIRTYPE, 0o755), None
    if layer.root is not None:
        yield from _tree(layer.root, layer.at)


def _tree(root: Path, at: str) -> Iterator[_Entry]:
    for folder, directories, files in os.walk(root):
        directories.sort()
        for name in sorted([*directories, *files]):
            path = Path(folder, name)
            inside = str(Path(at, path.relative_to(root)))
            found = path.lstat()
            mode = stat.S_IMODE(found.st_mode)
            if stat.S_ISLNK(found.st_mode):
                entry = _entry(inside, tarfile.SYMTYPE, 0o777)
                entry.linkname = str(path.readlink())
                yield entry, None
            elif stat.S_ISDIR(found.st_mode):
                yield _entry(inside, tarfile.DIRTYPE, mode), None
            elif stat.S_ISREG(found.st_mode):
                entry = _entry(inside, tarfile.REGTYPE, mode)
                entry.size = found.st_size
                yield entry, path


def _entry(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.mtime = kind, mode, TIME
    return entry


def _put(archive: tarfile.TarFile, path: str, content: bytes | Path) -> None:
    entry = _entry(path, tarfile.REGTYPE, 0o644)
    if isinstance(content, bytes):
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
        return
    entry.size = content.stat().st_size
    with content.open("rb") as opened:
        archive.addfile(entry, opened)


def _described(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _described_file(file: Path, media_type: str) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": file.stat().st_size}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"
