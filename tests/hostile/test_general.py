"""Hostile apps of the general lane, on every driver that runs them: each test says what the attacker tries.

After every test the neighbour in the sandbox next door and a complete vibeD with its apps are asked whether they still
work. The attacker's programs are in `apps/general/attacks`.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import platform
import socket
import tarfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.contract.driver_kit import GENERAL_APP, SUBJECTS, bench
from tests.contract.test_drivers import make_image
from tests.hostile.ground import HOST_SECRET, QUICK, SECRET, City, Ground, log_of, processes_of, program
from vibed.sandboxes.driver import Limits, Mount, RunFailed

pytestmark = [pytest.mark.root, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]
x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of the calls are those of x86-64")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["gvisor", "process"])
async def ground(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, city: City
) -> AsyncIterator[Ground]:
    subject = SUBJECTS[request.param]
    scratch = tmp_path_factory.mktemp(request.param)
    async with bench(scratch) as on:
        on.roots.limits = QUICK
        secret = on.layout.runtime / "host-secret"
        secret.write_text(HOST_SECRET)
        secret.chmod(0o644)
        driver = subject.driver(on)
        files = {"app.py": GENERAL_APP, "secret.txt": SECRET}
        env = {"GREETING": "neighbour", "SECRET": SECRET}
        neighbour = await subject.start(on, driver, subject.run(on, files, app="neighbour", env=env, limits=QUICK))
        await neighbour.ask(f"open('/tmp/secret', 'w').write({SECRET!r})")
        yield Ground(on, subject, driver, city, neighbour, secret)


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def nobody_else_notices(ground: Ground) -> AsyncIterator[None]:
    yield
    await ground.unharmed()


# Files of others


async def test_reading_files_of_the_host_and_of_other_apps_gets_nothing(ground: Ground) -> None:
    attacker = await ground.attacker()
    paths = ground.host_paths()
    got = await attacker.attack("files", "read", [path for path in paths if path not in ("/root", "/home", "/boot")])
    foreign = {path: text for path, text in got.items() if not path.endswith(("/var/log", "/var/lib/dpkg/status"))}
    assert foreign == {}
    own = await attacker.attack("files", "read", ["/root", "/home", "/boot", "/var/log", "/etc"])
    assert all(str(ground.on.layout.home) not in text and HOST_SECRET not in text for text in own.values())


async def test_searching_the_whole_tree_finds_no_name_or_content_of_others(ground: Ground) -> None:
    attacker = await ground.attacker()
    assert await attacker.attack("files", "search", ground.marks()) == []


async def test_the_kernels_own_tables_do_not_tell_where_the_host_keeps_things(ground: Ground) -> None:
    attacker = await ground.attacker()
    host = [name for name in (socket.gethostname(),) if len(name) > 6]
    assert await attacker.attack("files", "kernel_tells", [*ground.marks(), *host]) == []


async def test_links_that_the_app_makes_lead_to_nothing_of_others(ground: Ground) -> None:
    attacker = await ground.attacker()
    targets = [str(ground.host_secret), "../" * 20 + str(ground.host_secret).lstrip("/"), "/proc/1/root/etc/shadow",
               "/run/vibed/../../" + str(ground.host_secret).lstrip("/"), "/proc/1/environ", "/proc/1/mem"]  # fmt: skip
    assert await attacker.attack("files", "follow_links", targets, [HOST_SECRET, SECRET, "root:"]) == {}


async def test_writing_to_the_root_the_kernels_settings_and_the_agents_directory_is_refused(ground: Ground) -> None:
    attacker = await ground.attacker()
    places = ["/", "/etc", "/etc/passwd", "/usr", "/usr/bin/python3", "/usr/lib/vibed", "/usr/lib/vibed/vibed-agent",
              "/etc/vibed", "/etc/ld.so.preload", "/etc/hosts", "/run/etc", "/run/etc/hosts",
              "/run", "/run/vibed", "/run/vibed/agent.sock", "/run/vibed/app.sock",
              "/layers", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory",
              "/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger", "/proc/1/oom_score_adj", "/proc/acpi",
              "/sys", "/sys/fs/cgroup", "/sys/kernel/uevent_helper", "/dev", "/dev/null.x", "/dev/sda",
              "/dev/mem", "/dev/kmsg"]  # fmt: skip
    assert await attacker.attack("files", "write", places) == []


async def test_writing_to_a_layer_is_refused_and_changes_nothing_for_others(ground: Ground) -> None:
    content, image = ground.on.scratch / "layer", ground.on.scratch / "layer.erofs"
    content.mkdir()
    (content / "module.py").write_text("WORD = 'layered'")
    (content / "module.py").chmod(0o666)
    content.chmod(0o777)
    await make_image(image, content)
    before = image.read_bytes()
    attacker = await ground.fresh(mounts=(Mount(image, "/layers/deps"),))
    assert await attacker.attack("files", "read", ["/layers/deps/module.py"])
    assert await attacker.attack("files", "write", ["/layers", "/layers/deps", "/layers/deps/module.py"]) == []
    assert image.read_bytes() == before
    await attacker.sandbox.destroy(0)


async def test_there_are_no_setuid_files_and_no_devices_and_none_can_be_made(ground: Ground) -> None:
    attacker = await ground.attacker()
    found = await attacker.attack("files", "special_files")
    assert [one for one in found if one.startswith(("device", "made"))] == []
    # what Debian ships setuid is there, and worth nothing: every mount is nosuid, and so is every process
    assert await attacker.attack("processes", "become_root") == []
    assert set(await attacker.attack("machine_code", "setuid_program")) <= {"1000", "errno 1", "errno 13"}


# Processes, the agent


async def test_other_sandboxes_and_the_hosts_processes_cannot_be_seen(ground: Ground) -> None:
    attacker = await ground.attacker()
    seen = await attacker.attack("processes", "uids")
    told = json.dumps(seen)
    assert not [mark for mark in ground.marks() if mark in told]
    assert {uid for uid, _ in seen.values()} <= {0, 1000}
    assert "supervise" not in told
    assert len(seen) < 12


async def test_the_agents_memory_environment_descriptors_and_life_are_out_of_reach(ground: Ground) -> None:
    attacker = await ground.attacker()
    got = await attacker.attack("processes", "agent")
    if ground.subject.name == "gvisor":
        # gVisor lets everybody read the position and flags of a descriptor, and nothing more of it
        assert got.pop("fdinfo/3", "pos").count("pos") == 1
    assert got == {}


async def test_nothing_of_the_agent_is_inherited(ground: Ground) -> None:
    attacker = await ground.attacker()
    descriptors = await attacker.attack("processes", "inherited")
    # the server's own listening socket and connection are the only ones
    assert all(target.startswith(("socket:", "/proc/", "anon_inode:", "/app")) for target in descriptors.values())
    assert len(descriptors) <= 8
    status = await attacker.attack("processes", "status")
    assert status["Uid"].split() == ["1000"] * 4
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb") if status[name]} == {0}
    assert status["Groups"] is None or status["Groups"].split() in ([], ["1000"])


async def test_the_environment_holds_no_token_and_no_path_of_the_host(ground: Ground) -> None:
    attacker = await ground.attacker()
    environment = await attacker.app.ask("dict(os.environ)")
    assert not [mark for mark in [*ground.marks(), "VIBED", "KEY", "TOKEN"] if mark in environment]


async def test_the_agents_socket_refuses_the_app_by_whatever_name(ground: Ground) -> None:
    attacker = await ground.attacker()
    own = [
        "/run/vibed/agent.sock",
        "/run/vibed/app.sock",
        "/app/../run/vibed/agent.sock",
        "/proc/1/cwd/run/vibed/agent.sock",
    ]
    assert await attacker.attack("network", "unix", own) == []


# Other sockets, the network


async def test_the_sockets_of_vibed_and_of_other_apps_cannot_be_reached(ground: Ground) -> None:
    attacker = await ground.attacker()
    sockets = ground.host_sockets()
    assert any("controller.sock" in path for path in sockets)
    assert any("ctl.sock" in path for path in sockets)
    assert any("api.sock" in path for path in sockets)
    assert await attacker.attack("network", "unix", sockets) == []
    assert await attacker.attack("network", "every_unix_socket") == []


async def test_services_on_the_hosts_loopback_cannot_be_reached(ground: Ground) -> None:
    attacker = await ground.attacker()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0hostile-" + ground.on.layout.runtime.name)
        abstract.listen()
        port = server.getsockname()[1]
        addresses = [(host, p) for host in ("127.0.0.1", "::1", "0.0.0.0", "localhost", "127.0.0.2", "::ffff:127.0.0.1",
                     socket.gethostname()) for p in (port, ground.city.vibed.port, 22, 2019)]  # fmt: skip
        assert await attacker.attack("network", "tcp", addresses) == []
        assert await attacker.attack("network", "unix", ["hostile-" + ground.on.layout.runtime.name]) == []


async def test_the_metadata_service_the_network_and_names_cannot_be_reached(ground: Ground) -> None:
    attacker = await ground.attacker()
    places = [("169.254.169.254", 80), ("fd00:ec2::254", 80), ("100.100.100.200", 80), ("168.63.129.16", 80),
              ("1.1.1.1", 53), ("8.8.8.8", 443), ("10.0.0.1", 80), ("172.17.0.1", 80), ("192.168.0.1", 80)]  # fmt: skip
    assert await attacker.attack("network", "tcp", places) == []
    assert await attacker.attack("network", "udp", [place for place in places if "." in place[0]]) == []
    assert await attacker.attack("network", "names") == {}
    assert await attacker.attack("network", "interfaces") in ([], ["lo"])


async def test_raw_packet_and_exotic_sockets_are_refused(ground: Ground) -> None:
    attacker = await ground.attacker()
    made = await attacker.attack("network", "sockets")
    # gVisor's own kernel has such a socket and never says anything on it
    assert [one for one in made if (ground.subject.name, one) != ("gvisor", "uevent")] == []
    assert await attacker.attack("network", "change_routes") == []


# The kernel


@x86
async def test_calls_that_exploits_are_made_of_are_refused(ground: Ground) -> None:
    attacker = await ground.attacker()
    said = await attacker.attack("kernel", "calls")
    succeeded = {name for name, answer in said.items() if isinstance(answer, int) and answer >= 0}
    if ground.subject.name == "gvisor":
        # gVisor's own kernel answers, the host's never sees the call: user namespaces there are of its making, and
        # what they allow is shown to be worth nothing by the next test
        succeeded -= {"unshare user", "unshare all", "mlockall", "personality addr_no_randomize", "keyctl join session",
                      "setpriority of pid 1", "sched_setscheduler fifo", "syslog read"}  # fmt: skip
    assert succeeded - {"mlockall"} == set(), said


@x86
async def test_a_user_namespace_with_all_capabilities_opens_nothing(ground: Ground) -> None:
    attacker = await ground.attacker()
    assert await attacker.attack("kernel", "namespace_then", str(ground.host_secret)) == []


@x86
async def test_the_other_system_call_tables_of_the_machine_do_not_get_past_the_filter(ground: Ground) -> None:
    attacker = await ground.attacker()
    said = await attacker.attack("kernel", "foreign_abi")
    assert 0 not in said.values(), said


async def test_code_in_anonymous_memory_runs_as_nobody_but_the_app(ground: Ground) -> None:
    attacker = await ground.attacker()
    if platform.machine() == "x86_64":
        assert await attacker.attack("machine_code", "executable_memory") == 42
    assert await attacker.attack("machine_code", "program_in_memory", ["-u"]) == "1000"
    assert await attacker.attack("machine_code", "program_in_memory", ["-G"]) == "1000"


async def test_the_hosts_name_and_start_are_not_told(ground: Ground) -> None:
    attacker = await ground.attacker()
    name = await attacker.app.ask("os.uname().nodename, __import__('socket').gethostname()")
    assert socket.gethostname() not in name
    if ground.subject.name == "gvisor":
        assert platform.release() not in await attacker.app.ask("os.uname(), open('/proc/version').read()")
        assert Path("/proc/sys/kernel/random/boot_id").read_text().strip() not in await attacker.app.ask(
            "[open(p).read() for p in ['/proc/sys/kernel/random/boot_id'] if os.path.exists(p)]"
        )


# Taking all of something


async def test_a_fork_bomb_ends_at_its_bound(ground: Ground) -> None:
    attacker = await ground.fresh(limits=Limits(cpus=2.0, memory_mb=1024, pids=40, disk_mb=16))
    count, number = await attacker.attack("bombs", "fork", 300)
    assert count < 40
    assert number == 11
    await attacker.sandbox.destroy(0)


async def test_a_fork_bomb_that_never_stops_can_be_destroyed_and_leaves_nothing(ground: Ground) -> None:
    attacker = await ground.fresh(limits=Limits(cpus=0.5, memory_mb=256, pids=40, disk_mb=16))
    with contextlib.suppress(Exception):
        await attacker.attack("bombs", "fork_for_ever", within_s=20)
    await ground.unharmed()
    folder = ground.on.layout.sandboxes / attacker.sandbox.id
    uids = ground.uids(attacker.sandbox)
    await asyncio.wait_for(attacker.sandbox.destroy(0.5), 60)
    assert not folder.exists()
    assert processes_of(uids) == []


async def test_threads_and_descriptors_end_at_their_bounds(ground: Ground) -> None:
    attacker = await ground.fresh(limits=Limits(cpus=1.0, memory_mb=192, pids=64, disk_mb=16))
    assert await attacker.attack("bombs", "threads", 2_000) < 70
    assert await attacker.attack("bombs", "descriptors", 50_000) <= 4096
    await attacker.sandbox.destroy(0)


async def test_memory_beyond_the_bound_ends_the_attacker_alone(ground: Ground) -> None:
    attacker = await ground.fresh(limits=Limits(cpus=2.0, memory_mb=128, pids=64, disk_mb=16))
    with contextlib.suppress(Exception):
        await attacker.attack("bombs", "memory", 2_000)
    ended = await asyncio.wait_for(attacker.sandbox.wait(), 60)
    assert ended.oom
    assert any("memory" in text for text in attacker.app.texts("system"))


async def test_files_in_memory_and_empty_files_are_bounded_in_every_writable_place(ground: Ground) -> None:
    attacker = await ground.fresh()
    places = [
        "/app",
        "/tmp",
        "/home/app",
        "/data",
        "/dev/shm",
        "/dev",
        "/run",
        "/run/etc",
        "/run/vibed",
        "/layers",
        "/var",
    ]
    fit = await attacker.attack("bombs", "tmpfs", places, 200)
    disk = QUICK.disk_mb << 20
    assert {place: size for place, size in fit.items() if size > disk} == {"/dev/shm": fit["/dev/shm"]} or all(
        size <= disk for size in fit.values()
    ), fit
    assert fit["/dev/shm"] <= 64 << 20
    assert {place for place, size in fit.items() if size} <= {"/app", "/tmp", "/home/app", "/data", "/dev/shm"}
    await attacker.attack("bombs", "unfill", places)
    assert (await attacker.app.ask("1 + 1")) == "2"
    await attacker.sandbox.destroy(0)


async def test_a_bomb_in_a_zip_file_fills_only_the_attackers_disk(ground: Ground) -> None:
    attacker = await ground.fresh()
    size, end = await attacker.attack("bombs", "zip_bomb", "/app")
    assert size < 1 << 20
    assert end == 28
    await attacker.sandbox.destroy(0)


async def test_empty_files_and_kernel_buffers_without_end_are_bounded(ground: Ground) -> None:
    attacker = await ground.fresh()
    with contextlib.suppress(AssertionError, ConnectionError, asyncio.IncompleteReadError, TimeoutError):
        assert await attacker.attack("bombs", "inodes", "/tmp", 20_000) <= 20_000
        await attacker.attack("bombs", "socket_buffers", 1_500)
    await asyncio.wait_for(attacker.sandbox.destroy(0), 60)


async def test_burning_every_core_leaves_the_neighbour_its_share(ground: Ground) -> None:
    attacker = await ground.fresh(limits=Limits(cpus=0.5, memory_mb=192, pids=64, disk_mb=16))
    burning = asyncio.create_task(attacker.attack("bombs", "spin", 1.5))
    await asyncio.sleep(0.5)
    await ground.unharmed()
    assert await burning == "spun"
    await attacker.sandbox.destroy(0)


# Logs


async def test_a_flood_of_lines_an_endless_line_and_binary_stay_within_the_logs_bounds(ground: Ground) -> None:
    attacker = await ground.attacker()
    before = log_of(attacker.app)[-1]["seq"]
    await attacker.attack("floods", "lines", 30_000)
    await attacker.attack("floods", "endless_line", 16)
    await attacker.attack("floods", "binary", 8)
    await ground.unharmed()
    await asyncio.sleep(1.2)
    folder = attacker.app.log_dir
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 9 << 20
    lines = log_of(attacker.app)
    assert lines[-1]["seq"] > before
    assert [line["seq"] for line in lines] == list(range(lines[0]["seq"], lines[0]["seq"] + len(lines)))
    assert all(len(line["text"].encode()) <= 3 * (16 << 10) for line in lines)
    assert any("dropped" in line["text"] or "not kept" in line["text"] for line in lines if line["stream"] == "system")
    assert (await attacker.app.ask("1 + 1")) == "2"


async def test_a_line_in_vibeds_own_format_stays_a_line_of_the_app(ground: Ground) -> None:
    attacker = await ground.fresh()
    await attacker.attack("floods", "forged")
    await _eventually(lambda: any("separators" in line["text"] for line in log_of(attacker.app)))
    lines = log_of(attacker.app)
    assert not [line for line in lines if line["stream"] == "system"]
    assert len([line for line in lines if "forged" in line["text"]]) == 4
    await attacker.sandbox.destroy(0)


# Endings


async def test_processes_that_ignore_sigterm_and_hide_in_sessions_end_with_the_sandbox(ground: Ground) -> None:
    attacker = await ground.fresh()
    assert await attacker.attack("deaf", "hide", 5) == 5
    await attacker.app.ask("[__import__('signal').signal(s, __import__('signal').SIG_IGN) for s in (1, 2, 15)]")
    uids = ground.uids(attacker.sandbox)
    assert len(processes_of(uids)) > 5
    await asyncio.wait_for(attacker.sandbox.destroy(1), 60)
    assert processes_of(uids) == []


async def test_a_child_that_hangs_and_requests_without_an_answer_do_not_hold_the_agent(ground: Ground) -> None:
    attacker = await ground.fresh()
    hanging = [asyncio.create_task(attacker.app.ask("time.sleep(600)")) for _ in range(30)]
    await attacker.app.ask("__import__('subprocess').Popen(['sleep', '600']).pid")
    await asyncio.sleep(0.3)
    assert await asyncio.wait_for(attacker.app.ask("1 + 1"), 30) == "2"
    assert (await attacker.sandbox.requests())["open"] >= 30  # type: ignore[attr-defined]
    await asyncio.wait_for(attacker.sandbox.destroy(0.5), 60)
    for one in hanging:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(one, 10)


async def test_killing_every_process_that_it_may_ends_only_the_app_itself(ground: Ground) -> None:
    attacker = await ground.fresh()
    with contextlib.suppress(Exception):
        await attacker.app.ask("os.kill(-1, 9)")
    with contextlib.suppress(Exception):
        await attacker.app.ask("os.kill(os.getpid(), 9)")
    ended = await asyncio.wait_for(attacker.sandbox.wait(), 60)
    assert ended.signal == "SIGKILL"


# What comes in


async def test_headers_that_are_too_large_and_requests_that_are_none_do_not_reach_or_stop_the_app(
    ground: Ground,
) -> None:
    attacker = await ground.attacker()
    endpoint = str(attacker.app.started.endpoint.path)
    for raw in (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * (4 << 20) + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 200_000 + b"\r\n",
        b"\x00" * 65536 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ):
        status = await _raw(endpoint, raw)
        assert status in (b"", b"400", b"431", b"505", b"501", b"413") or not status.startswith(b"2"), status
    assert (await attacker.app.get()).body == "hello evil"


async def test_clients_that_never_finish_their_request_do_not_keep_others_out(ground: Ground) -> None:
    attacker = await ground.attacker()
    endpoint = str(attacker.app.started.endpoint.path)
    slow = [await asyncio.open_unix_connection(endpoint) for _ in range(300)]
    for number, (_, writer) in enumerate(slow):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n")
        # a few reach the app, whose own queue is short
        if number < 4:
            writer.write(b"\r\nx")
    await ground.unharmed()
    assert (await attacker.app.get()).body == "hello evil"
    for _, writer in slow:
        writer.close()


async def test_answers_without_end_with_huge_headers_or_that_are_no_http_hurt_only_their_own_client(
    ground: Ground,
) -> None:
    run = ground.subject.run(ground.on, program("bad_http"), app="hostile", limits=QUICK)
    app = await ground.subject.start(ground.on, ground.driver, run)
    endpoint = str(app.started.endpoint.path)
    for path in ("/headers", "/none", "/informational", "/chunk", "/upgrade"):
        request = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        status = await _raw(endpoint, request)
        assert status in (b"", b"502", b"103") or (path, status) == ("/chunk", b"200"), (path, status)
    for _ in range(5):
        assert (await app.get("/two")).body == "ok"
        assert (await app.get("/")).body == "hello"
    await app.sandbox.destroy(0)


# Sources


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("link", tarfile.SYMTYPE, "/run/vibed"),
        ("link", tarfile.SYMTYPE, "../run/vibed/agent.sock"),
        ("link", tarfile.LNKTYPE, "/etc/passwd"),
        ("device", tarfile.CHRTYPE, ""),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("../run/vibed/agent.sock", tarfile.REGTYPE, ""),
        ("/run/vibed/agent.sock", tarfile.REGTYPE, ""),
    ],
    ids=lambda value: str(value if not isinstance(value, bytes) else "").strip("/"),
)
async def test_a_source_that_plants_something_outside_of_app_is_refused_by_the_agent_itself(
    ground: Ground, name: str, kind: bytes, target: str
) -> None:
    """Past the reader: what the agent would do if vibeD's own checks had a hole."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path, what, to in (("app.py", tarfile.REGTYPE, ""), (name, kind, target), ("link/x", tarfile.REGTYPE, "")):
            member = tarfile.TarInfo(path)
            member.type, member.linkname, member.mode = what, to, 0o4777
            data = GENERAL_APP.encode() if path == "app.py" else b""
            member.size = len(data) if what == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(data) if member.size else None)
    run = ground.subject.run(ground.on, app="hostile", limits=QUICK)
    run.source.with_name("hostile.tar.gz").write_bytes(out.getvalue())
    with pytest.raises(RunFailed) as refused:
        await ground.subject.start(
            ground.on, ground.driver, replace(run, source=run.source.with_name("hostile.tar.gz"))
        )
    assert refused.value.error_code == "InjectFailed"


async def _raw(endpoint: str, data: bytes) -> bytes:
    """The status that raw bytes are answered with; empty when the connection was closed without one."""
    reader, writer = await asyncio.open_unix_connection(endpoint)
    try:
        async with asyncio.timeout(30):
            writer.write(data)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            head = await reader.read(64)
        return head.split()[1] if len(head.split()) > 1 else b""
    except (ConnectionError, TimeoutError):
        return b""
    finally:
        writer.close()


async def _eventually(true: Any, deadline_s: float = 30.0) -> None:
    for _ in range(int(deadline_s / 0.05)):
        if true():
            return
        await asyncio.sleep(0.05)
    assert true()
