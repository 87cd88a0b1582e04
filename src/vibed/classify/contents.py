"""Files that hold something else than their names say, as assistants and clients write them: seen before the start."""

from __future__ import annotations

import re

from vibed.classify.errors import BadSource
from vibed.classify.tree import Tree
from vibed.sources.errors import quoted

_FENCE = re.compile(r"\s{0,20}(```|~~~)[\w+.#-]{0,20}[ \t]*\n")
_DATA = re.compile(rb"\s{0,9}data:[\w/+.-]{1,60};base64,")
_LFS = b"version https://git-lfs.github.com/"
_BEGIN = {
    "png": (b"\x89PNG",), "jpg": (b"\xff\xd8",), "jpeg": (b"\xff\xd8",), "gif": (b"GIF8",), "webp": (b"RIFF",),
    "ico": (b"\0\0\1\0", b"\0\0\2\0", b"\x89PNG"), "woff": (b"wOFF",), "woff2": (b"wOF2",), "pdf": (b"%PDF",),
    "zip": (b"PK",), "wasm": (b"\0asm",), "mp3": (b"ID3", b"\xff"), "ttf": (b"\0\1\0\0", b"true", b"ttcf"),
}  # fmt: skip
_SOURCES = (".py", ".js", ".mjs", ".cjs", ".ts", ".html", ".go", ".jsx", ".tsx")


def check(tree: Tree, started: list[str]) -> None:
    """Raises `BadSource` for one of the files that are started or shown that is wrapped in Markdown."""
    for path in started:
        fence = _FENCE.match(tree.text(path)) if path.endswith(_SOURCES) else None
        if fence:
            raise BadSource(
                f"{quoted(path)} begins with {quoted(fence[1])}: it is wrapped in Markdown, and is no source as it is",
                hint="send the text between the fences alone",
            )


def notes(tree: Tree) -> tuple[str, ...]:
    """Of pictures, fonts and the like that are none."""
    found: dict[str, str] = {}
    for path in tree.known(*(f".{ending}" for ending in _BEGIN)):
        raw = tree.raw(path)
        if raw and not raw.startswith(_BEGIN[path.rpartition(".")[2]]):
            found[path] = (
                "a data: URL as text: decode it first" if _DATA.match(raw)
                else "a pointer of Git LFS: fetch the file itself" if raw.startswith(_LFS)
                else ""
            )  # fmt: skip
    if not found:
        return ()
    path, reason = next(iter(found.items()))
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    shown = quoted(tree.raw(path)[:24].partition(b"\n")[0])
    return (f"{quoted(path)} is no {path.rpartition('.')[2]} file, it holds {reason or shown}{more}",)
