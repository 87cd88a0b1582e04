"""What is in each of vibeD's images: `vibed`, `vibed-caddy`, and `vibed-template-<name>` for each template.

A template's image is the root that one machine's sandboxes have, made by the same builder, with the agent as what runs.
The control plane's is a Debian root without a shell, its packages installed by hash as on one machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.images import sbom
from deploy.images.archive import File, Image, Layer, pack

from vibed import __version__
from vibed.drivers.agent_sandbox import workers
from vibed.drivers.workerd.code import shim
from vibed.runtimes import commands, debian_packages
from vibed.runtimes.assembly import Assembly
from vibed.runtimes.builder import TemplateBuilder
from vibed.runtimes.layers import compilers, toolbox
from vibed.runtimes.layers.kits import Kit, packed
from vibed.runtimes.pythons import python_of
from vibed.runtimes.shipped import shipped
from vibed.runtimes.templates import (
    BUILDER_VERSIONS,
    PoolSize,
    Resources,
    Stage,
    Template,
    load_templates,
    locked_wheels,
)
from vibed.runtimes.tools import Tools, agent_digest
from vibed.runtimes.trees import normalise, remove
from vibed.runtimes.trimming import merge_site

CHECKOUT = Path(__file__).resolve().parents[2]
SBOM = "usr/share/doc/vibed/sbom.cdx.json"
PREFIX = "vibed-template-"
AGENT = "usr/lib/vibed/vibed-agent"
"""Where a root has it, on one machine too."""
_KITS = "usr/lib/vibed/kits"
"""Where the controller looks for them (`vibed.controller.layering`)."""

_SUITE = "trixie"
# base-files has the links that make /lib64 and /bin what programs expect
_LIBRARIES = ("base-files", "libc6", "libgcc-s1", "libstdc++6", "ca-certificates", "tzdata")
_PYTHON = ("python3.13", "python3-minimal", "libc-bin", "netbase", "media-types")
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
_BASE_VERSION = "1"
_STEP_DEADLINE_S = 900.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENTRY = "#!/usr/bin/python3 -I\nimport sys\n\nfrom vibed.cli.main import main\n\nsys.exit(main())\n"
_IDENTITIES = {
    "etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\nvibed:x:65532:65532:vibed:/tmp:/sbin/nologin\n",
    "etc/group": "root:x:0:\nvibed:x:65532:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_PLACES = {"tmp": 0o1777, "run/vibed": 0o755, "var/lib/vibed": 0o755, "proc": 0o755, "sys": 0o755, "dev": 0o755}


@dataclass(frozen=True)
class Prepared:
    """An image whose parts lie ready, and what is in it."""

    image: Image
    sbom: bytes
    """A CycloneDX document."""


@dataclass(frozen=True)
class _Base:
    """A packed layer, and what is in it."""

    tar: Path
    packages: list[sbom.Package]


class Contents:
    """Prepares images with the programs and templates of `home`. `say` is told each step."""

    def __init__(
        self, home: Path, registry: str, say: Callable[[str], None] = lambda step: None, *, fresh: bool = False
    ) -> None:
        """`fresh`: what is kept of earlier builds is made anew, with the newest Debian packages."""
        self._fresh = fresh
        self._home = home
        self._registry = registry.rstrip("/")
        self._staging = Path()
        self._say = say
        self._tools = Tools(home)
        self._templates = load_templates()
        self._builder = TemplateBuilder(home, self._templates, self._tools)

    def names(self) -> list[str]:
        """Every image that can be made."""
        return [
            "vibed",
            "vibed-caddy",
            *(f"{PREFIX}{name}" for name, one in self._templates.items() if not one.unavailable),
        ]

    def key(self, name: str) -> str:
        """Of everything that decides what is in an image, as far as it is known before it is made."""
        digest = hashlib.sha256(f"{name}\0{self._registry}\0{__version__}\0{agent_digest()}".encode())
        for source in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(source.read_bytes())
        if name.startswith(PREFIX):
            template = self._templates[name.removeprefix(PREFIX)]
            built = self._builder.ready(template.name)
            if template.kind == workers.KIND:
                digest.update("".join(_shim().values()).encode())
            digest.update(f"{template.definition_digest}\0{built.digest if built and built.complete else ''}".encode())
        elif name == "vibed":
            digest.update("\0".join(kit.file for kit in self._kits()).encode())
            for source in _sources():
                digest.update(f"{source.relative_to(CHECKOUT)}\0".encode() + source.read_bytes())
        else:
            digest.update(self._tools.version(self._caddy).encode())
        return digest.hexdigest()

    async def prepare(self, name: str, staging: Path) -> Prepared:
        """Its parts lie below `staging`. Raises TemplateBuildFailed, ToolError, CommandFailed, OSError."""
        self._staging = staging
        if name == "vibed":
            return await self._vibed()
        if name == "vibed-caddy":
            return await self._proxy()
        template = self._templates[name.removeprefix(PREFIX)]
        if template.kind == "static":
            return await self._static(template)
        if template.kind == workers.KIND:
            return await self._worker(template)
        return await self._general(template)

    # the control plane

    async def _vibed(self) -> Prepared:
        """Python, vibeD with what it needs, and the agent."""
        lock = shipped("locks") / "vibed" / "runtime.txt"
        stage = Stage("vibed", python=lock, packages=locked_wheels(lock))
        base = await self._base("vibed", (*_LIBRARIES, *_PYTHON), stage)
        self._say("installing vibeD")
        job = self._assembly("vibed", (), ())
        with tarfile.open(base.tar) as tar:
            await asyncio.to_thread(tar.extractall, job.root, filter="fully_trusted")
        python = python_of(job.root)
        assert python is not None, "the Debian packages bring Python"
        site = self._staging / "site"
        pip = ["install", "--no-deps", "--no-compile", "--no-build-isolation", "--target", str(site), str(CHECKOUT)]
        await self._tools.pip(pip, log=job.log, deadline_s=_STEP_DEADLINE_S)
        packages = [*base.packages, *sbom.of_tree(site), self._agent_package()]
        known = {path.name for path in (job.root / python.site).iterdir()}
        merge_site(site, job.root, python.site)
        await job.compile(python, f"{python.site}/vibed")
        normalise(job.root)
        for path in (job.root / python.site).iterdir():
            if path.name in known:
                remove(path)
        agent = await self._tools.install("vibed-agent")
        programs = {"usr/bin/vibed": File(_ENTRY.encode(), 0o755), "usr/bin/vibed-agent": File(agent, 0o755)}
        packages += [sbom.Package("generic", name, self._tools.version(name)) for name in toolbox.NAMES]
        # builders are given them; nothing in a pod of the control plane could fetch them
        kits: dict[str, File] = {}
        for kit in self._kits():
            self._say(f"packing {kit.what} ({kit.name})")
            made = await packed(kit, self._home / "kits", fresh=self._fresh)
            kits[f"{_KITS}/{kit.file}"] = File(made.path)
            packages += sbom.of_debian(made.debian)
        own = Layer(
            root=job.root / python.site,
            at=python.site,
            files={**programs, **_files(_IDENTITIES)},
            directories=_PLACES,
        )
        # what seldom changes is below: a node that has an earlier release gets the rest alone
        below = [Layer(packed=base.tar), Layer(files=kits)]
        return self._prepared("vibed", [*below, own], packages, ["/usr/bin/vibed"])

    def _kits(self) -> list[Kit]:
        """Installers, and what packages are compiled with for templates whose system is Debian's stable."""
        found = {kit.name: kit for kit in toolbox.kits(self._tools)}
        for template in self._templates.values():
            if template.suite == _SUITE and not any(stage.interpreter for stage in template.stages):
                found |= {kit.name: kit for kit in compilers.kits_of(self._home, self._tools, template).values()}
        return list(found.values())

    async def _proxy(self) -> Prepared:
        """Caddy, certificates of authorities, and nothing else."""
        caddy = await self._tools.install(self._caddy)
        base = await self._base("libraries", _LIBRARIES)
        with tarfile.open(base.tar) as tar:
            member = tar.extractfile(_CERTIFICATES)
            assert member is not None, "ca-certificates brings its bundle"
            certificates = member.read()
        own = Layer(
            files={
                "usr/bin/caddy": File(caddy, 0o755),
                _CERTIFICATES: File(certificates),
                **_files(_IDENTITIES),
            },
            directories={**_PLACES, "var/lib/caddy": 0o755},
        )
        packages = [one for one in base.packages if one.name == "ca-certificates"]
        packages.append(sbom.Package("generic", "caddy", self._tools.version(self._caddy)))
        return self._prepared("vibed-caddy", [own], packages, ["/usr/bin/caddy"], ports=(8080, 8443))

    @property
    def _caddy(self) -> str:
        """With DNS providers, for certificates of wildcards."""
        return "caddy-dns"

    # templates

    async def _general(self, template: Template) -> Prepared:
        """The root of one machine's sandboxes; the agent in a layer of its own, since each release has another."""
        while not (built := await self._builder.build(template.name)).complete:
            self._say(f"stage {built.stage} is there")
        assert built.rootfs is not None
        root = self._staging / "root"
        root.mkdir()
        extract = ["fsck.erofs", f"--extract={root}", "--overwrite", "--preserve-perms", str(built.rootfs)]
        await commands.run(extract, log=self._log("extract"), deadline_s=_STEP_DEADLINE_S)
        agent = self._staging / "agent"
        (root / AGENT).rename(agent)
        # Kubernetes puts its own here; on one machine it is a link to where the sandbox's is
        remove(root / "etc/hosts")
        own = Layer(
            files={AGENT: File(agent, 0o755), "etc/hosts": File(b"")}, links={"usr/bin/vibed-agent": f"/{AGENT}"}
        )
        packages = [*sbom.of_debian(built.debian), *sbom.of_tree(root), self._agent_package()]
        return self._sandbox(template, [Layer(root), own], packages)

    async def _static(self, template: Template) -> Prepared:
        """The agent alone: it serves sites itself."""
        agent = await self._tools.install("vibed-agent")
        return self._sandbox(template, [self._bare(agent)], [self._agent_package()])

    async def _worker(self, template: Template) -> Prepared:
        """workerd with the shim, what bundles workers, the C library that they need, and the agent."""
        agent = await self._tools.install("vibed-agent")
        programs = {"workerd": workers.PROGRAM, "esbuild": workers.BUNDLER}
        files = {path[1:]: File(await self._tools.install(name), 0o755) for name, path in programs.items()}
        files |= _files({f"{workers.SHIM[1:]}/{name}": text for name, text in _shim().items()})
        base = await self._base("libraries", _LIBRARIES)
        while not (built := await self._builder.build(template.name)).complete:
            self._say(f"stage {built.stage} is there")
        modules = built.node_modules
        program = Layer(root=modules, at=workers.MODULES[1:] if modules else "", files=files)
        own = [sbom.Package("npm", name, self._tools.version(name)) for name in programs]
        bundled = sbom.of_tree(built.directory) if modules else []
        packages = [*base.packages, *own, *bundled, self._agent_package()]
        return self._sandbox(template, [Layer(packed=base.tar), program, self._bare(agent)], packages)

    def _bare(self, agent: Path) -> Layer:
        identities = {
            "etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\napp:x:1000:1000:app:/home/app:/sbin/nologin\n",
            "etc/group": "root:x:0:\napp:x:1000:\n",
            "etc/nsswitch.conf": _IDENTITIES["etc/nsswitch.conf"],
        }
        places = {"app": 0o755, "home/app": 0o755, "layers": 0o755, **_PLACES}
        link = {"usr/bin/vibed-agent": f"/{AGENT}"}
        return Layer(files={AGENT: File(agent, 0o755), **_files(identities)}, directories=places, links=link)

    def _sandbox(self, template: Template, layers: list[Layer], packages: list[sbom.Package]) -> Prepared:
        labels = {"dev.vibed.template": template.name, "dev.vibed.template.definition": template.definition_digest}
        entrypoint = [f"/{AGENT}", "pod"]
        return self._prepared(f"{PREFIX}{template.name}", layers, packages, entrypoint, user="1000:1000", labels=labels)

    # what all have

    def _prepared(
        self,
        name: str,
        layers: list[Layer],
        packages: list[sbom.Package],
        entrypoint: list[str],
        *,
        user: str = "65532:65532",
        labels: Mapping[str, str] | None = None,
        ports: tuple[int, ...] = (),
    ) -> Prepared:
        document = sbom.document(name, __version__, packages)
        described = Layer(files={SBOM: File(document)})
        image = Image(
            name=f"{self._registry}/{name}:{__version__}",
            layers=[*layers, described],
            entrypoint=entrypoint,
            env={"PATH": _PATH},
            user=user,
            ports=ports,
            labels={
                "org.opencontainers.image.title": name,
                "org.opencontainers.image.version": __version__,
                "org.opencontainers.image.licenses": "Apache-2.0",
                **(labels or {}),
            },
            annotations={
                "org.opencontainers.image.version": __version__,
                "dev.vibed.sbom": f"/{SBOM}",
                "dev.vibed.sbom.sha256": hashlib.sha256(document).hexdigest(),
            },
        )
        return Prepared(image, document)

    async def _base(self, name: str, debian: tuple[str, ...], *stages: Stage) -> _Base:
        """A layer of Debian packages and what is installed by hash, which is kept: it seldom changes."""
        said = json.dumps([_SUITE, debian, BUILDER_VERSIONS["python"], _BASE_VERSION])
        digest = hashlib.sha256(said.encode())
        for stage in stages:
            assert stage.python is not None
            digest.update(stage.python.read_bytes())
        kept = self._home / "images" / "bases" / f"{name}-{digest.hexdigest()[:16]}.tar"
        record = kept.with_suffix(".json")
        if self._fresh or not record.exists():
            await debian_packages.ensure(self._home, self._log(name))
            job = self._assembly(f"base-{name}", debian, stages)
            versions = await job.assemble(1, None)
            remove(job.root / "usr/local/bin")
            normalise(job.root)
            packages = [*sbom.of_debian(versions), *sbom.of_tree(job.root)]
            self._say("packing it")
            kept.parent.mkdir(parents=True, exist_ok=True)
            packed = await asyncio.to_thread(pack, Layer(root=job.root), self._staging / "base.tar")
            remove(job.root)
            record.unlink(missing_ok=True)
            shutil.move(packed, kept)
            record.write_text(json.dumps([[one.kind, one.name, one.version] for one in packages]))
        return _Base(kept, [sbom.Package(*one) for one in json.loads(record.read_text())])

    def _assembly(self, name: str, debian: tuple[str, ...], stages: tuple[Stage, ...]) -> Assembly:
        """The builder of templates' roots, for one that is no template."""
        definition = Template(
            name=name,
            lane="general",
            description="",
            kind="python",
            driver=None,
            packages={},
            env={},
            pool=PoolSize(),
            resources=Resources(),
            zygotes=(),
            suite=_SUITE,
            debian=debian,
            unavailable=None,
            stages=stages,
            on_need=False,
            definition_digest="",
        )
        return Assembly(
            definition, len(stages), self._staging, self._log(name), self._tools, lambda step, part: self._say(step)
        )

    def _agent_package(self) -> sbom.Package:
        return sbom.Package("generic", "vibed-agent", self._tools.version("vibed-agent"))

    def _log(self, name: str) -> Path:
        return self._staging / f"{name}.log"


def _shim() -> Mapping[str, str]:
    return shim(workers.ASSETS)


def _files(contents: Mapping[str, str]) -> dict[str, File]:
    return {path: File(content.encode()) for path, content in contents.items()}


def _sources() -> list[Path]:
    """Every file that goes into the installed vibeD."""
    found = [CHECKOUT / "pyproject.toml"]
    for folder in ("src", "agent", "templates", "locks", "examples"):
        found += [path for path in (CHECKOUT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted(found)
