"""A worker is made of a source: what the builder is asked for, what came of it, and how what went wrong is told.

The program that does it is `templates/_builder/worker.cjs`: the app's own build script, where it has one, then esbuild
with what was installed, unless the script says itself what it made (Vite's plugin for Cloudflare).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vibed.apps.app import Build
from vibed.classify.errors import ClassifyError
from vibed.classify.node_app import NodeApp
from vibed.classify.tree import Tree
from vibed.classify.worker_app import WorkerApp
from vibed.runtimes.builds.built import Built
from vibed.runtimes.builds.words import cause
from vibed.runtimes.layers.steps import StepFailed
from vibed.sandboxes.driver import RunFailed
from vibed.sources.errors import ArchiveError

ENTRY = "worker/index.js"
ASSETS = "assets"
SETTINGS = "wrangler.json"
"""Where these are in what the builder sends."""
_ERROR = re.compile(r"\[ERROR\] (.+)\n(?:\s*\n\s+(\S+?):(\d+):(\d+):)?")
_UNRESOLVED = re.compile(r'Could not resolve "([^"]+)"')
_NOT_MADE = "ended well, and made no "
_MOST = 500


def request(build: Build, env: Mapping[str, str]) -> Mapping[str, Any]:
    """What the builder is told. `env`: what the owner says to the script."""
    return {
        "step": "worker",
        "entry": build.package,
        "script": build.script,
        "assets": next(iter(build.outputs), None),
        "env": {**build.env, **env},
        "copied": build.copied,
    }


def read(made: Built, tree: Tree) -> Built:
    """How what came is run. Raises ArchiveError."""
    options: dict[str, object] = {"bundled": True}
    if not tree.has(SETTINGS):
        if ASSETS in tree.folders:
            options["assets"] = {"directory": ASSETS}
        return replace(made, entrypoint=ENTRY, options=options)
    try:
        decision = WorkerApp(tree, NodeApp(tree)).configured()
    except ClassifyError as error:
        raise ArchiveError(error.message, hint=error.hint) from error
    if decision is None:
        raise ArchiveError("it is no worker")
    return replace(
        made, entrypoint=decision.entrypoint, options={**decision.options, **options}, notes=decision.notes
    )  # fmt: skip


def failure(build: Build, error: StepFailed) -> RunFailed:
    """What the app's owner is told: what is wrong, whether a retry helps, what to change."""
    message, hint = explain(error.said)
    retryable = False
    if error.exit is not None and error.exit.oom:
        message = "it used more memory than a build may, and was ended"
        hint = "build it where there is more, and deploy the worker that this makes"
    elif error.unreachable:
        message, retryable = message or error.unreachable[-1], True
        hint = "retrying may help: a package registry could not be reached, or did not answer"
    else:
        hint = error.also(hint, "an app is built")
    return RunFailed(
        f"the build failed ({build.doing}): {message or error}",
        exit=error.exit,
        code="BuildFailed",
        hint=hint or None,
        retryable=retryable,
    )


def explain(said: str) -> tuple[str, str]:
    """What esbuild's words, or those of a build script, come to, and what to change."""
    found = _ERROR.findall(f"{said}\n")
    lost = list(dict.fromkeys(_UNRESOLVED.findall(said)))
    own = [name for name in lost if name.startswith((".", "/", "@/", "~/", "#"))]
    packages = [name for name in lost if name not in own]
    told = "; ".join(f"{file}:{line}:{column}: {text}" if file else text for text, file, line, column in found[:3])
    if len(found) > 3:
        told += f"; and {len(found) - 3} more"
    hints = [f"add {', '.join(packages[:5])} to the dependencies of package.json"] if packages else []
    hints += [f"{', '.join(own[:5])} is not in the archive"] if own else []
    if any(_NOT_MADE in text for text, *_ in found):
        hints.append("name in main of wrangler's file what the build makes")
    return told[:_MOST] or cause(said), "; ".join(hints)
