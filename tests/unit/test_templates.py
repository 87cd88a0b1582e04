"""Templates as data: what the shipped ones promise, and what a wrong folder is told."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest

from vibed.runtimes.shipped import shipped
from vibed.runtimes.templates import TemplateInvalid, load_template, load_templates

# fmt: off
PROMISED_PYTHON = [
    "flask", "fastapi", "uvicorn", "starlette", "django", "gunicorn", "requests", "httpx", "aiohttp", "jinja2",
    "pydantic", "sqlalchemy", "numpy", "pandas", "openpyxl", "matplotlib", "pillow", "streamlit",
]
PROMISED_NODE = [
    "express", "fastify", "koa", "hono", "cors", "body-parser", "ws", "socket.io", "ejs", "axios", "dotenv",
]
# fmt: on


def write(folder: Path, text: str, **locks: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "template.toml").write_text(text)
    for name, content in locks.items():
        (folder / f"{name}.txt").write_text(content)
    return folder


def minimal(name: str, more: str = "") -> str:
    return f'name = "{name}"\nlane = "general"\nkind = "binary"\ndescription = "A test"\n{more}'


def test_the_templates_that_vibed_ships() -> None:
    assert set(load_templates()) == {
        "static-nginx",
        "workerd",
        "python-313",
        "python-311",
        "python-312",
        "python-314",
        "node-24",
        "node-22",
        "go-123",
        "base-debian",
        "base-al2023",
    }


@pytest.mark.parametrize("package", PROMISED_PYTHON)
def test_python_has_what_was_promised(package: str) -> None:
    assert package in load_templates()["python-313"].packages


@pytest.mark.parametrize("package", PROMISED_NODE)
def test_node_has_what_was_promised(package: str) -> None:
    assert package in load_templates()["node-24"].packages


def test_the_first_python_image_has_the_web_packages_and_not_the_big_ones() -> None:
    web, data = load_templates()["python-313"].stages
    assert {"flask", "fastapi", "django", "gunicorn", "uvicorn", "setuptools"} <= set(web.packages)
    assert {"numpy", "pandas", "streamlit", "matplotlib"} <= set(data.packages)
    assert not set(web.packages) & set(data.packages)


def test_an_operator_may_leave_out_the_big_packages() -> None:
    python = load_templates(big_packages=False)["python-313"]
    assert "flask" in python.packages and "pandas" not in python.packages
    assert python.last_stage == 1


def test_setuptools_still_has_pkg_resources() -> None:
    assert int(load_templates()["python-313"].packages["setuptools"].split(".")[0]) < 80


def test_a_template_that_cannot_be_built_says_why() -> None:
    assert "Amazon" in (load_templates()["base-al2023"].unavailable or "")
    assert all(t.unavailable is None for t in load_templates().values() if t.name != "base-al2023")


def test_lanes_and_fixed_drivers() -> None:
    templates = load_templates()
    assert {t.name: t.driver for t in templates.values() if t.lane == "fast"} == {
        "static-nginx": "static",
        "workerd": "workerd",
    }
    assert all(t.driver is None and (t.has_root or t.unavailable) for t in templates.values() if t.lane == "general")


def test_zygotes_are_of_the_templates_own_kind() -> None:
    assert [z.name for z in load_templates()["python-313"].zygotes] == ["base", "flask", "fastapi"]
    assert {(z.name, z.kind) for z in load_templates()["node-24"].zygotes} == {("base", "node"), ("express", "node")}


def test_those_beside_todays_are_prepared_on_need_and_keep_nothing_warm() -> None:
    templates = load_templates()
    beside = {name: t for name, t in templates.items() if t.on_need}
    assert set(beside) == {"python-311", "python-312", "python-314", "node-22"}
    for template in beside.values():
        assert (template.pool.size, template.zygotes) == (0, ())
        assert template.env.items() <= templates[{"python": "python-313", "node": "node-24"}[template.kind]].env.items()


def test_a_template_knows_the_version_of_its_language() -> None:
    templates = load_templates()
    versions = {name: t.version for name, t in templates.items() if t.kind in ("python", "node")}
    assert versions == {
        "python-311": "3.11",
        "python-312": "3.12",
        "python-313": "3.13",
        "python-314": "3.14",
        "node-22": "22",
        "node-24": "24",
    }


def test_an_interpreter_is_named_as_uv_names_it(tmp_path: Path) -> None:
    stage = '[[stages]]\nname = "a"\ninterpreter = "python3.12"\n'
    with pytest.raises(TemplateInvalid, match="interpreter"):
        load_template(write(tmp_path / "own", minimal("own", stage)))


# lock files


def pip_locks() -> list[Path]:
    return sorted(shipped("locks").rglob("*.txt"))


def npm_locks() -> list[Path]:
    return sorted(shipped("locks").rglob("package-lock.json"))


@pytest.mark.parametrize("lock", pip_locks(), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_wheel_is_locked_by_hash_and_without_an_address(lock: Path) -> None:
    requirements = lock.read_text().replace("\\\n", " ").splitlines()
    assert requirements
    assert all("==" in line and "--hash=sha256:" in line for line in requirements)
    assert "://" not in lock.read_text()


@pytest.mark.parametrize("lock", npm_locks(), ids=lambda p: p.parent.parent.name + "/" + p.parent.name)
def test_every_npm_package_is_locked_by_integrity_and_without_an_address(lock: Path) -> None:
    packages = {at: facts for at, facts in json.loads(lock.read_text())["packages"].items() if at}
    assert packages
    # what a package brings within it is covered by its own
    own = [facts for facts in packages.values() if not facts.get("inBundle")]
    assert all(facts["integrity"].startswith("sha512-") for facts in own)
    assert not any("resolved" in facts for facts in packages.values())


def test_locks_hold_what_the_definitions_ask_for() -> None:
    """Somebody who adds a package to template.toml and forgets `locks/update.py` learns it here."""
    for definition in shipped("templates").glob("*/template.toml"):
        data = tomllib.loads(definition.read_text())
        template = load_template(definition.parent)
        for stage in data.get("stages", ()):
            wanted = [r.split("[")[0].split("<")[0].split("=")[0] for r in stage.get("python", ())]
            assert set(wanted) <= set(template.packages), template.name
            if "program" in stage:
                name, _, version = stage["program"].partition("==")
                assert template.packages[name] == version


# folders of an operator


def test_a_template_of_the_operator_replaces_the_one_of_that_name(tmp_path: Path) -> None:
    write(tmp_path / "base-debian", minimal("base-debian"))
    write(tmp_path / "ours", minimal("ours"))
    templates = load_templates(extra=tmp_path)
    assert templates["base-debian"].description == "A test"
    assert "ours" in templates and "python-313" in templates


def test_a_lock_beside_the_definition_is_found(tmp_path: Path) -> None:
    stage = '[[stages]]\nname = "web"\nlock = "web.txt"\npython = ["flask"]\n'
    folder = write(tmp_path / "ours", minimal("ours", stage), web="flask==3.1.3 --hash=sha256:00\n")
    assert load_template(folder).packages == {"flask": "3.1.3"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (minimal("other"), "must be the folder's"),
        (minimal("ours", 'pol = "x"\n'), "unknown keys pol"),
        (minimal("ours").replace("general", "slow"), "neither fast nor general"),
        (minimal("ours").replace("binary", "java"), "kind 'java'"),
        (minimal("ours").replace("description", "# description"), "'description' is missing"),
        (minimal("ours", "[env]\nPORT = 1\n"), "strings only"),
        (minimal("ours", "[pool]\nsizes = 1\n"), "sizes"),
        (minimal("ours", '[[stages]]\nname = "a"\nlock = "no.txt"\npython = ["a"]\n'), "'no.txt' is neither in"),
        ("name = ", "Invalid value"),
    ],
)
def test_a_wrong_definition_is_refused_and_told_where(tmp_path: Path, text: str, told: str) -> None:
    folder = write(tmp_path / "ours", text)
    with pytest.raises(TemplateInvalid, match=r"template\.toml") as refused:
        load_template(folder)
    assert told in refused.value.message


def test_a_folder_of_templates_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TemplateInvalid, match="not a directory"):
        load_templates(extra=tmp_path / "nowhere")


# digests


def test_the_digest_covers_the_definition_and_its_locks(tmp_path: Path) -> None:
    stage = '[[stages]]\nname = "web"\nlock = "web.txt"\npython = ["flask"]\n'
    folder = write(tmp_path / "ours", minimal("ours", stage), web="flask==3.1.3 --hash=sha256:00\n")
    before = load_template(folder).definition_digest
    copy = tmp_path / "elsewhere" / "ours"
    shutil.copytree(folder, copy)
    assert load_template(copy).definition_digest == before, "the digest does not depend on where the folder is"
    (copy / "web.txt").write_text("flask==3.1.3 --hash=sha256:01\n")
    assert load_template(copy).definition_digest != before
    write(folder, minimal("ours", stage + "# other\n"))
    assert load_template(folder).definition_digest != before


def test_every_template_has_its_place_in_the_docs() -> None:
    page = Path(__file__).resolve().parents[2] / "docs/reference/templates.md"
    text = page.read_text()
    assert [name for name in load_templates() if f"`{name}`" not in text] == []
