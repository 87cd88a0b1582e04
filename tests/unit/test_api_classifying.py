"""The classifier as the API uses it."""

from __future__ import annotations

from pathlib import Path

import pytest
from api_harness import archive, parts, refused, running

from vibed.api.classifying import decider
from vibed.api.metadata import Override
from vibed.classify.errors import BadConfiguration, DependenciesMissing
from vibed.runtimes.templates import load_templates
from vibed.sources.pack import pack_files
from vibed.sources.reader import read_table


@pytest.mark.parametrize(("said", "warm"), [(None, True), (True, True), (False, False)])
def test_an_app_can_opt_out_of_warm_processes(tmp_path: Path, said: bool | None, warm: bool) -> None:
    source = tmp_path / "source.tar.gz"
    source.write_bytes(pack_files({"app.py": "import flask\nif __name__ == '__main__':\n    flask.Flask('a').run()\n"}))
    runtime = decider(load_templates())(read_table(source), Override(warm=said))
    assert runtime.kind == "python"
    assert runtime.start.warm is warm


def test_what_it_uses_of_the_templates_packages_is_kept_with_the_version(tmp_path: Path) -> None:
    source = tmp_path / "source.tar.gz"
    app = "import flask\nfrom PIL import Image\napp = flask.Flask('a')\n"
    source.write_bytes(pack_files({"app.py": app, "requirements.txt": "Flask\npandas>=2\n"}))
    decide = decider(load_templates())
    runtime = decide(read_table(source), Override())
    assert set(runtime.packages) == {"flask", "pandas", "pillow"}, "declared or imported, by the template's names"


def test_big_packages_that_the_operator_leaves_out_are_refused_at_once(tmp_path: Path) -> None:
    source = tmp_path / "source.tar.gz"
    source.write_bytes(pack_files({"app.py": "import streamlit as st\nst.write('hi')\n"}))
    decide = decider(load_templates(big_packages=False))
    with pytest.raises(DependenciesMissing, match="streamlit"):
        decide(read_table(source), Override())


async def test_a_start_script_with_half_a_character_is_refused_and_spoils_no_list(tmp_path: Path) -> None:
    package = r'{"scripts": {"start": "node server.js \ud800"}}'
    source = archive({"package.json": package, "server.js": "require('http').createServer().listen(3000)"})
    async with running(tmp_path / "home", tmp_path / "run") as api:
        answer = await api.client.post("/v1/deploy", files=parts({"name": "todo"}, source))
        assert r"\ud800" in refused(answer, 422, "BadConfiguration")["message"]
        assert (await api.client.get("/v1/apps")).json() == {"items": [], "total": 0}


@pytest.mark.parametrize(
    "variables",
    ["A = 2026-11-28", "A = [12:00:00]", "A = nan", f"A = {'[' * 900}{']' * 900}"],
    ids=lambda text: text[:16],
)
def test_a_variable_that_json_has_no_word_for_is_refused(tmp_path: Path, variables: str) -> None:
    source = tmp_path / "source.tar.gz"
    files = {
        "wrangler.toml": f'main = "w.js"\n[vars]\n{variables}\n',
        "w.js": "export default { fetch() { return new Response('hi') } }",
    }
    source.write_bytes(pack_files(files))
    with pytest.raises(BadConfiguration):
        decider(load_templates())(read_table(source), Override())
