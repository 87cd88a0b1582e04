"""What of an app's settings reaches a builder."""

from __future__ import annotations

import pytest

from vibed.runtimes.layers.managers.credentials import without


@pytest.mark.parametrize(
    "line",
    [
        "//npm.pkg.github.com/:_authToken=ghp_secret",
        "//registry.example/:_authToken = ${NPM_TOKEN}",
        '//a.example:8080/npm/:_password="secret"',
        "_auth=secret",
        "  _authToken=secret",
        "//a.example/:certfile=/home/me/secret.pem",
        'npmAuthToken: "secret"',
        "    npmAuthIdent: secret:secret",
        "'//a.example/:_authToken' \"secret\"",
        "always-auth=true",
    ],
)
def test_who_asks_is_taken_out_of_settings(line: str) -> None:
    kept = "@acme:registry=https://npm.pkg.github.com\nsave-exact=true\n"
    assert without("apps/api/.npmrc", f"{kept}{line}\nengine-strict=true") == f"{kept}engine-strict=true"
    assert without("key.txt", line) == line


def test_other_settings_stay_as_they_are() -> None:
    text = "# _authToken is set in CI\nregistry=https://a.example/_authToken/\nkeep-going=1\nnpmScopes:\n  acme:\n"
    assert without(".yarnrc.yml", text) == text
