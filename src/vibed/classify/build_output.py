"""The folder that a front-end project is configured to build into."""

from __future__ import annotations

import posixpath
import re

from vibed.classify.tree import Tree

_CONFIGURATIONS = (
    "vite.config.js", "vite.config.ts", "vite.config.mjs", "astro.config.mjs", "astro.config.js", "astro.config.ts",
    "webpack.config.js", "rollup.config.js", "rollup.config.mjs", "rsbuild.config.ts", "rsbuild.config.js",
    ".eleventy.js", "eleventy.config.js", "eleventy.config.mjs", "vue.config.js", "docusaurus.config.js",
)  # fmt: skip
_SET = re.compile(
    r"""\b(?:outDir|outputDir|output|distDir)\b["']?\s{0,9}:\s{0,9}["'`]([\w@./-]{1,100})["'`]"""
    r"""|\boutput\b\s{0,9}:\s{0,9}\{[^{}]{0,400}?\bpath\b\s{0,9}:\s{0,9}[^\n]{0,60}["'`]([\w@./-]{1,100})["'`]"""
)
_ANGULAR = re.compile(
    r'"outputPath"\s{0,9}:\s{0,9}(?:"([\w@./-]{1,100})"|\{[^{}]{0,200}?"base"\s{0,9}:\s{0,9}"([\w@./-]{1,100})")'
)
_FLAG = re.compile(r"(?:--outDir|--out-dir|--dist-dir|--output-path|--output|--dest|-o|-d)[= ]([\w@./-]{1,100})")


def configured(tree: Tree, build: str) -> str | None:
    """The folder, below the root; `build` is the build script. None where nothing says, or it lies beside."""
    path = said(tree, build)
    return None if path is None or path.startswith("..") else path


def said(tree: Tree, build: str) -> str | None:
    """As `configured`, also where it lies beside the root (`../api/public`), as in a workspace."""
    flag = _FLAG.search(build)
    found = flag[1] if flag else None
    for name in _CONFIGURATIONS if found is None else ():
        match = _SET.search(tree.text(name))
        if match:
            found = match[1] or match[2]
            break
    if found is None and (match := _ANGULAR.search(tree.text("angular.json"))):
        found = match[1] or match[2]
    path = posixpath.normpath(found) if found else "."
    # A file (`-o out.css`), and the root, are no folder of built pages.
    return None if path in (".", "..", "") or path[0] == "/" or "." in posixpath.basename(path)[1:] else path
