"""The classifier as the API uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vibed.api.classifying import decider
from vibed.api.metadata import Override
from vibed.sandboxes.templates import load_templates
from vibed.sources.pack import pack_files
from vibed.sources.reader import read_table


@pytest.mark.parametrize(("said", "warm"), [(None, True), (True, True), (False, False)])
def test_an_app_can_opt_out_of_warm_processes(tmp_path: Path, said: bool | None, warm: bool) -> None:
    source = tmp_path / "source.tar.gz"
    source.write_bytes(pack_files({"app.py": "import flask\nif __name__ == '__main__':\n    flask.Flask('a').run()\n"}))
    runtime = decider(load_templates())(read_table(source), Override(warm=said))
    assert runtime.kind == "python"
    assert runtime.start.warm is warm
