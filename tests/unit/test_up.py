"""What `vibed up` prints and hands over; bringing it up for real is in tests/e2e."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from vibed.cli import readiness, up, watchdog
from vibed.cli.steps import Steps, UpFailed
from vibed.config import Config
from vibed.layout import Layout, Uids
from vibed.processes import start_time
from vibed.runtimes.tools import Tools


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "home", tmp_path / "run", Uids(os.getuid(), rootless=True))
    layout.home.mkdir()
    layout.admin_key.write_text("vibed_secret\n")
    return layout


def test_each_step_is_one_line_with_its_own_time_and_the_time_since_the_start(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = Steps()
    with steps.step("caddy") as say:
        say("unpacking")
        say("2.11.7")
    with pytest.raises(RuntimeError), steps.step("processes") as say:
        say("waiting for the API")
        raise RuntimeError
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:3] == ["ok", "caddy", "2.11.7"]
    assert "(at " in first and " s" in first
    assert second.split()[:2] == ["FAIL", "processes"]
    assert "waiting for the API" in second


@pytest.mark.parametrize("over_ssh", [True, False])
def test_over_ssh_the_line_that_forwards_the_port_is_printed_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, over_ssh: bool
) -> None:
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    monkeypatch.setenv("SUDO_USER", "ann")
    if over_ssh:
        monkeypatch.setenv("SSH_CONNECTION", "192.0.2.7 52000 192.0.2.1 22")
    template = {
        "name": "workerd", "available": True, "building": False, "reason": "", "isolation": "isolate",
        "ready": 2, "warm_pool_size": 2,
    }  # fmt: skip
    template["limitations"] = ["memory is not bounded; do this"]
    slow = {**template, "name": "python-313", "available": False, "building": True, "reason": "installing packages"}
    facts = {
        "api_url": "http://localhost:18080",
        "example_url": "http://w.localhost:18080",
        "templates": [template, slow],
    }
    up._print(Config(tmp_path), facts)
    said = capsys.readouterr().out
    assert "isolate" in said and "2 of 2 warm" in said
    assert said.count("note: memory is not bounded; do this") == 1, "what concerns every template is said once"
    assert "python-313 will be ready by themselves" in said
    assert "vibed deploy" in said
    assert ("ssh -L 18080:127.0.0.1:18080 ann@192.0.2.1" in said) is over_ssh


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands over to another user")
def test_the_user_who_called_sudo_gets_a_client_file_that_only_they_can_read(
    monkeypatch: pytest.MonkeyPatch, layout: Layout, tmp_path: Path
) -> None:
    home = tmp_path / "ann"
    home.mkdir()
    monkeypatch.setenv("SUDO_USER", "ann")
    monkeypatch.setenv("VIBED_HOME", str(layout.home))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_dir=str(home), pw_uid=12_345, pw_gid=12_345))
    for _ in range(2):
        up._hand_over(Config(layout.home), layout)
    file = home / ".config" / "vibed" / "client.toml"
    assert file.read_text() == 'url = "http://localhost:18080"\ntoken = "vibed_secret"\n'
    assert (file.stat().st_mode & 0o777, file.stat().st_uid) == (0o600, 12_345)
    assert {path.stat().st_uid for path in (file.parent, file.parent.parent)} == {12_345}


def test_an_address_that_is_in_use_is_told_before_anything_is_started(layout: Layout) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = Config(layout.home, listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(UpFailed) as caught:
            up._check(config, layout, Tools(layout.home))
    assert caught.value.hint is not None and "VIBED_LISTEN" in caught.value.hint


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up.shutil, "disk_usage", lambda path: SimpleNamespace(free=up.ROOM - 1))


@pytest.mark.usefixtures("little_room")
def test_a_first_start_needs_room_on_the_disk(layout: Layout) -> None:
    with pytest.raises(UpFailed) as caught:
        up._check(Config(layout.home, listen="127.0.0.1:0"), layout, Tools(layout.home))
    assert "a first start needs 2 GB" in caught.value.message


@pytest.mark.usefixtures("little_room")
def test_with_little_room_what_is_installed_is_started_and_the_room_is_told(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    tools: Any = SimpleNamespace(installed=lambda name: True)
    note = up._check(Config(layout.home, listen="127.0.0.1:0"), layout, tools)
    Steps().note("disk", note)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split()[:5] == ["note", "disk", "only", "2047", "MB"]


def test_with_enough_room_nothing_is_told(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up.shutil, "disk_usage", lambda path: SimpleNamespace(free=up.ROOM))
    assert up._check(Config(layout.home, listen="127.0.0.1:0"), layout, Tools(layout.home)) == ""


@pytest.mark.root
def test_after_a_change_of_uid_base_no_sandbox_of_before_is_left(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home", tmp_path / "run", Uids(200_000_000))
    folder = layout.sandboxes / "sa"
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(
        json.dumps({"driver": "process", "uid": 100_001_024, "template": "python-313", "template_digest": "d"})
    )
    up._change_uids(layout)
    assert not folder.exists()


@pytest.fixture
def never_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Config, Layout]:
    """A vibeD whose processes run, and whose API does not answer."""
    monkeypatch.setattr(readiness, "READY_S", 0.2)
    monkeypatch.setattr(readiness, "SLOW_S", 0.6)
    monkeypatch.setattr(up.installation, "admin_key", lambda layout: "key")
    layout = Layout.of(tmp_path / "home")
    monkeypatch.setattr(up.stopping, "state", lambda layout: tmp_path / "watchdog.json")
    layout.own_logs.mkdir(parents=True)
    _runs(tmp_path, os.getpid())
    return Config(tmp_path / "home", listen="127.0.0.1:1"), layout


def _runs(folder: Path, pid: int) -> None:
    fresh = folder / "watchdog.new"
    fresh.write_text(json.dumps({"controller": (pid, start_time(pid), "")}))
    fresh.rename(folder / "watchdog.json")


def test_processes_that_live_are_waited_for_longer(never_ready: tuple[Config, Layout]) -> None:
    config, layout = never_ready
    with pytest.raises(UpFailed) as caught:
        readiness.wait_ready(config, layout, readiness.OwnLogs(layout), lambda text: None)
    assert caught.value.hint is not None and "goes on trying" in caught.value.hint


def test_processes_that_end_again_and_again_are_not_and_their_last_words_are_told(
    never_ready: tuple[Config, Layout], tmp_path: Path
) -> None:
    config, layout = never_ready
    (layout.own_logs / "controller.log").write_text("of the day before\n")
    logs = readiness.OwnLogs(layout)
    others: list[subprocess.Popen[bytes]] = []

    def says(_: str) -> None:
        if not others:
            others.append(subprocess.Popen(["sleep", "60"]))
            _runs(tmp_path, others[0].pid)
            with (layout.own_logs / "controller.log").open("a") as log:
                log.write("no such device\n")

    try:
        with pytest.raises(UpFailed) as caught:
            readiness.wait_ready(config, layout, logs, says)
    finally:
        others[0].kill()
        others[0].wait()
    assert "no such device" in caught.value.message and "day before" not in caught.value.message
    assert caught.value.hint is not None and "ends again and again" in caught.value.hint


@pytest.mark.parametrize(
    ("app", "page", "fine"),
    [
        ({"phase": "Ready"}, 200, True),
        ({"phase": "Ready"}, 302, True),
        ({"phase": "Ready"}, 404, True),
        ({"phase": "Ready"}, 502, False),
        ({"phase": "Failed"}, 503, True),
        (None, 200, True),
        (None, 404, False),
    ],
)
def test_an_app_that_has_taken_the_examples_name_may_answer_what_it_likes(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, app: dict[str, str] | None, page: int, fine: bool
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/deploy":
            return httpx.Response(200, json={})
        if request.url.path == "/":
            return httpx.Response(page)
        return httpx.Response(404) if app is None else httpx.Response(200, json=app)

    api, visitor = (httpx.Client(transport=httpx.MockTransport(answer), base_url="http://localhost") for _ in range(2))
    monkeypatch.setattr(up, "client", lambda config, layout: api)
    monkeypatch.setattr(up, "_apps", lambda config, layout: visitor)
    failing: Any = contextlib.nullcontext() if fine else pytest.raises(UpFailed, match="does not answer")
    with failing:
        up._welcome(Config(layout.home), layout, lambda text: None)


def test_on_a_full_disk_the_watchdog_that_runs_is_not_ended(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    ended: list[int] = []
    layout.runtime.mkdir(parents=True)
    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(up, "plan", lambda *of, **programs: {"commands": []})
    monkeypatch.setattr(watchdog, "holder", lambda path: 4711)
    monkeypatch.setattr(up.stopping, "end_watchdog", lambda layout, pid, number: ended.append(pid))
    tools: Any = SimpleNamespace(path=Path)
    with pytest.raises(OSError, match="No space"):
        up._start(Config(layout.home), layout, tools, tools.path("caddy"), detach=True)
    assert not ended
