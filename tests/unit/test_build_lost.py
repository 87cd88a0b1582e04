# ruff: noqa: E501 (tables of inputs)
"""What a build did not find, in words that say what to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from vibed.runtimes.builds.lost import Project, hint, project, variables
from vibed.runtimes.builds.words import cause
from vibed.sandboxes.diagnosis.variables import demanded
from vibed.sources.limits import ArchiveLimits
from vibed.sources.pack import pack_files

ANGULAR = '✘ [ERROR] Could not resolve "environments"\n\n    src/app/firebase/firebase.module.ts:5:28:\n'
OF = Project(
    frozenset({"react", "three", "vite"}),
    frozenset({"src", "src/pages"}),
    ("# secrets", "node_modules", "*.local", "dist/", "environments/", "/src/firebaseConfig.ts", "!keep", "*.env"),
)

ROWS = [
    ('RollupError: Could not resolve entry module "index.html".', "send index.html, which is not in the archive, or mend"),
    (ANGULAR, "the archive has no environments: environments/ in .gitignore leaves it out. Send it (`!environments/`"),
    ("Error: Cannot find module './firebaseConfig'\n", "the archive has no ./firebaseConfig: /src/firebaseConfig.ts in .gitignore"),
    ("[vite]: Rollup failed to resolve import \"@/environments/dev\" from \"x\".", "environments/ in .gitignore leaves it out"),
    ('Could not resolve "./missing" from "src/main.ts"', "send ./missing, which is not in the archive"),
    ('Could not resolve "pages/Home" from "src/main.ts"', "send pages/Home, which is not in the archive"),
    ('Could not resolve "keep"', "add keep to package.json"),
    ('Could not resolve "framer-motion/client"', "add framer-motion to package.json"),
    ('Could not resolve "@scope/kit/button"', "add @scope/kit to package.json"),
    ('Could not resolve "three/gone.js"', "package.json names three, which has no three/gone.js"),
    ("Error: Cannot find module '/app/node_modules/react-cache-buster/dist/generate-meta-tag.js'\n", "add react-cache-buster, which react-cache-buster/dist/generate-meta-tag.js is of, to devDependencies"),
    ("Error: Cannot find module '/app/node_modules/vite/bin/old.js'\n", "vite has no bin/old.js in the version that is installed"),
    ("> cross-env A=1 vite build\nsh: 1: cross-env: not found\n", "add cross-env, which brings the program cross-env, to devDependencies"),
    ("sh: line 1: tsc: command not found\n", "add typescript, which brings the program tsc, to devDependencies"),
    ("sh: 1: ng: not found\n", "add @angular/cli, which brings the program ng,"),
    ("sh: 1: frobnicate: not found\n", "add the package that brings frobnicate to devDependencies in package.json, or do without it"),
    ("Error: it is Tuesday\n", ""),
]  # fmt: skip


@pytest.mark.parametrize(("said", "words"), ROWS, ids=[row[0][:40] for row in ROWS])
def test_what_to_change_is_told(said: str, words: str) -> None:
    found = hint(said, OF)
    assert found.startswith(words) or (words and words in found), found


@pytest.mark.parametrize(
    ("said", "names"),
    [
        (
            "Invalid environment variables: [\n  {\n    expected: 'string',\n    received: 'undefined',\n"
            "    path: [ 'AUTH_SECRET' ],\n    message: 'Required'\n  },\n  {\n    path: [ 'AUTH_URL' ],\n"
            "    message: 'Required'\n  }\n]\nError: Invalid environment variables\n",
            ["AUTH_SECRET", "AUTH_URL"],
        ),
        (
            "Invalid environment variables: {\n  DATABASE_URL: [ 'Required' ],\n  PORT: [ 'Expected number' ]\n}",
            ["DATABASE_URL"],
        ),
        ("Error: Missing required environment variable: SANITY_PROJECT_ID\n    at x", ["SANITY_PROJECT_ID"]),
        ("src/a.ts(1,2): error TS2307: Cannot find module 'x'", []),
        ("TypeError: Cannot read properties of undefined (reading 'URL')", []),
    ],
)
def test_variables_that_a_build_wants_are_known(said: str, names: list[str]) -> None:
    assert demanded(said) == names


def test_variables_that_a_source_reads_are_told_where_its_build_misses_a_value() -> None:
    said = (
        'Error occurred prerendering page "/". Read more: https://nextjs.org/docs/messages/prerender-error\n'
        "Error: supabaseUrl is required.\n    at new cj (.next/server/chunks/ssr/x.js:37:43225)\n"
    )
    assert "supabaseUrl is required" in cause(said)
    assert variables(said, ["NEXT_PUBLIC_URL", "KEY"]).startswith(
        "its source reads NEXT_PUBLIC_URL and KEY, which are not set"
    )
    assert variables(said, []) == ""
    assert variables("src/a.ts(1,2): error TS2322: Type 'string' is not assignable", ["KEY"]) == ""


def test_what_a_source_reads_and_its_files_give_is_known(tmp_path: Path) -> None:
    files = {
        "lib/db.ts": "createClient(process.env.NEXT_PUBLIC_URL!, process.env.KEY!, process.env.SIZE || 1)",
        ".env.production": "KEY=1\n",
        "node_modules/x/index.js": "process.env.OTHER.x",
    }
    (tmp_path / "a.tgz").write_bytes(pack_files(files))
    assert project(tmp_path / "a.tgz", "", ArchiveLimits()).reads == ("NEXT_PUBLIC_URL",)
