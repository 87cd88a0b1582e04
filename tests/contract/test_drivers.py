"""The contract of every driver: what the controller relies on, shown with the real programs.

Each test says for which drivers it holds; what a driver cannot be asked (a static site has no process) is not asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.contract.driver_kit import (
    SUBJECTS,
    Answer,
    Bench,
    KeptConnection,
    Subject,
    bench,
    command_pid,
    gone,
    programs,
    supervisor_pid,
)
from tests.contract.pods import PODS, Pods, pod_bench, pods
from tests.stopping import stop
from vibed.apps.app import Runtime, Start
from vibed.runtimes.templates import load_templates
from vibed.sandboxes.driver import (
    BootFailed,
    HeirUnreachable,
    Isolation,
    Limits,
    Mount,
    Prospect,
    Run,
    RunFailed,
    SandboxLost,
    State,
)
from vibed.supervision import supervised as supervised_sandbox

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

every = pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
supervised = pytest.mark.parametrize("subject", [s for s in SUBJECTS.values() if s.supervised], ids=lambda s: s.name)
general = pytest.mark.parametrize("subject", [s for s in SUBJECTS.values() if s.general], ids=lambda s: s.name)
every_and_pods = pytest.mark.parametrize("subject", [*SUBJECTS.values(), PODS], ids=lambda s: s.name)
general_and_pods = pytest.mark.parametrize(
    "subject", [*(s for s in SUBJECTS.values() if s.general), PODS], ids=lambda s: s.name
)
supervised_and_pods = pytest.mark.parametrize(
    "subject", [*(s for s in SUBJECTS.values() if s.supervised), PODS], ids=lambda s: s.name
)
workerd = SUBJECTS["workerd"]


@pytest.fixture(scope="session", autouse=True)
def agent() -> None:
    """The agent as its sources are now."""
    subprocess.run([sys.executable, "-m", "tests.prepare", "tools"], check=True, cwd=Path(__file__).parents[2])
    programs()


@pytest.fixture(scope="session")
def pods_place(cluster: Cluster) -> Iterator[Pods]:
    with pods(cluster) as place:
        yield place


@pytest.fixture
def pods_or_here(request: pytest.FixtureRequest) -> Pods | None:
    """Where pods are, for the driver that needs them: nothing of a cluster is begun for the others."""
    called = getattr(request.node, "callspec", None)
    if called is None or called.params.get("subject") is not PODS:
        return None
    found = request.getfixturevalue("pods_place")
    assert isinstance(found, Pods)
    return found


@pytest.fixture
async def on(tmp_path: Path, pods_or_here: Pods | None) -> AsyncIterator[Bench]:
    async with bench(tmp_path) if pods_or_here is None else pod_bench(tmp_path, pods_or_here) as it:
        yield it


# The life of a sandbox


@every_and_pods
async def test_a_sandbox_goes_from_warm_to_running_to_gone(on: Bench, subject: Subject) -> None:
    driver = subject.driver(on)
    sandbox = await subject.boot(on, driver)
    assert str(sandbox.state) == "warm"
    assert (sandbox.driver, sandbox.template) == (driver.name, subject.template)
    assert sandbox.claimed is None
    assert sandbox.endpoint is None

    run = subject.run(on)
    app = await subject.start(on, driver, run, sandbox)
    assert str(sandbox.state) == "running"
    assert sandbox.endpoint == app.started.endpoint
    assert sandbox.claimed is not None
    assert (sandbox.claimed.app_id, sandbox.claimed.version, sandbox.claimed.number) == ("app", 1, run.number)
    assert app.stages == ["claimed", "injected", "started"]
    assert (await app.get()).body == "hello world"

    await sandbox.drain(5)
    ended = await sandbox.wait()
    assert str(sandbox.state) == "exited"
    assert sandbox.exit == ended
    assert not app.socket.exists()
    assert await gone(on) == []


@every_and_pods
async def test_one_for_which_somebody_waits_runs_what_every_other_runs(on: Bench, subject: Subject) -> None:
    driver = subject.driver(on)
    hurried = await driver.boot(subject.template, urgent=True)
    on.sandboxes.append(hurried)
    usual = await subject.boot(on, driver, urgent=False)
    answers = [await (await subject.start(on, driver, sandbox=sandbox)).get() for sandbox in (hurried, usual)]
    assert [answer.body for answer in answers] == ["hello world", "hello world"]


@every
async def test_a_run_does_not_depend_on_what_was_prepared_for_it(on: Bench, subject: Subject) -> None:
    driver = subject.driver(on)
    run = subject.run(on)
    what = {name: getattr(run.runtime, name) for name in ("strip", "root", "entrypoint", "bundle")}
    driver.prepare(Prospect("nobody", run.source, **what))
    driver.prepare(Prospect(run.app_id, run.source.with_name("not there"), **what))
    for number in (1, 2):
        if number == 1:
            driver.prepare(Prospect(run.app_id, run.source, **what))
        app = await subject.start(on, driver, replace(run, number=number))
        assert (await app.get()).body == "hello world"


@every_and_pods
async def test_a_sandbox_runs_once(on: Bench, subject: Subject) -> None:
    driver = subject.driver(on)
    app = await subject.start(on, driver)
    with pytest.raises(SandboxLost) as refused:
        await subject.start(on, driver, sandbox=app.sandbox)
    assert refused.value.error_code == "AlreadyClaimed"
    assert (await app.get()).body == "hello world"


@every_and_pods
async def test_destroying_twice_or_while_warm_is_fine(on: Bench, subject: Subject) -> None:
    driver = subject.driver(on)
    sandbox = await subject.boot(on, driver)
    await sandbox.destroy()
    await sandbox.destroy()
    await sandbox.wait()
    assert await gone(on) == []


@every_and_pods
async def test_an_unknown_template_does_not_boot(on: Bench, subject: Subject) -> None:
    with pytest.raises(BootFailed):
        await subject.driver(on).boot("cobol-59")
    assert await gone(on) == []


@every
async def test_the_probe_runs_something_real_and_names_its_level(on: Bench, subject: Subject) -> None:
    driver = subject.driver(on)
    probe = await driver.probe()
    assert probe.ok, probe.detail
    expected = {
        "static": Isolation.NONE_NEEDED,
        "workerd": Isolation.ISOLATE,
        "gvisor": Isolation.KERNEL,
        "process": Isolation.PROCESS,
    }
    assert probe.isolation is expected[subject.name]
    assert await gone(on) == []


# What an app gets to see


@general
async def test_an_app_has_its_environment_and_nothing_of_ours(
    on: Bench, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBED_ADMIN_KEY", "the control plane's secret")
    app = await subject.start(on, subject.driver(on), subject.run(on, env={"GREETING": "x", "K": "a\nb ü"}))
    seen = json.loads(await app.ask("__import__('json').dumps(dict(os.environ))"))
    assert seen.pop("K") == "a\nb ü"
    of_template = load_templates()["python-313"].env
    assert {name: seen.pop(name) for name in of_template} == of_template
    assert set(seen) <= {"GREETING", "PATH", "HOME", "LANG", "PORT", "HOST", "TMPDIR", "LC_CTYPE"}
    everything = await app.ask(
        "b''.join(open(f'/proc/{p}/{f}', 'rb').read() for p in os.listdir('/proc') if p.isdigit()"
        " for f in ('environ', 'cmdline') if os.stat(f'/proc/{p}').st_uid == 1000)"
    )
    assert "control plane" not in everything
    assert str(on.layout.runtime) not in everything


async def test_a_worker_has_its_environment_and_nothing_of_ours(on: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIBED_ADMIN_KEY", "the control plane's secret")
    run = workerd.run(on, env={"GREETING": "x", "K": "a\nb ü"}, options={"vars": {"LEVEL": "info", "GREETING": "no"}})
    app = await workerd.start(on, workerd.driver(on), run)
    seen = json.loads((await app.get("/env")).body)
    assert seen["bindings"] == {"GREETING": "x", "K": "a\nb ü", "LEVEL": "info"}
    assert seen["process"] == seen["bindings"]


@general
async def test_an_app_runs_as_its_own_user_in_its_source(on: Bench, subject: Subject) -> None:
    app = await subject.start(on, subject.driver(on))
    assert await app.ask("os.getuid(), os.getgid(), os.getcwd(), os.listdir('.')") == "(1000, 1000, '/app', ['app.py'])"
    for place in ("/app", "/tmp", "/home/app"):
        assert await app.ask(f"open('{place}/f', 'w').write('x')") == "1"
    for place in ("/", "/etc", "/usr", "/run/vibed"):
        assert "Error" in await app.ask(f"open('{place}/f', 'w').write('x')")
    status = await app.ask("open('/proc/self/status').read()")
    assert "CapEff:\t0000000000000000" in status


@general
async def test_an_app_finds_the_address_of_its_own_machine(on: Bench, subject: Subject) -> None:
    app = await subject.start(on, subject.driver(on), subject.run(on, app="todo"))
    code = "__import__('socket').gethostbyname(__import__('socket').gethostname())"
    assert await app.ask(code) == "127.0.0.1"
    code = (
        "{a[4][0] for a in __import__('socket').getaddrinfo(__import__('socket').gethostname(), 80)} >= {'127.0.0.1'}"
    )
    assert await app.ask(code) == "True"


@general
async def test_two_sandboxes_do_not_see_each_other_nor_the_host(on: Bench, subject: Subject) -> None:
    driver = subject.driver(on)
    one, two = await asyncio.gather(subject.start(on, driver), subject.start(on, driver))
    assert await one.ask("open('/tmp/mine', 'w').write('secret')") == "6"
    assert "FileNotFoundError" in await two.ask("open('/tmp/mine').read()")
    pids = "[p for p in os.listdir('/proc') if p.isdigit()]"
    assert await two.ask(f"sorted({{os.stat(f'/proc/{{p}}').st_uid for p in {pids}}}, reverse=True)[0]") == "1000"
    assert await two.ask(f"sum(os.stat(f'/proc/{{p}}').st_uid == 1000 for p in {pids})") == "1"
    assert "pytest" not in await two.ask(f"[open(f'/proc/{{p}}/cmdline').read() for p in {pids}]")
    with socket.create_server(("127.0.0.1", 0)) as host:
        port = host.getsockname()[1]
        told = await one.ask(f"__import__('socket').create_connection(('127.0.0.1', {port}), 1)")
        assert "Error" in told
    for path in (on.layout.runtime, on.layout.home, Path(__file__)):
        assert "FileNotFoundError" in await one.ask(f"os.stat('{path}')")
    assert "PermissionError" in await one.ask(
        "__import__('socket').socket(__import__('socket').AF_UNIX).connect('/run/vibed/agent.sock')"
    )


async def test_a_worker_reaches_neither_the_host_nor_its_files(on: Bench) -> None:
    app = await workerd.start(on, workerd.driver(on))
    with socket.create_server(("127.0.0.1", 0)) as host:
        told = (await app.get(f"/fetch?to=http://127.0.0.1:{host.getsockname()[1]}/")).body
    assert told.startswith("refused")
    for path in ("/etc/passwd", "/shim/shim.js", "/proc/self/environ"):
        assert (await app.get(f"/read?path={path}")).body.startswith("refused")


async def test_every_sandbox_has_uids_of_its_own(on: Bench) -> None:
    driver = workerd.driver(on)
    boxes = [await workerd.boot(on, driver) for _ in range(3)]
    uids = {json.loads((on.layout.sandboxes / box.id / "spec.json").read_text())["uid"] for box in boxes}
    assert len(uids) == 3
    for box in boxes:
        inside = _descendants(command_pid(on, box))
        assert {Path(f"/proc/{pid}").stat().st_uid for pid in inside} <= uids
        assert inside


# What is told of an app


@supervised_and_pods
async def test_what_an_app_prints_is_kept_in_order_with_the_facts_of_its_end(on: Bench, subject: Subject) -> None:
    app = await subject.start(on, subject.driver(on))
    await app.get()
    await app.sandbox.destroy()
    log = app.log()
    assert [line["seq"] for line in log] == list(range(1, len(log) + 1))
    assert "app starts" in app.texts("stdout")
    assert log[-1]["stream"] == "system"


@general
async def test_an_app_that_ends_before_it_listens_fails_with_its_status_and_last_words(
    on: Bench, subject: Subject
) -> None:
    # standard output and standard error are two pipes: without the pause their order would be a matter of luck
    files = {"app.py": "import sys, time\nprint('reading config')\ntime.sleep(0.3)\nsys.exit('no config')"}
    with pytest.raises(RunFailed) as failed:
        await subject.start(on, subject.driver(on), subject.run(on, files))
    assert failed.value.error_code == "StartFailed"
    assert "no config" in failed.value.message
    assert failed.value.exit is not None
    assert failed.value.exit.code == 1
    assert [line for line in failed.value.exit.tail if line in ("reading config", "no config")]
    assert await gone(on) == []


@general_and_pods
async def test_an_app_that_ends_at_once_without_an_error_is_told_what_a_web_app_does(
    on: Bench, subject: Subject
) -> None:
    with pytest.raises(RunFailed) as failed:
        await subject.start(on, subject.driver(on), subject.run(on, {"app.py": "print('done')"}))
    assert failed.value.error_code == "StartFailed"
    assert "PORT" in (failed.value.hint or "")


@general_and_pods
async def test_an_app_that_never_listens_times_out(on: Bench, subject: Subject) -> None:
    run = subject.run(on, {"app.py": "import time; time.sleep(60)"}, timeout_s=1)
    with pytest.raises(RunFailed) as failed:
        await subject.start(on, subject.driver(on), run)
    assert failed.value.error_code == "StartTimeout"
    assert await gone(on) == []


GUNICORN = Start(("python3", "-m", "gunicorn", "-b", "0.0.0.0:8080", "--threads", "8", "app:app"))
WSGI = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"served"]
"""


@general
async def test_a_master_that_listens_before_its_workers_have_loaded_the_app_is_not_ready(
    on: Bench, subject: Subject
) -> None:
    files = {"app.py": "import time\ntime.sleep(1.5)\nprint('loaded', flush=True)\n" + WSGI}
    app = await subject.start(on, subject.driver(on), subject.run(on, files, start=GUNICORN))
    assert "loaded" in app.texts("stdout")
    assert (await app.get()).body == "served"


@general
@pytest.mark.parametrize(
    ("server", "told"),
    [
        ("import os\nos.environ['API_TOKEN']", "the app needs the environment variable API_TOKEN"),
        ("import nothing_that_exists", "the app needs the Python module 'nothing_that_exists'"),
    ],
    ids=["variable", "module"],
)
async def test_what_a_worker_needs_is_told_although_its_master_listened(
    on: Bench, subject: Subject, server: str, told: str
) -> None:
    with pytest.raises(RunFailed) as failed:
        await subject.start(on, subject.driver(on), subject.run(on, {"app.py": server}, start=GUNICORN))
    assert failed.value.message.startswith(told)
    assert failed.value.exit is not None
    assert await gone(on) == []


CLUSTER = """
const cluster = require("node:cluster"), http = require("node:http");
if (cluster.isPrimary) {
  cluster.fork(); cluster.fork();
  cluster.on("exit", () => { @EXIT@ });
} else {
  http.createServer((request, response) => response.end("served")).listen(process.env.PORT, () => { @LISTENS@ });
}
"""


def _cluster(on: Bench, subject: Subject, listens: str, then: str = "cluster.fork();") -> tuple[Subject, Run]:
    """An app on Node whose primary accepts connections for its workers, and what these do once they listen."""
    runtime = Runtime("general", "node-24", "node", "s.js", "test", start=Start(("node", "s.js")))
    subject = replace(subject, template="node-24", runtime=runtime)
    return subject, subject.run(on, {"s.js": CLUSTER.replace("@LISTENS@", listens).replace("@EXIT@", then)})


@general
@pytest.mark.parametrize("then", ["cluster.fork();", ""], ids=["others-follow", "no-one-follows"])
async def test_a_cluster_whose_workers_end_when_they_listen_is_a_failed_start(
    on: Bench, subject: Subject, then: str
) -> None:
    subject, run = _cluster(on, subject, "throw new Error('no licence file');", then)
    with pytest.raises(RunFailed) as failed:
        await subject.start(on, subject.driver(on), run)
    assert failed.value.error_code == "StartFailed"
    assert "no licence file" in failed.value.message
    assert await gone(on) == []


@general
async def test_a_cluster_is_ready_when_one_of_its_workers_serves(on: Bench, subject: Subject) -> None:
    subject, run = _cluster(on, subject, "if (cluster.worker.id === 1) throw new Error('only this one');")
    app = await subject.start(on, subject.driver(on), run)
    assert (await app.get()).body == "served"


@general
async def test_an_app_that_listens_and_never_serves_times_out_with_that(on: Bench, subject: Subject) -> None:
    files = {"app.py": "import socket, time\ns = socket.create_server(('', 8080))\ntime.sleep(60)"}
    with pytest.raises(RunFailed) as failed:
        await subject.start(on, subject.driver(on), subject.run(on, files, timeout_s=1))
    assert failed.value.error_code == "StartTimeout"
    assert "listens on port 8080, but no process of it took a connection" in failed.value.message


@general
async def test_the_pages_are_served_although_another_port_opens_first(on: Bench, subject: Subject) -> None:
    files = {
        "app.py": """
import http.server, threading, time
class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.wfile.write(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + self.server.name)
def serve(port, name):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Pages)
    server.name = name
    server.serve_forever()
threading.Thread(target=serve, args=(9100, b"metrics"), daemon=True).start()
time.sleep(1)
serve(5000, b"pages")
"""
    }
    start = Start(("python3", "app.py"), expected_ports=(5000,))
    app = await subject.start(on, subject.driver(on), subject.run(on, files, start=start))
    assert (await app.get()).body == "pages"
    assert app.started.port == 5000
    assert app.started.note.startswith("listens on 5000 and 9100: 5000 is served, since ")
    assert any("5000 is served" in text for text in app.texts("system"))


@general_and_pods
async def test_a_missing_module_is_named(on: Bench, subject: Subject) -> None:
    with pytest.raises(RunFailed) as failed:
        await subject.start(on, subject.driver(on), subject.run(on, {"app.py": "import somethingelse.part"}))
    assert failed.value.error_code == "DependenciesMissing"
    assert "'somethingelse'" in failed.value.message


@general_and_pods
async def test_a_missing_variable_is_named(on: Bench, subject: Subject) -> None:
    with pytest.raises(RunFailed) as failed:
        await subject.start(on, subject.driver(on), subject.run(on, {"app.py": "import os; os.environ['API_URL']"}))
    assert "API_URL" in failed.value.message


@general_and_pods
async def test_an_app_that_ends_later_is_told_by_wait(on: Bench, subject: Subject) -> None:
    app = await subject.start(on, subject.driver(on))
    with contextlib.suppress(Exception):
        await app.ask("print('goodbye', flush=True), os._exit(7)")
    ended = await asyncio.wait_for(app.sandbox.wait(), 10)
    assert ended.code == 7
    assert "goodbye" in ended.tail
    assert await gone(on) == []


async def test_a_worker_that_does_not_load_is_rejected_with_its_error(on: Bench) -> None:
    driver = workerd.driver(on)
    for code, told in {
        "throw new Error('no database'); export default { fetch() {} }": "no database",
        "export default { fetch( {": "SyntaxError",
        "export default { scheduled() {} }": "no fetch handler",
        "import x from 'node:nonsense'; export default { fetch() {} }": "node:nonsense",
    }.items():
        with pytest.raises(RunFailed, match=told) as failed:
            await workerd.start(on, driver, workerd.run(on, {"worker.js": code}))
        assert failed.value.error_code == "WorkerRejected"
    assert await gone(on) == []


async def test_an_error_in_a_worker_is_a_500_with_its_stack_in_the_log(on: Bench) -> None:
    app = await workerd.start(on, workerd.driver(on))
    answer = await app.get("/throw")
    assert answer.status == 500
    assert "thrown on purpose" not in answer.body
    assert (await app.get("/later")).body == "ok"
    await asyncio.sleep(0.3)
    assert any("thrown on purpose" in text for text in app.texts("stderr"))
    assert any("worker.js:" in text for text in app.texts("stderr"))
    assert "done later" in app.texts("stdout")


# Taking over


@supervised
async def test_a_later_controller_takes_over_what_runs_and_what_is_warm(on: Bench, subject: Subject) -> None:
    first = subject.driver(on)
    app = await subject.start(on, first, replace(subject.run(on), layer="ab" * 32))
    warm = await subject.boot(on, first)
    await first.close()
    assert (await app.get()).body == "hello world"

    later = subject.driver(on)
    found = {sandbox.id: sandbox for sandbox in await later.adopt()}
    on.sandboxes += found.values()
    assert set(found) == {app.sandbox.id, warm.id}
    running = found[app.sandbox.id]
    assert running.state is State.RUNNING
    assert running.claimed == app.sandbox.claimed
    assert running.claimed is not None
    assert running.claimed.layer == "ab" * 32
    assert running.endpoint == app.started.endpoint
    assert (await app.get()).body == "hello world"

    again = await subject.start(on, later, sandbox=found[warm.id])
    assert (await again.get()).body == "hello world"
    await asyncio.gather(running.drain(5), again.sandbox.drain(5))
    assert await gone(on) == []


@supervised
async def test_what_died_between_controllers_is_cleared_away(on: Bench, subject: Subject) -> None:
    first = subject.driver(on)
    app = await subject.start(on, first)
    await subject.boot(on, first)
    await first.close()
    for folder in on.layout.sandboxes.iterdir():
        os.kill(int(json.loads((folder / "state.json").read_text())["pid"]), signal.SIGKILL)
    later = subject.driver(on)
    assert list(await later.adopt()) == []
    assert not app.socket.exists()
    assert await gone(on) == []


@general
async def test_a_run_that_its_controller_did_not_see_through_is_not_taken_over(on: Bench, subject: Subject) -> None:
    first = subject.driver(on)
    run = subject.run(on, {"app.py": "import time; time.sleep(60)"})
    starting = asyncio.create_task(subject.start(on, first, run))
    await eventually(lambda: "starting" in states(on))
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting
    await first.close()
    assert list(await subject.driver(on).adopt()) == []
    assert await gone(on) == []


async def test_drivers_take_over_only_their_own(on: Bench) -> None:
    first = workerd.driver(on)
    warm = await workerd.boot(on, first)
    await first.close()
    assert list(await SUBJECTS["gvisor"].driver(on).adopt()) == []
    found = await workerd.driver(on).adopt()
    on.sandboxes += found
    assert [sandbox.id for sandbox in found] == [warm.id]


# Sudden deaths


@supervised
async def test_a_killed_supervisor_takes_its_sandbox_with_it_and_nothing_is_left(on: Bench, subject: Subject) -> None:
    app = await subject.start(on, subject.driver(on))
    os.kill(supervisor_pid(on, app.sandbox), signal.SIGKILL)
    ended = await asyncio.wait_for(app.sandbox.wait(), 15)
    assert (ended.code, ended.signal) == (None, None)
    assert app.sandbox.state is State.EXITED
    assert not app.socket.exists()
    assert await gone(on) == []
    last = app.log()[-1]
    assert last["stream"] == "system"
    assert "supervisor" in last["text"]
    assert [line["seq"] for line in app.log()] == list(range(1, len(app.log()) + 1))


@supervised
async def test_a_killed_sandbox_ends_with_its_signal_and_nothing_is_left(on: Bench, subject: Subject) -> None:
    app = await subject.start(on, subject.driver(on))
    os.kill(command_pid(on, app.sandbox), signal.SIGKILL)
    ended = await asyncio.wait_for(app.sandbox.wait(), 15)
    assert ended.signal == "SIGKILL"
    assert not ended.oom
    assert await gone(on) == []


@supervised
async def test_a_warm_sandbox_that_dies_is_noticed(on: Bench, subject: Subject) -> None:
    sandbox = await subject.boot(on, subject.driver(on))
    os.kill(command_pid(on, sandbox), signal.SIGKILL)
    await asyncio.wait_for(sandbox.wait(), 15)
    assert sandbox.state is State.EXITED
    with pytest.raises(SandboxLost):
        await subject.start(on, subject.driver(on), sandbox=sandbox)
    assert await gone(on) == []


# Bounds


@supervised
async def test_too_much_memory_ends_that_sandbox_only(on: Bench, subject: Subject) -> None:
    on.roots.limits = Limits(cpus=2.0, memory_mb=160, pids=128, disk_mb=16)
    driver = subject.driver(on)
    hog, other = await subject.start(on, driver), await subject.start(on, driver)
    with contextlib.suppress(Exception):
        if subject.general:
            await hog.ask("state.setdefault('x', [bytearray(4 << 20) for _ in range(200)]) and 'filled'")
        else:
            await hog.get("/fill")
    ended = await asyncio.wait_for(hog.sandbox.wait(), 20)
    assert ended.oom
    assert "memory" in ended.describe()
    assert (await other.get()).body == "hello world"
    assert any("memory" in text for text in hog.texts("system"))


@general
async def test_a_fork_bomb_hits_its_own_bound_and_nobody_else(on: Bench, subject: Subject) -> None:
    driver = subject.driver(on)
    run = subject.run(on, limits=Limits(cpus=2.0, memory_mb=256, pids=40, disk_mb=64))
    bomb, other = await subject.start(on, driver, run), await subject.start(on, driver)
    bomb_code = """import os, time
n = 0
try:
    while n < 300:
        if not os.fork():
            time.sleep(30)
            os._exit(0)
        n += 1
except OSError as error:
    print(n, error.errno, flush=True)
"""
    # one line is read and the bomb left as it is: whoever is asked next is asked beside it
    told = await bomb.ask(
        f"__import__('subprocess').Popen(['python3', '-c', {bomb_code!r}], stdout=-1, text=True).stdout.readline()"
    )
    count, number = told.split()
    assert int(count) < 40
    assert number == "11"
    assert (await other.get()).body == "hello world"
    assert (await bomb.ask("1 + 1")) == "2"


@general
async def test_processes_of_an_app_share_memory_and_locks(on: Bench, subject: Subject) -> None:
    app = await subject.start(on, subject.driver(on))
    assert await app.ask("__import__('multiprocessing').Value('B', 7).value") == "7"
    assert await app.ask("__import__('multiprocessing').Lock().acquire()") == "True"
    told = await app.ask("[open('/dev/shm/big', 'ab').write(b'x' * (1 << 20)) for _ in range(100)]")
    assert "[Errno 28]" in told, "it is bounded"


@general
async def test_a_full_disk_is_an_error_in_the_app_and_nobody_else_notices(on: Bench, subject: Subject) -> None:
    driver = subject.driver(on)
    app, other = await subject.start(on, driver), await subject.start(on, driver)
    for place in ("/app", "/tmp", "/home/app"):
        told = await app.ask(f"[open('{place}/big', 'ab').write(b'x' * (1 << 20)) for _ in range(100)]")
        assert "[Errno 28]" in told
        await app.ask(f"os.remove('{place}/big')")
    assert await other.ask("open('/app/f', 'wb').write(b'x' * (8 << 20))") == str(8 << 20)
    assert app.sandbox.state is State.RUNNING


@general
async def test_a_source_that_does_not_fit_is_refused(on: Bench, subject: Subject) -> None:
    run = subject.run(on, {"app.py": "", "big": b"\0" * (80 << 20)})
    with pytest.raises(RunFailed) as failed:
        await subject.start(on, subject.driver(on), run)
    assert failed.value.error_code == "DiskFull"


async def test_a_worker_that_never_yields_is_ended(on: Bench) -> None:
    app = await workerd.start(on, workerd.driver(on))
    spinning = asyncio.create_task(app.get("/spin"))
    ended = await asyncio.wait_for(app.sandbox.wait(), 30)
    assert ended.signal == "SIGKILL"
    assert any("yield" in text for text in app.texts("system"))
    with contextlib.suppress(Exception):
        await spinning


# Endings


@general_and_pods
async def test_an_app_that_ignores_sigterm_is_killed_after_the_grace(on: Bench, subject: Subject) -> None:
    files = {"app.py": "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + dict(subject.files)["app.py"]}
    app = await subject.start(on, subject.driver(on), subject.run(on, files))
    await asyncio.wait_for(app.sandbox.destroy(0.5), 15)
    assert app.sandbox.exit is not None
    assert app.sandbox.exit.signal == "SIGKILL"
    assert await gone(on) == []


@supervised_and_pods
async def test_draining_lets_an_open_request_finish(on: Bench, subject: Subject) -> None:
    app = await subject.start(on, subject.driver(on))
    slow = asyncio.create_task(app.ask("time.sleep(0.7) or 'slow'") if subject.general else _body(app.get("/slow")))
    await asyncio.sleep(0.2)
    await app.sandbox.drain(10)
    assert await slow == "slow"
    assert await gone(on) == []


@supervised
async def test_kept_connections_move_to_the_sandbox_that_takes_over(on: Bench, subject: Subject) -> None:
    driver = subject.driver(on)
    old = await subject.start(on, driver, subject.run(on, env={"GREETING": "old"}))
    new = await subject.start(on, driver, subject.run(on, env={"GREETING": "new"}))
    kept = [await KeptConnection.open(old.started.endpoint) for _ in range(3)]
    assert [await connection.get("/") for connection in kept[:2]] == ["hello old", "hello old"]
    await asyncio.sleep(0.05)
    await old.sandbox.hand_over(new.sandbox)
    for _ in range(2):
        assert [await connection.get("/") for connection in kept] == ["hello new"] * 3
    await old.sandbox.drain(5)
    assert [await connection.get("/") for connection in kept] == ["hello new"] * 3, "the old one is gone, they are not"
    await new.sandbox.drain(5)
    for connection in kept:
        connection.writer.close()
    assert await gone(on) == []


@supervised
async def test_connections_stay_when_the_sandbox_that_should_take_them_has_ended(on: Bench, subject: Subject) -> None:
    driver = subject.driver(on)
    old = await subject.start(on, driver, subject.run(on, env={"GREETING": "old"}))
    new = await subject.start(on, driver, subject.run(on, env={"GREETING": "new"}))
    kept = await KeptConnection.open(old.started.endpoint)
    os.kill(supervisor_pid(on, new.sandbox), signal.SIGKILL)
    await new.sandbox.wait()
    with pytest.raises(HeirUnreachable):
        await old.sandbox.hand_over(new.sandbox)
    await old.sandbox.hand_over(None)
    assert await kept.get("/") == "hello old"
    kept.writer.close()
    os.kill(supervisor_pid(on, old.sandbox), signal.SIGKILL)
    await old.sandbox.wait()
    with pytest.raises(SandboxLost):
        await old.sandbox.hand_over(None)


@supervised
async def test_one_whose_supervisor_is_stopped_is_ended_without_waiting_for_it(
    on: Bench, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever hangs in it can do nothing but come again."""
    monkeypatch.setattr(supervised_sandbox, "_HAND_OVER_S", 0.2)
    driver = subject.driver(on)
    old, new = [await subject.start(on, driver) for _ in range(2)]
    stop(supervisor_pid(on, old.sandbox))
    with pytest.raises(SandboxLost):
        await old.sandbox.hand_over(new.sandbox)
    async with asyncio.timeout(9):
        await old.sandbox.destroy()
    assert old.sandbox.exit is not None
    assert (await new.get()).body == "hello world"


async def _body(answer: Awaitable[Answer]) -> str:
    return (await answer).body


# Claims that bring mounts


@general
async def test_a_claim_brings_a_layer_and_data_into_a_warm_sandbox(on: Bench, subject: Subject) -> None:
    driver = subject.driver(on)
    sandbox = await subject.boot(on, driver)

    content, image = on.scratch / "layer", on.scratch / "layer.erofs"
    content.mkdir()
    (content / "module.py").write_text("WORD = 'layered'")
    await make_image(image, content)
    data = on.scratch / "data"
    data.mkdir()
    data.chmod(0o777)
    (data / "before").write_text("kept")

    mounts = (Mount(image, "/layers/deps"), Mount(data, "/data", writable=True))
    app = await subject.start(on, driver, subject.run(on, mounts=mounts), sandbox)
    assert await app.ask("sys.path.append('/layers/deps') or __import__('module').WORD") == "layered"
    for attempt in ("open('/layers/deps/x', 'w')", "open('/layers/deps/module.py', 'w')", "os.mkdir('/layers/y')"):
        assert "Error" in await app.ask(attempt)
    assert (content / "module.py").read_text() == "WORD = 'layered'"

    assert await app.ask("open('/data/before').read()") == "kept"
    assert await app.ask("open('/data/after', 'w').write('new')") == "3"
    await sandbox.destroy()
    assert (data / "after").read_text() == "new"
    assert await gone(on) == []


@general_and_pods
async def test_a_start_command_may_be_shell(on: Bench, subject: Subject) -> None:
    run = subject.run(on, start=Start(shell="export GREETING=shell; exec python3 app.py"))
    app = await subject.start(on, subject.driver(on), run)
    assert (await app.get()).body == "hello shell"


NETWORK = "fake pods share one network, and their apps its ports"
CONTAINER = (
    "a fake pod has an agent, and no container: what that and its RuntimeClass do is tests/cluster/test_on_a_node.py"
)
WORKER = "it is of the driver workerd; pods of workers are in tests/cluster/test_agent_sandbox.py"
WARM = (
    "a sandbox has no pod before its run claims one; who comes after another is in tests/cluster/test_agent_sandbox.py"
)
KILLED = "it finds the supervisor by its folder; pods and agents that end are in tests/cluster/test_agent_sandbox.py"
ADDRESS = "a name leads to an address for each run, so no connection moves: tests/contract/test_router_pods.py"
ONE_PIPE = "of two pipes, the line of one was once missing here; of one, it is in tests/cluster/test_agent_sandbox.py"
NOT_OVER_PODS = {
    "test_a_run_does_not_depend_on_what_was_prepared_for_it": NETWORK,
    "test_the_probe_runs_something_real_and_names_its_level": "its own probe is in tests/cluster/test_agent_sandbox.py",
    "test_an_app_has_its_environment_and_nothing_of_ours": CONTAINER,
    "test_a_worker_has_its_environment_and_nothing_of_ours": WORKER,
    "test_an_app_runs_as_its_own_user_in_its_source": CONTAINER,
    "test_an_app_finds_the_address_of_its_own_machine": NETWORK,
    "test_two_sandboxes_do_not_see_each_other_nor_the_host": CONTAINER,
    "test_a_worker_reaches_neither_the_host_nor_its_files": WORKER,
    "test_every_sandbox_has_uids_of_its_own": WORKER,
    "test_a_master_that_listens_before_its_workers_have_loaded_the_app_is_not_ready": NETWORK,
    "test_what_a_worker_needs_is_told_although_its_master_listened": NETWORK,
    "test_a_cluster_whose_workers_end_when_they_listen_is_a_failed_start": CONTAINER,
    "test_a_cluster_is_ready_when_one_of_its_workers_serves": CONTAINER,
    "test_an_app_that_ends_before_it_listens_fails_with_its_status_and_last_words": ONE_PIPE,
    "test_an_app_that_listens_and_never_serves_times_out_with_that": NETWORK,
    "test_the_pages_are_served_although_another_port_opens_first": NETWORK,
    "test_a_worker_that_does_not_load_is_rejected_with_its_error": WORKER,
    "test_an_error_in_a_worker_is_a_500_with_its_stack_in_the_log": WORKER,
    "test_a_later_controller_takes_over_what_runs_and_what_is_warm": WARM,
    "test_what_died_between_controllers_is_cleared_away": KILLED,
    "test_a_run_that_its_controller_did_not_see_through_is_not_taken_over": KILLED,
    "test_drivers_take_over_only_their_own": "it is of the drivers of one machine, which share a folder",
    "test_a_killed_supervisor_takes_its_sandbox_with_it_and_nothing_is_left": KILLED,
    "test_a_killed_sandbox_ends_with_its_signal_and_nothing_is_left": KILLED,
    "test_a_warm_sandbox_that_dies_is_noticed": WARM,
    "test_too_much_memory_ends_that_sandbox_only": CONTAINER,
    "test_a_fork_bomb_hits_its_own_bound_and_nobody_else": CONTAINER,
    "test_processes_of_an_app_share_memory_and_locks": CONTAINER,
    "test_a_full_disk_is_an_error_in_the_app_and_nobody_else_notices": CONTAINER,
    "test_a_source_that_does_not_fit_is_refused": CONTAINER,
    "test_a_worker_that_never_yields_is_ended": WORKER,
    "test_kept_connections_move_to_the_sandbox_that_takes_over": ADDRESS,
    "test_connections_stay_when_the_sandbox_that_should_take_them_has_ended": ADDRESS,
    "test_one_whose_supervisor_is_stopped_is_ended_without_waiting_for_it": KILLED,
    "test_a_claim_brings_a_layer_and_data_into_a_warm_sandbox": "a pod gets layers from the bucket, and takes no data",
}
"""What is not asked of `agent-sandbox` here, and why."""


def test_every_behaviour_is_asked_of_pods_too_or_says_why_not() -> None:
    asked, others = set(), set()
    for name, test in globals().items():
        if name.startswith("test_") and (marks := getattr(test, "pytestmark", [])) is not None:
            subjects = [one for mark in marks if mark.name == "parametrize" for one in mark.args[1]]
            (asked if PODS in subjects else others).add(name)
    assert others - {"test_every_behaviour_is_asked_of_pods_too_or_says_why_not"} == NOT_OVER_PODS.keys()
    assert len(asked) >= 14


def states(on: Bench) -> list[str]:
    """What the supervisors on a bench say of themselves."""
    return [json.loads(file.read_text())["state"] for file in on.layout.sandboxes.glob("s*/state.json")]


async def eventually(true: Callable[[], bool], deadline_s: float = 10.0) -> None:
    """Wait until something is so."""
    for _ in range(int(deadline_s / 0.02)):
        if true():
            return
        await asyncio.sleep(0.02)
    assert true()


async def make_image(image: Path, content: Path) -> None:
    """An EROFS layer, as gVisor needs it."""
    argv = ["mkfs.erofs", "--quiet", "-E", "noinline_data", "--all-root", str(image), str(content)]
    process = await asyncio.create_subprocess_exec(*argv)
    assert await process.wait() == 0


def _descendants(pid: int) -> set[int]:
    """All processes below one, without it."""
    found: set[int] = set()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found |= {int(child)} | _descendants(int(child))
    return found
