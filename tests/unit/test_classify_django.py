"""A Django project answers to the name that it has here, whatever hosts its settings allow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from classify_trees import table_of

from vibed.classify.classifier import classify
from vibed.classify.decision import Decision

MANAGE = (
    "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\nfrom django.core import management\n"
)
ELSEWHERE = "DEBUG = False\nALLOWED_HOSTS = ['127.0.0.1', 'shop.herokuapp.com']\n"


def decided(files: dict[str, str]) -> Decision:
    return classify(table_of({"manage.py": MANAGE, "shop/__init__.py": "", **files}))


@pytest.mark.parametrize(
    "files",
    [
        {"shop/settings.py": ELSEWHERE},
        {"shop/settings.py": ELSEWHERE, "Procfile": "web: gunicorn shop.wsgi --log-file -\n", "shop/wsgi.py": MANAGE},
        {"shop/settings.py": "DEBUG = True\nALLOWED_HOSTS = os.environ.get('HOSTS', 'localhost').split(',')\n"},
        {"shop/settings.py": "DEBUG = os.environ.get('DEBUG') == '1'\nALLOWED_HOSTS = []\n"},
    ],
    ids=["by its own server", "by a Procfile", "hosts of a variable", "none, and no debugging"],
)
def test_settings_over_its_own_allow_its_name(files: dict[str, str]) -> None:
    decision = decided(files)
    assert decision.env["DJANGO_SETTINGS_MODULE"] == "vibed_settings"
    assert any("answers to its own name all the same" in note for note in decision.notes)


@pytest.mark.parametrize(
    "files",
    [
        {"shop/settings.py": "DEBUG = True\nALLOWED_HOSTS = []\n"},
        {"shop/settings.py": "DEBUG = False\nALLOWED_HOSTS = ['*']\n"},
        {"shop/settings.py": "DEBUG = False\nALLOWED_HOSTS = ['.localhost']\n"},
        {"shop/settings.py": "DEBUG = True\n"},
    ],
    ids=["while debugging", "all", "all below", "nothing said"],
)
def test_where_its_settings_do_they_are_its_own(files: dict[str, str]) -> None:
    assert "DJANGO_SETTINGS_MODULE" not in decided(files).env


@pytest.mark.parametrize(
    ("settings", "over"),
    [
        ("DEBUG = False\nALLOWED_HOSTS = ['*']\nif not DEBUG:\n    SECURE_SSL_REDIRECT = True\n", True),
        ("ALLOWED_HOSTS = ['*']\nSECURE_SSL_REDIRECT = env.bool('SSL', default=True)\n", True),
        ("ALLOWED_HOSTS = ['*']\nSECURE_SSL_REDIRECT = False\n# SECURE_SSL_REDIRECT = True\n", False),
    ],
)
def test_one_that_leads_everybody_to_https_is_served_as_it_is_asked(settings: str, over: bool) -> None:
    found = decided({"shop/settings.py": settings})
    assert ("SECURE_SSL_REDIRECT = False" in str(found.build[:1])) is over
    assert any("SECURE_SSL_REDIRECT" in note for note in found.notes) is over
    assert "ALLOWED_HOSTS = " not in str(found.build[:1])


def test_the_settings_are_those_that_the_command_serves() -> None:
    live = MANAGE.replace("shop.settings", "shop.settings_live")
    files = {
        "shop/settings.py": "DEBUG = True\nALLOWED_HOSTS = []\n",
        "shop/settings_live.py": ELSEWHERE,
        "shop/wsgi.py": live,
    }
    assert "shop.settings_live" in decided({**files, "Procfile": "web: gunicorn shop.wsgi\n"}).build[0][2]
    named = decided({**files, "Procfile": "web: gunicorn --env DJANGO_SETTINGS_MODULE=shop.settings_live shop.wsgi\n"})
    assert "DJANGO_SETTINGS_MODULE" not in named.env, "the command says it itself"
    assert any("answers 400 to hosts that ALLOWED_HOSTS lacks" in note for note in named.notes)


def test_what_is_written_has_every_setting_of_the_project(tmp_path: Path) -> None:
    decision = decided({"shop/settings.py": ELSEWHERE})
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").touch()
    (tmp_path / "shop/settings.py").write_text(ELSEWHERE + "SECRET = 'x'\nhelper = 1\n")
    subprocess.run([sys.executable, *decision.build[0][1:]], cwd=tmp_path, check=True)
    shown = "import json, vibed_settings as s; print(json.dumps({n: v for n, v in vars(s).items() if n.isupper()}))"
    done = subprocess.run(
        [sys.executable, "-c", shown],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}/.vibed"},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == {"DEBUG": False, "ALLOWED_HOSTS": ["*"], "SECRET": "x"}
