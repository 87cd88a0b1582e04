"""Container images that are made without a daemon: what is in the archive, and that the same is always the same."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from deploy.images import sbom
from deploy.images.archive import TIME, File, Image, Layer, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree = tmp_path / "root"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/tool").write_bytes(b"program")
    (tree / "usr/bin/tool").chmod(0o755)
    (tree / "bin").symlink_to("usr/bin")
    (tree / "etc").mkdir()
    (tree / "etc/hosts").symlink_to("../run/etc/hosts")
    return tree


def image(*layers: Layer, **more: Any) -> Image:
    return Image("example.test/tool:1.2", layers, ["/usr/bin/tool"], architecture="x86_64", **more)


def blobs(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def opened(archive: Path) -> tuple[dict[str, Any], dict[str, Any], list[tarfile.TarFile]]:
    """Manifest, configuration, layers (which lie in memory)."""
    found = blobs(archive)

    def blob(described: dict[str, Any]) -> bytes:
        return found[f"blobs/sha256/{described['digest'].removeprefix('sha256:')}"]

    manifest = json.loads(blob(json.loads(found["index.json"])["manifests"][0]))
    layers = [tarfile.TarFile(fileobj=io.BytesIO(blob(layer))) for layer in manifest["layers"]]
    return manifest, json.loads(blob(manifest["config"])), layers


def test_the_same_content_is_the_same_bytes_whoever_made_it_and_whenever(root: Path, tmp_path: Path) -> None:
    first = write(image(Layer(root)), tmp_path / "first.tar")
    os.utime(root / "usr/bin/tool", (1, 1))
    other = tmp_path / "other"
    for path in ("etc", "usr/bin"):  # in another order
        (other / path).mkdir(parents=True)
    (other / "etc/hosts").symlink_to("../run/etc/hosts")
    (other / "bin").symlink_to("usr/bin")
    (other / "usr/bin/tool").write_bytes(b"program")
    (other / "usr/bin/tool").chmod(0o755)
    assert write(image(Layer(other)), tmp_path / "second.tar") == first
    assert (tmp_path / "second.tar").read_bytes() == (tmp_path / "first.tar").read_bytes()


def test_a_changed_byte_is_another_image(root: Path, tmp_path: Path) -> None:
    first = write(image(Layer(root)), tmp_path / "image.tar")
    (root / "usr/bin/tool").write_bytes(b"progran")
    assert write(image(Layer(root)), tmp_path / "image.tar") != first


def test_everything_belongs_to_root_and_has_one_time(root: Path, tmp_path: Path) -> None:
    write(image(Layer(root)), tmp_path / "image.tar")
    _, _, (layer,) = opened(tmp_path / "image.tar")
    entries = {entry.name: entry for entry in layer}
    assert {(e.uid, e.gid, e.uname, e.gname, e.mtime) for e in entries.values()} == {(0, 0, "", "", TIME)}
    assert entries["usr/bin/tool"].mode == 0o755
    assert entries["bin"].linkname == "usr/bin"


def test_a_file_that_is_named_takes_the_place_of_what_lies_in_the_directory(root: Path, tmp_path: Path) -> None:
    write(image(Layer(root, files={"etc/hosts": File(b"ours")})), tmp_path / "image.tar")
    _, _, (layer,) = opened(tmp_path / "image.tar")
    assert [entry.name for entry in layer].count("etc/hosts") == 1
    assert layer.extractfile("etc/hosts").read() == b"ours"  # type: ignore[union-attr]


def test_what_a_file_lies_in_comes_before_it(tmp_path: Path) -> None:
    layer = Layer(files={"opt/a/b/file": File(b"x", 0o755)}, directories={"tmp": 0o1777}, links={"data": "opt/a"})
    write(image(layer), tmp_path / "image.tar")
    _, _, (made,) = opened(tmp_path / "image.tar")
    assert [(entry.name, oct(entry.mode)) for entry in made] == [
        ("data", "0o777"),
        ("opt", "0o755"),
        ("opt/a", "0o755"),
        ("opt/a/b", "0o755"),
        ("opt/a/b/file", "0o755"),
        ("tmp", "0o1777"),
    ]


def test_it_runs_as_a_number_that_is_not_roots_and_says_where_its_sbom_is(root: Path, tmp_path: Path) -> None:
    write(image(Layer(root), annotations={"dev.vibed.sbom": "/sbom.json"}, ports=(8080,)), tmp_path / "image.tar")
    manifest, config, _ = opened(tmp_path / "image.tar")
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["ExposedPorts"] == {"8080/tcp": {}}
    assert manifest["annotations"] == {"dev.vibed.sbom": "/sbom.json"}


def test_docker_finds_the_image_by_its_own_table_and_all_others_by_ocis(root: Path, tmp_path: Path) -> None:
    write(image(Layer(root)), tmp_path / "image.tar")
    found = blobs(tmp_path / "image.tar")
    (docker,) = json.loads(found["manifest.json"])
    assert docker["RepoTags"] == ["example.test/tool:1.2"]
    assert {docker["Config"], *docker["Layers"]} <= set(found)
    (oci,) = json.loads(found["index.json"])["manifests"]
    assert oci["annotations"]["io.containerd.image.name"] == "example.test/tool:1.2"


def test_an_sbom_names_what_package_managers_left_and_is_the_same_for_the_same(tmp_path: Path) -> None:
    site = tmp_path / "site/Flask-3.1.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: Flask\nVersion: 3.1.0\n\nName: not-this\n")
    module = tmp_path / "node_modules/@scope/thing"
    module.mkdir(parents=True)
    (module / "package.json").write_text('{"name": "@scope/thing", "version": "2.0.0"}')
    packages = [*sbom.of_tree(tmp_path), *sbom.of_debian({"libc6": "2.36-9+deb12u1"})]
    document = sbom.document("tool", "1.2", packages)
    read = json.loads(document)
    assert read["bomFormat"] == "CycloneDX"
    assert [component["purl"] for component in read["components"]] == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u1",
        "pkg:npm/%40scope/thing@2.0.0",
        "pkg:pypi/flask@3.1.0",
    ]
    assert sbom.document("tool", "1.2", reversed(packages)) == document
