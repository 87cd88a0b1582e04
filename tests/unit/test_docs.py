"""The documentation is complete, current and without dead links; and nothing that is committed names a mirror."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from vibed.cli.registry import ENTRIES
from vibed.config import Config
from vibed.mcp.toolset import toolset
from vibed.runtimes.templates import load_templates

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PROSE = [*DOCS.rglob("*.md"), *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY"))]

# Written apart, so that this file is not what it looks for.
ADDRESSES = [
    ".".join(parts)
    for parts in (
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("snapshot", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("proxy", "golang", "org"),
        ("sum", "golang", "org"),
        ("goproxy", "io"),
    )
]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vibed_docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/generate.py as a module."""
    return _generator()


@pytest.fixture(scope="module")
def made(generate: ModuleType) -> dict[Path, str]:
    """Every generated page as the code says it now."""
    return dict(generate.pages())


def test_generated_pages_say_what_the_code_says(made: dict[Path, str]) -> None:
    stale = [path.name for path, text in made.items() if not path.exists() or path.read_text() != text]
    assert stale == [], "run: python docs/generate.py"


def test_every_command_is_documented() -> None:
    text = (REFERENCE / "cli.md").read_text()
    assert [e.name for e in ENTRIES if f"### vibed {e.name}\n" not in text] == []


def test_every_configuration_key_is_documented() -> None:
    text = (REFERENCE / "configuration.md").read_text()
    assert [f.name for f in fields(Config) if f"`VIBED_{f.name.upper()}`" not in text] == []


def test_every_route_is_documented(generate: ModuleType) -> None:
    text = (REFERENCE / "http-api.md").read_text()
    routes = [
        f"{method.upper()} {path}"
        for path, operations in generate.openapi()["paths"].items()
        for method in operations
    ]  # fmt: skip
    assert len(routes) > 15
    assert [route for route in routes if f"### {route}\n" not in text] == []


def test_every_metric_is_documented() -> None:
    text = (REFERENCE / "metrics.md").read_text()
    names = re.findall(
        r'(?:Counter|Gauge|Histogram|Summary)\(\s*"(vibed_\w+)"',
        "".join(path.read_text() for path in (ROOT / "src").rglob("*.py")),
    )
    assert len(names) > 5
    assert [name for name in names if f"`{name}`" not in text and f"`{name}_total`" not in text] == []


def test_every_tool_of_mcp_is_documented() -> None:
    text = (REFERENCE / "mcp.md").read_text()
    tools = [tool.name for tool in toolset({})]
    assert len(set(tools)) >= 12
    assert [tool for tool in tools if f"### {tool}\n" not in text] == []


def test_every_template_is_documented() -> None:
    text = "".join(page.read_text() for page in DOCS.rglob("*.md"))
    assert [name for name in load_templates() if f"`{name}`" not in text] == []


def test_every_example_is_documented() -> None:
    text = (ROOT / "examples" / "README.md").read_text() + "".join(page.read_text() for page in DOCS.rglob("*.md"))
    examples = sorted(path.name for path in (ROOT / "examples").iterdir() if path.is_dir())
    assert len(examples) >= 12
    assert [name for name in examples if f"]({name})" not in text] == []


def test_every_code_and_reason_is_documented(generate: ModuleType) -> None:
    text = (REFERENCE / "reasons-and-errors.md").read_text()
    found = {*generate.error_classes(), *_codes_in_python(), *_reasons_in_python(), *_codes_in_go()}
    assert len(found) > 60
    assert sorted(code for code in found if f"`{code}`" not in text) == []


def test_no_reason_is_documented_that_nothing_gives(generate: ModuleType) -> None:
    code = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    go = "".join(path.read_text() for path in (ROOT / "agent").rglob("*.go"))
    names = [*generate.REASONS, *generate.SANDBOX_CODES, *generate.SUPERVISOR_CODES]
    phases = {"Claiming", "Starting"}  # as reasons they are written as the phase's value
    assert [n for n in names if n not in phases and f'"{n}"' not in code and f'"{n}"' not in go] == []


def test_no_link_is_dead() -> None:
    dead = []
    for page in PROSE:
        for target in _links(page.read_text()):
            if re.match(r"[a-z]+:", target):
                continue
            file, _, part = target.partition("#")
            place = (page.parent / file).resolve() if file else page
            if not place.exists():
                dead.append(f"{page.relative_to(ROOT)}: {target}")
            elif part and place.suffix == ".md" and part not in _anchors(place.read_text()):
                dead.append(f"{page.relative_to(ROOT)}: {target} (no such heading)")
    assert dead == []


def test_every_page_can_be_reached_from_the_index() -> None:
    waiting, seen = [ROOT / "README.md", DOCS / "index.md"], set[Path]()
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        for target in _links(page.read_text()):
            place = (page.parent / target.partition("#")[0]).resolve()
            if not re.match(r"[a-z]+:", target) and place.is_file():
                waiting.append(place)
    assert sorted(str(page.relative_to(ROOT)) for page in PROSE if page not in seen) == []


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        (page.name, target) for page in PROSE for target in re.findall(r"`make ([a-z-]+)`", page.read_text())
    }  # fmt: skip
    assert sorted(item for item in named if item[1] not in targets) == []


def test_tests_that_the_ledger_names_exist() -> None:
    missing = []
    for file, name in re.findall(r"`((?:tests|agent)/[\w/.]+)(?:::(\w+))?`", (DOCS / "status.md").read_text()):
        path = ROOT / file
        if not path.exists() or (name and not re.search(rf"(def|func) {name}\(", path.read_text())):
            missing.append(f"{file}::{name}")
    assert missing == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def test_the_changelog_has_the_version_that_is_being_built() -> None:
    version = re.search(r'__version__ = "([^"]+)"', (ROOT / "src/vibed/__init__.py").read_text())
    assert version is not None
    assert f"## [{version[1].partition('.dev')[0]}]" in (ROOT / "CHANGELOG.md").read_text()


def test_no_address_of_a_registry_or_mirror_is_committed() -> None:
    found = []
    for path in _committed():
        try:
            text = path.read_text()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
        found += [f"{path.relative_to(ROOT)}: {address}" for address in ADDRESSES if address in text]
    assert found == []


def test_the_licence_is_the_one_that_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "LICENSE").read_text()
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def _committed() -> Iterator[Path]:
    """What git knows, or every file where this is no checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        yield from (ROOT / name for name in listed.stdout.split("\0") if name)
        return
    for folder in ("src", "agent", "docs", "deploy", "locks", "templates", "examples", "bench", "tests"):
        yield from (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _codes_in_python() -> Iterator[str]:
    """Codes that are given where an error is made: `code="…"`."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                for keyword in node.keywords:
                    if keyword.arg == "code":
                        yield from _words(keyword.value)


def _reasons_in_python() -> Iterator[str]:
    """Third argument of a `Plan`, second of an `Outcome`, `Refusal`, `NotYet` and `NewEvent`; codes of pages."""
    places = {"Plan": 2, "Outcome": 1, "Refusal": 0, "NotYet": 0, "NewEvent": 1, "Page": 1, "VersionOutcome": 2}
    for folder in ("controller", "router", "api"):
        for path in (ROOT / "src/vibed" / folder).rglob("*.py"):
            text = path.read_text()
            yield from re.findall(r'"code":"([A-Z]\w+)"', text)
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in places:
                    place = places[node.func.id]
                    if len(node.args) > place:
                        yield from _words(node.args[place])


def _codes_in_go() -> Iterator[str]:
    for path in (ROOT / "agent").rglob("*.go"):
        if not path.name.endswith("_test.go"):
            yield from re.findall(r'"([A-Z][a-z]+(?:[A-Z][a-z]+)+)"', path.read_text())


def _words(node: ast.AST) -> Iterator[str]:
    """CamelCase texts in an expression; of a choice only its results count."""
    if isinstance(node, ast.IfExp):
        yield from _words(node.body)
        yield from _words(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _words(value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[A-Z]\w+", node.value):
        yield node.value


def _links(text: str) -> list[str]:
    """Targets of the links of a page, code aside."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`(?!\]\()", "", text))


def _anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
