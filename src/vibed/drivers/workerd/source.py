"""What a worker's source gives: the modules that are loaded, and the static assets beside them.

Nothing of the source is run or parsed by it beyond what `code` says. All of it blocks.
"""

from __future__ import annotations

from pathlib import Path

from vibed.classify.host_rules import Rules, host_rules
from vibed.classify.tree import decoded
from vibed.classify.unpublished import unpublished
from vibed.drivers.refused import as_a_failed_run
from vibed.drivers.workerd import code
from vibed.sandboxes.driver import Run, RunFailed
from vibed.sources.extraction import extract, file_paths, iter_files
from vibed.sources.limits import ArchiveLimits
from vibed.sources.reader import read_table
from vibed.sources.table import ArchiveTable

_MAX_SOURCE_BYTES = 16 << 20
_MAX_BINARY_BYTES = 32 << 20


def as_it_is(source: Path, strip: str, entry: str, bundled: bool, limits: ArchiveLimits) -> dict[str, object] | None:
    """The modules of a worker that needs no bundling, or was `bundled`; None for one that needs it. Raises
    `RunFailed`.
    """
    with as_a_failed_run():
        table = read_table(source, limits)
        files: dict[str, bytes] = {}
        size = 0
        for name, content in iter_files(source, table, strip=strip, limits=limits):
            if name != entry and (name.startswith("node_modules/") or not name.endswith(code.MODULES)):
                continue
            size += len(content)
            if size > _MAX_SOURCE_BYTES:
                return None
            files[name] = content
    if entry not in files:
        raise RunFailed(f"the worker's entry point {entry!r} is not in the source", code="InjectFailed")
    return code.built(files, entry) if bundled else code.plain(files, entry)


def of_bundle(output: bytes, run: Run, limits: ArchiveLimits) -> dict[str, object]:
    """The modules of a worker whose bundle is `output`; the entry is `code.BUNDLE`. Raises `RunFailed`."""
    modules = code.bundled(output)
    module = modules[code.BUNDLE]
    assert isinstance(module, dict)
    text = str(module["js"])
    if any(f"{kind}{end}" in text for kind in code.BINARIES for end in ('"', "?")):
        return code.with_binaries(text, _binaries(run.source, run.runtime.strip, limits))
    return modules


def lay_out(
    run: Run,
    folder: str,
    into: Path,
    owner: tuple[int, int] | None,
    limits: ArchiveLimits,
    table: ArchiveTable | None = None,
) -> tuple[dict[str, str], Rules]:
    """Unpack the assets in `folder` of the source to `into`, which must not exist; their etags by path, and the rules
    that they bring. `table`: the source's, where it was read before. Raises `RunFailed`, `StorageFull`,
    `StorageFailed`.
    """
    prefix = run.runtime.strip + folder
    with as_a_failed_run():
        table = table or read_table(run.source, limits)
        texts = table.texts

        def text(path: str) -> str:
            return decoded(texts.get(prefix + path, b""))

        names = frozenset(file_paths(table, prefix))
        if not names:
            raise RunFailed(f"the folder of static assets, {folder!r}, is not in the source", code="InjectFailed")
        entry = run.runtime.entrypoint.removeprefix("./")
        code_of_it = {entry.removeprefix(folder)} if entry.startswith(folder) else set()
        links = frozenset(entry.target[len(prefix) :] for entry in table.entries if entry.target)
        left_out = (unpublished(names, text) | code_of_it) - links
        extract(
            run.source,
            table,
            into,
            strip=prefix,
            file_mode=0o440,
            # who has no root has to be able to write what it is about to fill
            dir_mode=0o550 if owner is not None else 0o750,
            owner=owner,
            without=left_out,
            limits=limits,
        )
    version = run.source.name[:12]
    etags = {name: f'"{version}-{number}"' for number, name in enumerate(sorted(names - left_out))}
    return etags, host_rules(text, "")


def _binaries(source: Path, strip: str, limits: ArchiveLimits) -> dict[str, bytes]:
    """The files of a source that can be modules without being text."""
    with as_a_failed_run():
        files = iter_files(source, read_table(source, limits), strip=strip, limits=limits)
        found = {name: content for name, content in files if name.endswith(tuple(code.BINARIES))}
    if sum(map(len, found.values())) > _MAX_BINARY_BYTES:
        raise RunFailed(
            f"the worker's .wasm and .bin files have more than {_MAX_BINARY_BYTES >> 20} MB", code="BundleFailed"
        )
    return found
