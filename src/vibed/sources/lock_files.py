"""The names of lock files, by whose packages they pin."""

from __future__ import annotations

NODE = ("pnpm-lock.yaml", "yarn.lock", "package-lock.json", "npm-shrinkwrap.json", "bun.lock")
BINARY = "bun.lockb"
"""Bun's of before it wrote text: nobody but bun reads it."""
PYPROJECT = ("uv.lock", "poetry.lock", "pdm.lock", "pylock.toml")
"""Beside a pyproject.toml, in the order in which they count."""
PYTHON = (*PYPROJECT, "Pipfile.lock")
READ = frozenset((*NODE, *PYTHON))
"""Those that are read here."""
