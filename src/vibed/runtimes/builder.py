"""Builds the templates' root images and keeps them; `vibed.runtimes.assembly` has what is in one.

    <home>/templates/<name>/<digest, 16 digits>/rootfs.erofs and manifest.json   (workerd: node_modules, no image)
    <home>/templates/<name>/current    a link to the newest, which is replaced in one rename
    <home>/templates/<name>/build.log  of the last build

An image is built beside its place and renamed into it, so what is there is whole; a build that was killed leaves a
`.build-*` folder that the next one removes, and earlier images stay until `prune` is told which are still used.

A build starts from an older image wherever that has the same content: a later stage adds to the earlier one's image,
and a new agent (every vibeD release has one) is put into the existing image in a few seconds.
"""

from __future__ import annotations

import asyncio
import functools
import json
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vibed.apps.errors import VibedError
from vibed.runtimes import commands, debian_packages
from vibed.runtimes.assembly import Assembly, together
from vibed.runtimes.digests import content_digest, image_digest, runtime_digest
from vibed.runtimes.exclusive import exclusive
from vibed.runtimes.images import clear, link, prune, publish
from vibed.runtimes.templates import Template, builder_version
from vibed.runtimes.tool import sha256_of
from vibed.runtimes.tools import Tools
from vibed.runtimes.trees import remove

BUILD_DEADLINE_S = 1800.0
_PRUNE_DEADLINE_S = 1.0


class TemplateUnavailable(VibedError):
    """This template can never be built here; the message says why."""

    code = "TemplateUnavailable"
    status = 422


class TemplateBuildFailed(VibedError):
    """A build stopped. `hint` says what would help; the log has the whole story."""

    code = "TemplateBuildFailed"
    status = 503
    retryable = True


@dataclass(frozen=True)
class BuiltTemplate:
    """A template as it is on disk."""

    name: str
    digest: str
    """SHA-256 of the definition, the stage, the agent and the resolved Debian versions."""
    directory: Path
    rootfs: Path | None
    """The EROFS image; None for templates without a root (static, workerd)."""
    packages: Mapping[str, str]
    """Name -> version of what is in this image."""
    debian: Mapping[str, str]
    """Debian package -> version, as resolved."""
    stage: int
    """Counted from 1; the last one is `Template.last_stage`."""
    complete: bool
    """Whether no further stage follows."""
    built_at: float
    """Unix seconds."""

    @property
    def node_modules(self) -> Path | None:
        """workerd: the libraries that esbuild may bundle."""
        folder = self.directory / "node_modules"
        return folder if folder.is_dir() else None


class TemplateBuilder:
    """Builds and finds the images of one VIBED_HOME."""

    def __init__(
        self,
        home: Path,
        templates: Mapping[str, Template],
        tools: Tools,
        *,
        on_progress: Callable[[str, str, float | None], None] | None = None,
    ) -> None:
        """`on_progress(template, step, fraction)` is called as a build goes on."""
        self._folder = home / "templates"
        self._templates = templates
        self._tools = tools
        self._on_progress = on_progress
        self._runtimes: dict[str, str] = {}

    def ready(self, name: str) -> BuiltTemplate | None:
        """The newest usable image, or None when there is none for the template's present definition and agent."""
        template = self._template(name)
        if template.unavailable:
            return None
        if not template.has_root and not template.stages:
            return self._without_content(template)
        found = [built for built, manifest in self._images(template) if self._is_current(template, manifest)]
        return max(found, key=lambda built: (built.stage, built.built_at), default=None)

    async def build(self, name: str, *, stage: int | None = None, fresh: bool = False) -> BuiltTemplate:
        """Make the next stage that is not there yet, or the given one, and return the template as it is then.

        Idempotent: with every stage there, it returns at once. `fresh` resolves Debian packages anew. One build at a
        time per template, across processes. Raises TemplateUnavailable, TemplateBuildFailed, ToolError.
        """
        template = self._template(name)
        if template.unavailable:
            raise TemplateUnavailable(f"{name}: {template.unavailable}")
        if not 1 <= (stage or 1) <= template.last_stage:
            raise ValueError(f"{name} has {template.last_stage} stages, not {stage}")
        if not template.has_root and not template.stages:
            return self._without_content(template)
        place = self._folder / name
        place.mkdir(parents=True, exist_ok=True)
        try:
            async with exclusive(place / ".busy", deadline_s=BUILD_DEADLINE_S), asyncio.timeout(BUILD_DEADLINE_S):
                self._runtimes.pop(name, None)
                present = self.ready(name)
                if not fresh and present is not None and (present.complete or present.stage >= (stage or 99)):
                    link(present.directory)
                    return present
                number = stage or self._next_stage(template, present, fresh)
                return await self._build(template, number, fresh)
        except TimeoutError as error:
            raise TemplateBuildFailed(f"{name} was not built within {BUILD_DEADLINE_S:.0f} s") from error
        except (commands.CommandFailed, OSError, ValueError) as error:
            raise TemplateBuildFailed(
                f"{name}: {error}", hint=f"the log is {place / 'build.log'}", details={"template": name}
            ) from error

    async def prune(self, name: str, keep: Collection[str] = ()) -> list[str]:
        """Remove what builds of this template left behind: images that are neither the newest nor in `keep` (digests in
        use), and half-built folders. Returns the names of the images removed.

        Nothing is removed while no image is usable: the next build starts from an older one. Raises TimeoutError while
        a build is under way, OSError.
        """
        place = self._folder / self._template(name).name
        if not place.is_dir():
            return []
        async with exclusive(place / ".busy", deadline_s=_PRUNE_DEADLINE_S):
            current = self.ready(name)
            if current is None:
                return []
            link(current.directory)
            return await asyncio.to_thread(prune, place, {digest[:16] for digest in (current.digest, *keep)})

    async def verify(self, name: str) -> bool:
        """Whether the newest image is, byte for byte, what was built."""
        built = self.ready(name)
        if built is None or built.rootfs is None:
            return built is not None
        manifest = json.loads((built.directory / "manifest.json").read_text())
        return bool(await asyncio.to_thread(sha256_of, built.rootfs) == manifest["sha256"])

    # one build

    async def _build(self, template: Template, number: int, fresh: bool) -> BuiltTemplate:
        place = self._folder / template.name
        log = place / "build.log"
        log.write_text(
            f"{template.name} stage {number} of {template.last_stage}, builder {builder_version(template.kind)}\n"
        )
        await asyncio.to_thread(clear, place)
        began = time.monotonic()
        staging = Path(tempfile.mkdtemp(dir=place, prefix=".build-"))
        staging.chmod(0o755)
        job = Assembly(template, number, staging, log, self._tools, functools.partial(self._say, template.name))
        try:
            if template.has_root:
                try:
                    await debian_packages.ensure(self._folder.parent, log)
                except debian_packages.PackagesMissing as error:
                    raise TemplateBuildFailed(error.message, hint=error.hint, retryable=error.may_retry) from error
                manifest = await self._root_image(job, None if fresh else self._seed(template, number))
            else:
                manifest = await job.libraries()
            digest = image_digest(template, number, manifest["runtime"], manifest["debian"])
            manifest |= {
                "name": template.name,
                "digest": digest,
                "definition": template.definition_digest,
                "stage": number,
                "content": content_digest(template, number),
                "packages": _packages(template, number),
                "built_at": time.time(),
                "seconds": round(time.monotonic() - began, 2),
            }
            (staging / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
            job.say("syncing to disk", 0.97)
            final = place / digest[:16]
            await asyncio.to_thread(publish, staging, final)
        finally:
            await asyncio.to_thread(remove, staging)
        job.say("ready", 1.0)
        return self._built(template, final, manifest)

    async def _root_image(self, job: Assembly, seed: Path | None) -> dict[str, Any]:
        """Have the root assembled and made an image; returns the manifest's facts."""
        first = 1 if seed is None else json.loads((seed / "manifest.json").read_text())["stage"] + 1
        agent, debian = await together(self._tools.install("vibed-agent"), job.assemble(first, seed))
        await asyncio.to_thread(job.put_own_parts, agent)
        await job.make_image()
        image = job.staging / "rootfs.erofs"
        runtime = self._runtime(job.template)
        facts: dict[str, Any] = {"debian": debian, "runtime": runtime, "size": image.stat().st_size}
        return facts | {"sha256": await asyncio.to_thread(sha256_of, image), "seeded": seed is not None}

    def _next_stage(self, template: Template, present: BuiltTemplate | None, fresh: bool) -> int:
        if fresh:
            return template.last_stage
        if present is not None:
            return present.stage + 1
        # after an upgrade: the same content with the new agent is there in seconds, however big it is
        seed = self._seed(template, template.last_stage)
        return 1 if seed is None else int(json.loads((seed / "manifest.json").read_text())["stage"])

    def _seed(self, template: Template, number: int) -> Path | None:
        """The image to start from: the same content up to the highest stage that is not beyond `number`."""
        wanted = {content_digest(template, n): n for n in range(1, number + 1)}
        found = [
            (wanted[manifest["content"]], built.built_at, built.directory)
            for built, manifest in self._images(template)
            if manifest.get("content") in wanted
        ]
        return max(found)[2] if found else None

    # what is on disk

    def _images(self, template: Template) -> list[tuple[BuiltTemplate, dict[str, Any]]]:
        found = []
        for path in (self._folder / template.name).glob("*/manifest.json"):
            if path.parent.is_symlink() or path.parent.name.startswith("."):
                continue
            try:
                manifest = json.loads(path.read_text())
                built = self._built(template, path.parent, manifest)
                whole = built.rootfs is None or built.rootfs.stat().st_size == manifest["size"]
            except (OSError, ValueError, KeyError):
                continue
            if whole:
                found.append((built, manifest))
        return found

    def _built(self, template: Template, directory: Path, manifest: Mapping[str, Any]) -> BuiltTemplate:
        return BuiltTemplate(
            name=template.name,
            digest=manifest["digest"],
            directory=directory,
            rootfs=directory / "rootfs.erofs" if template.has_root else None,
            packages=manifest["packages"],
            debian=manifest["debian"],
            stage=manifest["stage"],
            complete=manifest["stage"] >= template.last_stage,
            built_at=manifest["built_at"],
        )

    def _is_current(self, template: Template, manifest: Mapping[str, Any]) -> bool:
        return bool(
            manifest["definition"] == template.definition_digest and manifest["runtime"] == self._runtime(template)
        )

    def _runtime(self, template: Template) -> str:
        if template.name not in self._runtimes:
            self._runtimes[template.name] = runtime_digest(template)
        return self._runtimes[template.name]

    def _without_content(self, template: Template) -> BuiltTemplate:
        digest = template.definition_digest
        return BuiltTemplate(template.name, digest, self._folder / template.name, None, {}, {}, 1, True, 0.0)

    def _template(self, name: str) -> Template:
        try:
            return self._templates[name]
        except KeyError:
            raise TemplateUnavailable(
                f"there is no template {name!r}", hint=f"there are {', '.join(sorted(self._templates))}"
            ) from None

    def _say(self, template: str, step: str, fraction: float | None) -> None:
        if self._on_progress is not None:
            self._on_progress(template, step, fraction)


def _packages(template: Template, number: int) -> dict[str, str]:
    return {name: version for stage in template.stages[:number] for name, version in stage.packages.items()}
