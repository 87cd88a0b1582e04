"""What a failed build said, and the package that it wants."""

from __future__ import annotations

import pytest

from vibed.runtimes.builds.words import cause, missing

NEEDED = "terser not found. Since Vite v3, terser has become an optional dependency. You need to install it."
TERSER = f"""transforming...
\x1b[32m✓\x1b[39m 1858 modules transformed.
\x1b[31mx\x1b[39m Build failed in 16.76s
\x1b[31merror during build:
\x1b[31m[vite:terser] {NEEDED}\x1b[31m
    at loadTerserPath (file:///layers/node/node_modules/vite/dist/node/chunks/dep.js:19675:13)
npm notice New version of npm: npm install -g npm@12.3.0
"""
SASS = """error during build:
[vite:css] Preprocessor dependency "sass-embedded" not found. Did you install it? Try `npm install -D sass-embedded`.
file: /app/src/App.scss
"""
TAILWIND = (
    "[vite:css] Failed to load PostCSS config: It looks like you're trying to use `tailwindcss` directly as a PostCSS"
    " plugin. The PostCSS plugin has moved to a separate package, so you'll need to install `@tailwindcss/postcss`"
)
RESOLVE = '[vite]: Rollup failed to resolve import "three" from "/app/src/main.js".'
OTHER = "error during build:\nError: it is Tuesday\nnpm notice run npm install -g npm@12.3.0\n"


@pytest.mark.parametrize(
    ("told", "package"),
    [
        (TERSER, "terser"),
        (SASS, "sass-embedded"),
        (TAILWIND, "@tailwindcss/postcss"),
        (RESOLVE, "three"),
        (OTHER, ""),
    ],
)
def test_the_package_that_a_build_wants_is_named(told: str, package: str) -> None:
    assert missing(told) == package


def test_the_line_that_says_what_is_wrong_is_found_among_all_others() -> None:
    assert cause(TERSER).startswith("[vite:terser] terser not found")
