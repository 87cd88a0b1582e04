"""What a build made: a source that is run in the place of the one that was sent, and how."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vibed.apps.app import Build, Runtime
from vibed.classify.tree import table
from vibed.runtimes.layers.keys import Base
from vibed.runtimes.layers.layer import Layer

LAYOUT = "2"
"""Raised when the same build is kept in another way than before."""


@dataclass(frozen=True, slots=True)
class Built:
    """See the module's docstring."""

    key: str
    archive: Path
    """A tar.gz that `vibed.sources` has read."""
    site: bool
    index: str = "index.html"
    spa: bool = False
    base: str = ""
    """These three as in `vibed.classify.decision.Decision`."""
    notes: tuple[str, ...] = ()
    entrypoint: str = ""
    """Of a worker."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Of a worker: what the build says of it."""
    packages: Layer | None = None
    """Those that it runs with, where the build wrote among what was installed for it."""

    def runtime(self, runtime: Runtime) -> Runtime:
        """How it is run."""
        if self.entrypoint:
            options = {**runtime.options, **self.options}
            if assets := {**table(runtime.options.get("assets")), **table(self.options.get("assets"))}:
                options["assets"] = assets
            return replace(
                runtime, strip="", build=None, bundle=False, entrypoint=self.entrypoint, options=options
            )  # fmt: skip
        if not self.site:
            other = self.runtime(runtime.otherwise) if runtime.otherwise is not None else None
            return replace(runtime, strip="", build=None, otherwise=other)
        options = {**runtime.options, **({"base": self.base} if self.base else {})}
        return replace(
            runtime, strip="", root="", index=self.index, spa=self.spa or runtime.spa, options=options, build=None
        )


def build_key(build: Build, base: Base, env: Mapping[str, str], *, source: str, strip: str, layer: str) -> str:
    """Of what decides what a build makes: `source`, the digest, `layer`, the key of what was installed (empty: nothing)
    and `env`, what the owner says at the build.
    """
    facts = [
        LAYOUT,
        base.digest,
        source,
        strip,
        layer,
        build.tool,
        build.script,
        f"{build.site} {build.copied}",
        build.kind,
        build.package,
    ]
    facts += [f"output {name}" for name in build.outputs]
    facts += [f"package {spec}" for spec in build.packages]
    facts += [f"own {name}={value}" for name, value in sorted(build.env.items())]
    facts += [f"env {name}={value}" for name, value in sorted(env.items())]
    digest = hashlib.sha256()
    for fact in facts:
        raw = fact.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()
