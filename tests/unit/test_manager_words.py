"""What npm, pnpm and yarn say of a file that a lock names and the registry does not have any more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vibed.runtimes.layers import npm_words
from vibed.runtimes.layers.managers.words import of_pnpm, of_yarn
from vibed.runtimes.layers.trouble import Trouble

YARN = """[2/4] Fetching packages...
error Error: http://127.0.0.1:3128/npm/prismock/-/prismock-1.9.2.tgz: Request failed "404 Not Found"
    at ResponseError.ExtendableBuiltin (/layers/tools/yarn-1/lib/cli.js:696:66)
"""
PNPM = " ERR_PNPM_FETCH_404  GET http://127.0.0.1:3128/npm/@acme%2fkit/-/kit-2.0.0-rc.1.tgz: Not Found - 404\n"
NPM = """npm error code E404
npm error 404 Not Found - GET http://127.0.0.1:3128/npm/hono/-/hono-2.0.9.tgz
npm error 404
npm error 404  The requested resource 'hono@http://127.0.0.1:3128/npm/hono/-/hono-2.0.9.tgz' could not be found
"""


@pytest.mark.parametrize(
    ("explain", "said", "package"),
    [(of_yarn, YARN, "prismock"), (of_pnpm, PNPM, "@acme/kit"), (npm_words.explain, NPM, "hono")],
    ids=["yarn", "pnpm", "npm"],
)
def test_a_version_that_is_gone_is_told_with_the_lock_that_names_it(
    explain: Callable[[str, str], Trouble], said: str, package: str
) -> None:
    found = explain(said, "24.19.0")
    assert f"does not have {package} " in found.message
    assert "127.0.0.1" not in found.message
    assert found.packages == {package}
