"""The version of Python that an app asks for, compared with the template's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from vibed.classify.errors import UnsupportedRuntime
from vibed.classify.python_lists import poetry_version
from vibed.classify.tree import Tree, strings, table

_NUMBER = re.compile(r"^(?:python-|cpython@)?(\d{1,2})\.(\d{1,3})")


def note(tree: Tree, python: str, minors: Sequence[int] = ()) -> str:
    """What to tell of it; empty where it fits. `minors`: those of Python 3 that there are.

    Raises `UnsupportedRuntime` where it needs a newer one.
    """
    have = Version(f"{python}.99")
    for where, text in _asked(tree):
        try:
            wanted = SpecifierSet(text)
        except InvalidSpecifier:
            continue
        if wanted.contains(have) or any(wanted.contains(f"{python}.{patch}") for patch in range(20)):
            continue
        if not any(wanted.contains(f"3.{minor}.99") for minor in range(have.minor + 1)):
            raise UnsupportedRuntime(
                f"{where} asks for Python {text}; the template has {python}",
                hint=f"lower it if the code allows (it may say >={python}), or ask the operator for a newer template"
                + (f"; there are Python {', '.join(f'3.{minor}' for minor in minors)}" if minors else ""),
            )
        return f"{where} asks for Python {text}; the template has {python}"
    for path in (".python-version", "runtime.txt"):
        number = _NUMBER.match(tree.text(path).strip())
        if number and f"{number[1]}.{number[2]}" != python:
            return f"{path} asks for Python {number[1]}.{number[2]}; the template has {python}"
    return ""


def _asked(tree: Tree) -> list[tuple[str, str]]:
    """What is declared, each with where it stands."""
    if tree.has("Pipfile") and not tree.has("pyproject.toml"):
        version = strings(tree.toml("Pipfile").get("requires")).get("python_version", "")
        return [("Pipfile", f"=={version}.*")] if re.fullmatch(r"\d{1,2}\.\d{1,3}", version) else []
    if not tree.has("pyproject.toml"):
        return []
    data = tree.toml("pyproject.toml")
    found = [strings(data.get("project")).get("requires-python", "")]
    poetry = table(table(table(data.get("tool")).get("poetry")).get("dependencies")).get("python")
    if isinstance(poetry, str):
        found.append(poetry_version(poetry.strip()))
    return [("pyproject.toml", text) for text in found if text.strip()]
