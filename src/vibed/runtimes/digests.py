"""What a template's image is named by: digests of all that decides what is in it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping

from vibed.runtimes.assembly import zygote_programs
from vibed.runtimes.templates import Template, builder_version, digest_of, stage_digest
from vibed.runtimes.tools import agent_digest


def content_digest(template: Template, number: int) -> str:
    """SHA-256 of what decides the root's content, without the agent and what is written anew each time."""
    digest = hashlib.sha256(f"builder {builder_version(template.kind)} {template.kind} {os.uname().machine}\n".encode())
    digest.update(f"{template.suite} {' '.join(template.debian)}\n".encode())
    if template.kind == "go":
        digest.update(json.dumps(dict(template.env), sort_keys=True).encode())
    for stage in template.stages[:number]:
        digest.update(stage_digest(stage).encode())
    return digest.hexdigest()


def runtime_digest(template: Template) -> str:
    """SHA-256 of what vibeD itself puts into a root: the agent and the zygote programs; empty without a root."""
    if not template.has_root:
        return ""
    programs = zygote_programs(template)
    own = digest_of(programs[0].parent, programs) if programs else ""
    return hashlib.sha256(f"{agent_digest()} {own}".encode()).hexdigest()


def image_digest(template: Template, number: int, runtime: str, debian: Mapping[str, str]) -> str:
    """SHA-256 of all that decides an image: what its name is made of."""
    facts = [template.definition_digest, str(number), runtime, *(f"{k}={v}" for k, v in sorted(debian.items()))]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()
