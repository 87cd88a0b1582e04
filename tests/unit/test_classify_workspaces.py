"""Projects of several packages: which one is the app, what is built before it, and what is installed."""

from __future__ import annotations

import json

import pytest
from classify_trees import TEMPLATES, Asked, table_of

from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.classify.errors import AmbiguousProject, BuildRequired

Files = dict[str, str | bytes]
SERVER = "const express = require('express')\nconst s = require('@acme/shared')\nexpress().listen(process.env.PORT)\n"


def pkg(name: str, **fields: object) -> str:
    return json.dumps({"name": name, **fields})


def root(**fields: object) -> Files:
    return {"package.json": pkg("acme", private=True, workspaces=["apps/*", "packages/*"], **fields)}


SHARED: Files = {
    "packages/shared/package.json": pkg("@acme/shared", main="index.js", dependencies={"nanoid": "^3"}),
    "packages/shared/index.js": "exports.x = require('nanoid')",
}
UNBUILT: Files = {
    "packages/shared/package.json": pkg("@acme/shared", main="dist/index.js", scripts={"build": "tsc"}),
    "packages/shared/src/index.ts": "export const x = 1",
}
API: Files = {
    "apps/api/package.json": pkg(
        "@acme/api", dependencies={"express": "^4", "@acme/shared": "*"}, scripts={"start": "node index.js"}
    ),
    "apps/api/index.js": SERVER,
}
WEB: Files = {
    "apps/web/package.json": pkg(
        "@acme/web", dependencies={"@acme/shared": "*"}, devDependencies={"vite": "^5"}, scripts={"build": "vite build"}
    ),
    "apps/web/index.html": '<script type="module" src="/src/main.jsx"></script>',
    "apps/web/src/main.jsx": "import s from '@acme/shared'",
}
PNPM: Files = {
    "package.json": pkg("acme"),
    "pnpm-workspace.yaml": "packages:\n- 'apps/*'\n- \"packages/**\" # all\n- '!**/test/**'\n",
}


def decided(files: Files, entrypoint: str = "", *, builds: bool = True) -> Decision:
    asked = Asked(entrypoint=entrypoint) if entrypoint else None
    return classify(table_of(files), asked, TEMPLATES, installs=("node", "build") if builds else ("node",))


@pytest.mark.parametrize(
    "files",
    [
        root(scripts={"start": "npm start -w @acme/api"}),
        root(scripts={"start": "npm run start --workspace=apps/api"}),
        root(scripts={"start": "cd apps/api && npm start"}),
        root(scripts={"start": "turbo start", "build": "turbo build"}, devDependencies={"turbo": "^2"}),
        root(),
        {"package.json": pkg("acme", workspaces={"packages": ["./apps/api/", "packages/shared"]})},
        {**PNPM, "package.json": pkg("acme", scripts={"start": "pnpm --filter @acme/api start"})},
        PNPM,
    ],
)  # fmt: skip
def test_a_server_among_packages_runs_in_its_folder_with_all_that_the_project_asks_for(files: Files) -> None:
    found = decided({**files, **SHARED, **API})
    assert (found.kind, found.shell, found.made) == ("node", "cd apps/api && exec node index.js", None)
    assert found.install is not None
    assert (found.install.private, found.install.by_files, found.install.wanted) == (True, True, ())
    assert {"package.json", "apps/api/package.json", "packages/shared/package.json"} <= set(found.install.files)
    assert found.install.manager == ("pnpm" if "pnpm-workspace.yaml" in files else "npm")
    assert "nanoid" in found.dependencies
    assert "@acme/shared" not in found.dependencies


def test_what_needs_none_of_the_others_and_fits_the_template_installs_nothing() -> None:
    alone: Files = {
        "apps/api/package.json": pkg("api", dependencies={"express": "^5"}),
        "apps/api/index.js": "require('express')().listen(1)",
    }
    assert decided({**root(scripts={"start": "node apps/api/index.js"}), **SHARED, **alone}).install is None


@pytest.mark.parametrize("script", ["postinstall", "prepare"])
def test_a_script_of_any_package_that_runs_at_the_installation_makes_it_that_sources_alone(script: str) -> None:
    shared: Files = {
        **SHARED,
        "packages/shared/package.json": pkg("@acme/shared", main="index.js", scripts={script: "node x.js"}),
    }
    found = decided({**root(), **shared, **API}).install
    assert found is not None
    assert (found.private, found.by_files) == (True, False)


@pytest.mark.parametrize(
    "hooks", ["husky", "husky install || true", "is-ci || husky install", "lefthook install", "npx simple-git-hooks"]
)
def test_git_hooks_are_no_scripts_of_an_installation(hooks: str) -> None:
    found = decided({**root(scripts={"prepare": hooks}), **SHARED, **API}).install
    assert found is not None
    assert found.by_files
    plain = {
        "package.json": pkg("x", dependencies={"express": "^3"}, scripts={"prepare": hooks, "start": "node s.js"}),
        "s.js": "require('express')().listen(1)",
    }
    installed = decided({**plain}).install
    assert installed is not None
    assert not installed.private


def test_pages_among_packages_are_built_in_their_folder() -> None:
    found = decided({**root(scripts={"build": "turbo run build"}), **SHARED, **WEB})
    assert found.kind == "static"
    assert found.made is not None
    assert (found.made.script, found.made.outputs[0]) == ("cd apps/web && npm run build", "apps/web/dist")
    assert found.install is not None
    assert found.install.development


def test_pages_that_are_built_into_another_packages_folder_are_found_there() -> None:
    configuration = "export default { build: { outDir: '../api/public', emptyOutDir: true } }"
    found = decided({**root(), **WEB, "apps/web/vite.config.ts": configuration})
    assert found.made is not None and found.made.outputs[:2] == ("apps/api/public", "apps/web/dist")


def test_packages_that_are_needed_and_not_built_are_built_first() -> None:
    web = decided({**root(), **UNBUILT, **WEB})
    assert web.made is not None
    assert web.made.script == "(cd packages/shared && npm run build) && cd apps/web && npm run build"
    api = decided({**root(scripts={"start": "npm start -w @acme/api"}), **UNBUILT, **API})
    assert api.made is not None
    assert (api.made.script, api.made.site) == ("(cd packages/shared && npm run build)", False)
    assert api.shell == "cd apps/api && exec node index.js"
    with pytest.raises(BuildRequired, match="@acme/shared"):
        decided({**root(scripts={"start": "npm start -w @acme/api"}), **UNBUILT, **API}, builds=False)


def test_a_server_that_serves_another_packages_pages_has_them_built() -> None:
    serves = SERVER + "app.use(express.static(path.join(__dirname, '../web/dist')))"
    found = decided({**root(), **SHARED, **API, **WEB, "apps/api/index.js": serves})
    assert found.kind == "node"
    assert found.made is not None
    assert found.made.script == "(cd apps/web && npm run build)"
    committed = decided(
        {**root(), **SHARED, **API, **WEB, "apps/api/index.js": serves, "apps/web/dist/index.html": "x"}
    )
    assert committed.made is None


def test_of_several_apps_the_one_that_the_user_names_is_taken() -> None:
    both = {**root(scripts={"dev": "turbo dev"}), **SHARED, **API, **WEB}
    with pytest.raises(AmbiguousProject) as refused:
        decided(both)
    assert "entrypoint, for example @acme/api" in (refused.value.hint or "")
    assert decided(both, "@acme/web").kind == "static"
    assert decided(both, "./apps/api").shell == "cd apps/api && exec node index.js"


def test_a_framework_finds_its_program_wherever_it_was_hoisted_to() -> None:
    next_: Files = {
        "apps/web/package.json": pkg(
            "web", dependencies={"next": "15", "@acme/shared": "*"}, scripts={"build": "next build"}
        ),
        "apps/web/app/page.js": "x",
    }
    found = decided({**root(), **SHARED, **next_})
    assert "../../node_modules/next/dist/bin/next" in (found.shell or "")
    assert found.made is not None
    assert found.made.copied


def test_a_folder_beside_the_apps_own_is_installed_with_it() -> None:
    api: Files = {
        "server/package.json": pkg("api", dependencies={"express": "^4", "@acme/shared": "file:../lib"}),
        "server/index.js": SERVER,
        "lib/package.json": pkg("@acme/shared"),
    }
    found = decided({**api, "package.json": pkg("x", scripts={"start": "node server/index.js"})}).install
    assert found is not None
    assert (found.folder, found.files, found.by_files) == ("server", ("server/package.json", "lib/package.json"), True)


@pytest.mark.parametrize("pattern", ["*" * 400, "packages/" + "*a" * 200, "../../*", "", "/", "[" * 50, "{a,b}/*"])
def test_odd_patterns_cost_nothing(pattern: str) -> None:
    files = {f"packages/{'a' * 60}{at}/package.json": pkg(f"p{at}") for at in range(300)}
    decided(
        {
            "package.json": pkg("x", workspaces=[pattern] * 80, scripts={"start": "node s.js"}),
            "s.js": "require('http').createServer().listen(1)",
            **files,
        }
    )
