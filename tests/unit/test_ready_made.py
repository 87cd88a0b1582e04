"""Pins that have no ready-made file for a template's Python: which other Pythons have one, and what is told of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from vibed.runtimes.layers import ready_made
from vibed.runtimes.layers.pins import asked_by, parse

BUILDER = Path(__file__).parents[2] / "templates/_builder/wheels.py"
RESOLUTION = """\
annotated-types==0.8.0 \\
    --hash=sha256:aa
    # via pydantic
fastapi==0.104.1 \\
    --hash=sha256:ab
    # via -r /app/.vibed-requirements.txt
pydantic==2.5.0 \\
    --hash=sha256:ac
    # via
    #   -r /app/.vibed-requirements.txt
    #   fastapi
pydantic-core==2.14.1 \\
    --hash=sha256:ad
    # via pydantic
"""
WANTED = ("fastapi==0.104.1 --hash=sha256:ab", "Pydantic == 2.5.0")


@pytest.fixture(scope="module")
def wheels() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wheels", BUILDER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(*files: str) -> str:
    """As an index writes it."""
    return "{" + ",".join(f'{{"filename":"{file}","url":"/file/{file}"}}' for file in files) + "}"


@pytest.mark.parametrize(
    ("file", "minors"),
    [
        ("thing-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", {11}),
        ("thing-1.0-1-cp312-cp312-manylinux_2_28_x86_64.whl", {12}),
        ("thing-1.0-cp39-abi3-manylinux_2_17_x86_64.whl", {9, 10, 11, 12, 13, 14}),
        ("thing-1.0-py3-none-any.whl", {8, 9, 10, 11, 12, 13, 14}),
        ("thing-1.0-py2.py3-none-manylinux1_x86_64.whl", {8, 9, 10, 11, 12, 13, 14}),
        ("thing-1.0-cp311-cp311-musllinux_1_1_x86_64.whl", set()),
        ("thing-1.0-cp311-cp311-win_amd64.whl", set()),
        ("thing-1.0-cp311-cp311-macosx_11_0_arm64.whl", set()),
        ("thing-1.0-pp310-pypy310_pp73-manylinux_2_17_x86_64.whl", set()),
        ("other-1.0-cp311-cp311-manylinux_2_17_x86_64.whl", set()),
        ("thing-1.0.tar.gz", set()),
    ],
)
def test_which_pythons_a_file_is_for(
    wheels: ModuleType, monkeypatch: pytest.MonkeyPatch, file: str, minors: set[int]
) -> None:
    monkeypatch.setattr(wheels.os, "uname", lambda: type("uname", (), {"machine": "x86_64"}))
    found = wheels.releases(page(file), "Thing").get("1", set())
    assert found & set(range(8, 15)) == minors


def test_only_what_another_python_has_and_this_one_has_not_is_lacking(
    wheels: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(wheels.os, "uname", lambda: type("uname", (), {"machine": "x86_64"}))
    monkeypatch.setattr(wheels.sys, "version_info", (3, 13))
    files = {
        "py3-thing": page("py3_thing-1.0-py3-none-any.whl"),
        "sources": page("sources-1.0.tar.gz"),
        "old": page(
            *(f"old-1.0.0-cp3{n}-cp3{n}-manylinux1_x86_64.whl" for n in (8, 9, 10, 11)),
            "old-1.2-cp313-cp313-manylinux1_x86_64.whl",
        ),
    }
    for name, text in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "index").write_text(text)

    def fetch(asked: object, timeout: float) -> object:
        name = str(getattr(asked, "full_url", "")).rstrip("/").rpartition("/")[2]
        return (tmp_path / name / "index").open("rb")

    monkeypatch.setattr(
        wheels.urllib.request, "build_opener", lambda *handlers: type("opener", (), {"open": staticmethod(fetch)})
    )
    pins = ["py3-thing==1.0 --hash=sha256:aa", "sources==1.0", "old==1.0"]
    assert wheels.lacking(pins, "http://index/simple/") == {
        "old": {"version": "1.0", "fits": [8, 9, 10, 11], "made": ["1.2"]}
    }


def test_the_line_of_the_apps_own_list_is_found_for_whatever_it_brings() -> None:
    pins = parse(RESOLUTION)
    assert asked_by("pydantic", pins, WANTED) == "Pydantic == 2.5.0"
    assert asked_by("pydantic-core", pins, WANTED) == "Pydantic == 2.5.0"
    assert asked_by("pydantic-core", pins, WANTED[:1]) == "fastapi==0.104.1"
    assert asked_by("annotated-types", pins, ()) == ""


def answer(**packages: tuple[str, list[int], list[str]]) -> dict[str, object]:
    return {
        "wheels": {
            name.replace("_", "-"): {"version": version, "fits": fits, "made": made}
            for name, (version, fits, made) in packages.items()
        }
    }


def test_what_fits_all_of_them_is_known_and_each_line_is_told() -> None:
    lacking = ready_made.read(
        answer(pydantic_core=("2.14.1", [8, 9, 10, 11, 12], ["2.20.0"]), numpy=("1.24.4", [8, 9, 10, 11], ["2.1.0"]))
    )
    trouble = ready_made.trouble(lacking, "3.13", parse(RESOLUTION), (*WANTED, "numpy==1.24.4"))
    assert trouble.message == (
        "numpy 1.24.4 has no wheel for Python 3.13, but for 3.8 to 3.11; pydantic-core 2.14.1 has no wheel for Python"
        " 3.13, but for 3.8 to 3.12"
    )
    assert trouble.fits == {8, 9, 10, 11}
    assert "raise `numpy==1.24.4` to 2.1.0 or later, which has one" in trouble.hint
    assert "raise `Pydantic == 2.5.0`, which asks for pydantic-core" in trouble.hint
    assert trouble.packages == {"numpy", "pydantic-core"}


@pytest.mark.parametrize(
    "said",
    [
        None,
        "numpy",
        {"numpy": "1"},
        {"numpy": {"version": 1, "fits": [], "made": []}},
        {"numpy": {"version": "1", "fits": ["x", -1], "made": []}},
        {"numpy": {"version": "1", "fits": None, "made": None}},
    ],
)
def test_what_makes_no_sense_is_not_believed(said: object) -> None:
    assert ready_made.read({"wheels": said}) == ()


def test_versions_that_are_none_and_prereleases_are_no_cure() -> None:
    (one,) = ready_made.read(answer(thing=("1.0", [11], ["what", "2.0rc1", "0.9", "1.1", "1.2"])))
    assert one.newer == "1.1"
