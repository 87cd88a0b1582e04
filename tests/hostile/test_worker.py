"""Hostile workers: each test says what the attacker tries. Its program is apps/worker/worker.js.

What esbuild is asked to put into a bundle is in test_bundling.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.contract.driver_kit import SUBJECTS, Running, bench
from tests.hostile.ground import HOST_SECRET, SECRET, City, Ground, log_of, processes_of, program
from vibed.sandboxes.driver import Limits, RunFailed

pytestmark = [pytest.mark.root, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

WORKER = SUBJECTS["workerd"]
NEIGHBOUR = "export default { fetch: (request, env) => new Response(`hello ${env.GREETING}`) }"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory, city: City) -> AsyncIterator[Ground]:
    async with bench(tmp_path_factory.mktemp("workerd")) as on:
        secret = on.layout.runtime / "host-secret"
        secret.write_text(HOST_SECRET)
        secret.chmod(0o644)
        driver = WORKER.driver(on)
        env = {"GREETING": "neighbour", "SECRET": SECRET}
        files = {"worker.js": NEIGHBOUR, "public/secret.txt": SECRET}
        run = WORKER.run(on, files, app="neighbour", env=env, options={"assets": {"directory": "public"}})
        yield Ground(on, WORKER, driver, city, await WORKER.start(on, driver, run), secret)


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def nobody_else_notices(ground: Ground) -> AsyncIterator[None]:
    yield
    await ground.unharmed()


async def start(ground: Ground, **options: Any) -> Running:
    """A hostile worker of its own."""
    files = {**program("worker"), "public/index.html": "the attacker's page", "hidden/own.txt": "own"}
    run = WORKER.run(ground.on, files, app="hostile", env={"GREETING": "evil"}, **options)
    return await WORKER.start(ground.on, ground.driver, run)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(ground: Ground) -> Running:
    return await start(
        ground, options={"assets": {"directory": "public", "binding": "ASSETS", "run_worker_first": True}}
    )


async def attack(app: Running, name: str, *arguments: Any, within_s: float = 60) -> Any:
    async with asyncio.timeout(within_s):
        answer = await app.get(f"/{name}?{urllib.parse.quote(json.dumps(arguments))}")
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


async def test_files_of_the_host_of_the_shim_and_of_other_apps_cannot_be_read(ground: Ground, shared: Running) -> None:
    paths = [*ground.host_paths(), "/etc/passwd", "/shim/shim.js", "/shim/shim.capnp", "/workerd", "/lib/libc.so.6",
             "/assets/site/index.html", "/proc/self/environ", "/proc/1/mem", "/proc/self/maps", "/dev/urandom",
             "../../../etc/passwd", "./shim.js", "shim"]  # fmt: skip
    found = await attack(shared, "files", paths)
    # workerd's own virtual /dev and /tmp, which are nothing of the host's
    assert {name: text for name, text in found.items() if not name.endswith(" /dev/urandom")} == {}


async def test_host_services_the_metadata_address_and_the_network_cannot_be_reached(
    ground: Ground, shared: Running
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = [server.getsockname()[1], ground.city.vibed.port]
        hosts = ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "169.254.169.254", "1.1.1.1", "example.com"]
        urls = [f"http://{host}:{port}/" for host in hosts for port in ports]
        urls += [f"https://{host}/" for host in hosts] + [
            "http://main/",
            "http://admin/",
            "http://files/site/index.html",
        ]
        assert await attack(shared, "fetches", urls) == {}
        places = [(host.strip("[]"), port) for host in hosts[:5] for port in ports]
        assert await attack(shared, "sockets", places, within_s=120) == {}


async def test_the_sockets_of_vibed_of_other_apps_and_its_own_admin_socket_cannot_be_reached(
    ground: Ground, shared: Running
) -> None:
    sockets = ground.host_sockets()
    assert any("admin.sock" in path for path in sockets)
    assert await attack(shared, "unix", sockets[:40], within_s=150) == {}


async def test_no_module_of_the_runtime_opens_a_way_out(shared: Running) -> None:
    names = ["workerd:unsafe", "workerd:unsafe-eval", "workerd:workerd", "cloudflare-internal:sockets",
             "cloudflare-internal:workers", "node-internal:internal_process", "node-internal:fs", "internal:unsafe",
             "shim", "shim.js", "/shim/shim.js", "pyodide:python-entrypoint-helper"]  # fmt: skip
    assert await attack(shared, "modules", names) == {}


async def test_no_program_no_thread_and_no_evaluated_text_can_be_run(ground: Ground, shared: Running) -> None:
    found = await attack(shared, "programs")
    # a stub of workerd's, which does nothing: nothing listens afterwards
    found.pop("inspector", None)
    assert found == {}
    pid = processes_of(ground.uids(shared.sandbox))[0]
    for name in ("tcp", "tcp6", "udp"):
        table = Path(f"/proc/{pid}/net/{name}").read_text()
        assert len(table.splitlines()) == 1


async def test_the_worker_sees_its_own_bindings_and_nothing_of_the_shim(ground: Ground, shared: Running) -> None:
    seen = await attack(shared, "seen")
    assert sorted(seen["env"]) == ["ASSETS", "GREETING"]
    assert set(seen["workers"]) <= {"ASSETS", "GREETING"}
    assert set(seen["process"]) <= {"GREETING", "ASSETS"}
    assert set(seen["exports"]) <= {"default", "VibedInspect"}
    assert seen["globals"] == []
    told = json.dumps(seen)
    assert not [mark for mark in ground.marks() if mark in told]


async def test_variables_named_like_prototypes_pollute_nothing(ground: Ground) -> None:
    names = json.loads('{"__proto__": {"polluted": 1}, "constructor": "x", "prototype": {"polluted": 1}, "A": "b"}')
    app = await start(ground, options={"vars": names})
    seen = await attack(app, "seen")
    assert seen["polluted"] is None
    assert "A" in seen["env"]
    await app.sandbox.destroy(0)


async def test_flags_that_would_unlock_the_runtime_are_not_passed_on_or_unlock_nothing(ground: Ground) -> None:
    flags = [
        "experimental",
        "unsafe_module",
        "nodejs_compat_v2",
        "enable_ctx_exports",
        "service_binding_extra_handlers",
    ]
    try:
        app = await start(ground, options={"compatibility_flags": flags})
    except RunFailed as refused:
        assert refused.error_code == "WorkerRejected"
        return
    assert await attack(app, "modules", ["workerd:unsafe", "internal:unsafe"]) == {}
    assert set((await attack(app, "seen"))["exports"]) <= {"default", "VibedInspect"}
    assert await attack(app, "fetches", ["http://files/site/index.html", "http://127.0.0.1/"]) == {}
    await app.sandbox.destroy(0)


async def test_paths_that_climb_out_of_the_assets_find_nothing(shared: Running) -> None:
    paths = ["/../../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/shim/shim.js", "//etc/passwd",
             "/..\\..\\etc\\passwd", "/%00", "/index.html%00.txt", "/../hidden/own.txt", "/../worker.js", "/worker.js",
             "/__proto__", "/constructor", "/toString", "/hasOwnProperty.html"]  # fmt: skip
    assert await attack(shared, "assets", paths) == {}
    assert await attack(shared, "assets", ["/"]) == {"/": "the attacker's page"}


@pytest.mark.parametrize("folder", ["../..", "/", "/etc", "..", "public/../../..", "public/../../sb", "~", "public\0"])
async def test_an_assets_folder_outside_of_the_source_is_refused(ground: Ground, folder: str) -> None:
    with pytest.raises(RunFailed) as refused:
        await start(ground, options={"assets": {"directory": folder, "binding": "ASSETS"}})
    assert refused.value.error_code == "InjectFailed"


@pytest.mark.parametrize(
    "specifier",
    ["/etc/passwd", "../../../../../../etc/passwd", "file:///etc/passwd", "/shim/shim.js", "data:text/javascript,1",
     "http://127.0.0.1/x.js", "__vibed_main__.js", "./__vibed_main__.js"],
)  # fmt: skip
async def test_imports_that_lead_out_of_the_source_are_rejected(ground: Ground, specifier: str) -> None:
    code = f"import * as x from '{specifier}'; export default {{ fetch: () => Response.json(x) }}"
    try:
        app = await WORKER.start(ground.on, ground.driver, WORKER.run(ground.on, {"worker.js": code}, app="hostile"))
    except RunFailed as refused:
        assert refused.error_code in ("WorkerRejected", "BundleFailed", "DependenciesMissing")
        return
    body = (await app.get()).body
    assert "root:" not in body
    assert "LOADER" not in body
    await app.sandbox.destroy(0)


@pytest.mark.parametrize("what", ["heap", "buffers", "wasm", "strings", "scratch"])
async def test_memory_without_end_ends_that_worker_alone(ground: Ground, what: str) -> None:
    app = await start(ground, limits=Limits(cpus=2.0, memory_mb=160, pids=128, disk_mb=16))
    with contextlib.suppress(Exception):
        await attack(app, what, 2_000, within_s=45)
    ended = False
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(app.sandbox.wait(), 20)
        ended = True
    # a heap that is full may be an error in the worker instead of its end; then it has to answer again
    assert ended or (await app.get()).status in (200, 500, 503)
    await app.sandbox.destroy(0)


@pytest.mark.parametrize("what", ["spin", "regex"])
async def test_a_worker_that_never_yields_is_ended_by_the_watchdog(ground: Ground, what: str) -> None:
    app = await start(ground)
    spinning = asyncio.create_task(attack(app, what))
    await asyncio.sleep(0.3)
    await ground.unharmed()
    ended = await asyncio.wait_for(app.sandbox.wait(), 60)
    assert ended.signal == "SIGKILL"
    assert any("yield" in line["text"] for line in log_of(app) if line["stream"] == "system")
    with contextlib.suppress(Exception):
        await spinning


async def test_deep_recursion_many_timers_and_work_that_never_ends_hold_nobody_up(
    shared: Running, ground: Ground
) -> None:
    assert await attack(shared, "recursion") == "RangeError"
    with contextlib.suppress(AssertionError):
        await attack(shared, "timers")
    assert await attack(shared, "later") == "waiting"
    app = await start(ground)
    assert await attack(app, "later") == "waiting"
    await asyncio.wait_for(app.sandbox.destroy(1), 60)


async def test_floods_endless_lines_and_forged_lines_stay_lines_of_the_app_within_the_logs_bounds(
    ground: Ground,
) -> None:
    app = await start(ground)
    await attack(app, "forged")
    with contextlib.suppress(Exception):
        await attack(app, "flood", 20_000)
        await attack(app, "line", 8)
    await ground.unharmed()
    await asyncio.sleep(1.2)
    lines = log_of(app)
    assert sum(path.stat().st_size for path in app.log_dir.iterdir()) <= 9 << 20
    assert [line["seq"] for line in lines] == list(range(lines[0]["seq"], lines[0]["seq"] + len(lines)))
    assert not [line for line in lines if line["stream"] == "system" and "forged" in line["text"]]
    assert any("forged by structure" in line["text"] for line in lines) or lines[0]["seq"] > 1
    await app.sandbox.destroy(0)
