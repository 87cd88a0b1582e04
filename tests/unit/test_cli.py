"""The command line against a real API, as a person and as a script use it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import termios
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from api_harness import ADMIN_KEY, Running, listening

from vibed.apps.app import Phase
from vibed.cli.output import printable
from vibed.cli.registry import ENTRIES
from vibed.cli.settings import NoKey, NoSettings, settings


@dataclass
class Cli:
    """Runs `vibed` in a folder of its own."""

    api: Running
    folder: Path
    env: dict[str, str]

    async def start(self, *arguments: str, stdout: int = subprocess.PIPE, **env: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "vibed.cli.main", *arguments,
            cwd=self.folder, env={**self.env, **env}, stdin=subprocess.DEVNULL,
            stdout=stdout, stderr=subprocess.PIPE,
        )  # fmt: skip

    async def __call__(self, *arguments: str, **env: str) -> tuple[int, str, str]:
        process = await self.start(*arguments, **env)
        out, err = await process.communicate()
        assert process.returncode is not None
        assert "Traceback" not in err.decode(), err.decode()
        return process.returncode, out.decode(), err.decode()

    async def json(self, *arguments: str, exit_status: int = 0, **env: str) -> Any:
        status, out, err = await self(*arguments, "--json", **env)
        assert status == exit_status, err + out
        return json.loads(out)


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    folder = tmp_path / "my-app"
    folder.mkdir()
    (folder / "index.html").write_text("hello")
    async with listening(tmp_path / "home", tmp_path / "run", deploy_wait_s=1.0) as api:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VIBED_")}
        env = {**kept, "HOME": str(tmp_path), "VIBED_URL": api.config.api_url, "VIBED_TOKEN": ADMIN_KEY}
        env.pop("XDG_CONFIG_HOME", None)
        yield Cli(api, folder, env)


async def test_deploy_takes_the_folders_name_links_it_and_prints_the_url_alone(cli: Cli) -> None:
    status, out, err = await cli("deploy")
    assert status == 0, err
    assert out.strip() == cli.api.config.app_url("my-app")
    assert "is live" in err and "why:" in err
    link = json.loads((cli.folder / ".vibed" / "app.json").read_text())
    assert (link["app_id"], link["url"]) == ("my-app", cli.api.config.api_url)
    assert (cli.folder / ".vibed" / ".gitignore").read_text() == "*\n"
    assert (await cli.json("deploy"))["version"] == 2


async def test_a_folder_whose_name_cannot_be_an_apps_gets_the_nearest(cli: Cli) -> None:
    folder = cli.folder.rename(cli.folder.with_name("My App 2"))
    cli.folder = folder
    assert (await cli.json("deploy"))["app_id"] == "my-app-2"


async def test_an_unlinked_folder_does_not_overwrite_an_app(cli: Cli) -> None:
    await cli.api.deploy("my-app")
    status, _, err = await cli("deploy")
    assert status == 2
    assert "--update" in err and "--name" in err
    assert (await cli.api.store.get("my-app")).version == 1
    assert not (cli.folder / ".vibed").exists()
    assert (await cli.json("deploy", "--update"))["version"] == 2
    assert (await cli.json("deploy"))["version"] == 3


async def test_a_name_that_somebody_else_has_is_told_so(cli: Cli) -> None:
    await cli.api.deploy("my-app", headers=await cli.api.key("alice"))
    status, _, err = await cli("deploy", "--update")
    assert status == 1
    assert "taken" in err and "--name" in err


async def test_what_the_folder_said_once_is_remembered(cli: Cli) -> None:
    (cli.folder / "index.html").unlink()
    (cli.folder / "web.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    await cli.json("deploy", "--entrypoint", "python3 web.py", "--env", "A=1", "--env", "B=x=y")
    (cli.folder / "web.py").write_text("from flask import Flask\napp = Flask(__name__)\n# more\n")
    await cli.json("deploy", "--env", "A=2")
    two = await cli.api.store.version("my-app", 2)
    assert two.runtime.entrypoint == "python3 web.py"
    assert dict(two.env) == {"A": "2", "B": "x=y"}


async def test_what_is_ignored_stays_at_home(cli: Cli) -> None:
    (cli.folder / ".env").write_text("SECRET=1")
    (cli.folder / ".vibedignore").write_text(".env\n")
    await cli.json("deploy")
    source = (await cli.api.client.get("/v1/apps/my-app/source")).content
    with tarfile.open(fileobj=io.BytesIO(source)) as tar:
        listed = tar.getnames()
    assert "index.html" in listed
    assert ".env" not in listed
    assert not any(name.startswith(".vibed/") for name in listed)


async def test_a_deploy_that_fails_is_exit_status_1_with_its_reason(cli: Cli) -> None:
    cli.api.controller.phase, cli.api.controller.reason = Phase.FAILED, "StartFailed"
    cli.api.controller.message = "KeyError: 'DB'"
    status, out, err = await cli("deploy")
    assert status == 1
    assert out == ""
    assert "StartFailed" in err and "KeyError" in err and "vibed logs my-app" in err


async def test_a_deploy_that_is_accepted_is_waited_for(cli: Cli) -> None:
    cli.api.controller.delay_s = 5

    async def ready_later() -> None:
        while not any(op == "settle" for op, _ in cli.api.controller.calls):
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.5)
        cli.api.controller.delay_s = 0
        await cli.api.link.settle("my-app", 1, timeout_s=1)

    later = asyncio.create_task(ready_later())
    body = await cli.json("deploy")
    await later
    assert (body["phase"], body["serving_version"]) == ("Ready", 1)


async def test_no_wait_returns_when_it_is_accepted(cli: Cli) -> None:
    cli.api.controller.delay_s = 60
    assert (await cli.json("deploy", "--no-wait"))["phase"] == "Pending"


async def test_a_deploy_can_be_looked_at_rolled_back_and_deleted_from_its_folder(cli: Cli) -> None:
    await cli.json("deploy")
    (cli.folder / "index.html").write_text("two")
    await cli.json("deploy")
    assert (await cli.json("status"))["version"] == 2
    assert "my-app" in (await cli("status"))[1]
    assert [item["version"] for item in (await cli.json("versions"))["items"]] == [2, 1]
    assert "serves" in (await cli("versions"))[1]
    assert (await cli.json("rollback", "1"))["version"] == 3
    assert (await cli.json("rollback", "my-app", "2"))["version"] == 4
    assert (await cli.json("redeploy"))["version"] == 5
    assert (await cli("open", "--no-browser"))[1].strip() == cli.api.config.app_url("my-app")
    assert [app["app_id"] for app in (await cli.json("apps"))["items"]] == ["my-app"]
    assert "my-app" in (await cli("apps"))[1]
    status, _, err = await cli("delete")
    assert (status, "--yes" in err) == (2, True)
    assert (await cli("delete", "--yes"))[0] == 0
    assert (await cli.json("apps"))["total"] == 0
    assert (await cli("status"))[0] == 1


async def test_logs_and_events_are_shown(cli: Cli) -> None:
    await cli.json("deploy")
    folder = cli.api.layout.run_log("my-app", 1)
    folder.mkdir(parents=True)
    lines = [
        {"seq": 1, "ts": 1.0, "stream": "stdout", "text": "hello"},
        {"seq": 2, "ts": 2.0, "stream": "stdout", "text": "\x1b]0;evil\x07 title"},
        {"seq": 3, "ts": 3.0, "stream": "system", "text": "exited with status 0"},
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, out, _ = await cli("logs")
    assert out.splitlines()[0] == "hello"
    assert "\x1b" not in out and "\x07" not in out
    assert out.splitlines()[2] == "[vibed] exited with status 0"
    _, out, _ = await cli("logs", "--tail", "1", "--json")
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [3]
    assert "Accepted" in (await cli("events"))[1]
    _, out, _ = await cli("events", "--json")
    assert [json.loads(line)["reason"] for line in out.splitlines()] == ["Accepted", "Serving"]


async def test_followed_logs_go_on_over_a_restart_of_the_api(cli: Cli, tmp_path: Path) -> None:
    await cli.json("deploy")
    folder = cli.api.layout.run_log("my-app", 1)
    folder.mkdir(parents=True)

    def write(seq: int) -> None:
        with (folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"seq": seq, "ts": float(seq), "stream": "stdout", "text": f"line {seq}"}) + "\n")

    write(1)
    process = await cli.start("logs", "-f")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"line 1\n"
    cli.api.stopping.set()
    write(2)
    await asyncio.sleep(0.5)
    cli.api.stopping._event.clear()
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"line 2\n"
    write(3)
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"line 3\n"
    process.send_signal(signal.SIGINT)
    await process.communicate()


async def test_keys_are_made_used_listed_and_revoked(cli: Cli) -> None:
    made = await cli.json("keys", "create", "alice", "--label", "laptop")
    assert (await cli.json("whoami", VIBED_TOKEN=made["secret"]))["owner"] == "alice"
    assert "alice" in (await cli("whoami", VIBED_TOKEN=made["secret"]))[1]
    status, out, _ = await cli("keys", "list")
    assert (status, made["key_id"] in out, made["secret"] in out) == (0, True, False)
    unused = await cli.json("keys", "create", "carol")
    assert (await cli("keys", "list"))[1].splitlines()[2].split()[-2:] == ["never", "-"]
    await cli.api.store.keys_used({unused["key_id"]: time.time() - 7200})
    assert (await cli("keys", "list"))[1].splitlines()[2].split()[-3:] == ["2h", "ago", "-"]
    assert (await cli("keys", "list", VIBED_TOKEN=made["secret"]))[0] == 4
    assert (await cli("keys", "revoke", made["key_id"]))[0] == 0
    assert (await cli("apps", VIBED_TOKEN=made["secret"]))[0] == 4
    status, out, _ = await cli("keys", "create", "bob")
    assert status == 0 and len(out.split()) == 1


async def test_templates_are_listed(cli: Cli) -> None:
    await cli.api.stop_controller()
    listed = await cli.json("templates")
    assert "python-313" in [item["name"] for item in listed["items"]]
    assert (await cli.json("templates", "python-313"))["packages"]
    assert "flask" in (await cli("templates", "python-313"))[1].lower()
    assert (await cli("templates", "nothing"))[0] == 2


async def test_templates_fit_into_the_terminal_and_elsewhere_into_a_line_each(cli: Cli) -> None:
    await cli.api.stop_controller()
    reasons = {item["name"]: item["reason"] for item in (await cli.json("templates"))["items"]}
    _, out, _ = await cli("templates")
    rows = out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == list(reasons)
    assert all(row.endswith(reasons[row.split()[0]]) for row in rows)

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = await cli.start("templates", stdout=theirs, NO_COLOR="1")
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError), os.fdopen(ours, "rb", buffering=0) as terminal:  # EIO at its end (pty(7))
        while piece := await asyncio.to_thread(terminal.read, 65_536):
            text += piece
    assert await process.wait() == 0
    shown = text.decode().splitlines()
    assert max(map(len, shown)) <= 100
    assert " ".join(reasons["base-al2023"].split()[:4]) in "\n".join(shown)


async def test_exit_statuses_tell_scripts_what_happened(cli: Cli) -> None:
    assert (await cli("nonsense"))[0] == 2
    assert (await cli("deploy", "--nonsense"))[0] == 2
    assert (await cli("deploy", "/no/such/folder"))[0] == 2
    assert (await cli("status"))[0] == 2
    assert (await cli("rollback", "x"))[0] == 2
    assert (await cli("deploy", "--env", "novalue"))[0] == 2
    assert (await cli("status", "nothing"))[0] == 1
    assert (await cli("apps", VIBED_URL="http://127.0.0.1:9"))[0] == 3
    body = await cli.json("apps", exit_status=4, VIBED_TOKEN="wrong")
    assert body["code"] == "Unauthorized"
    body = await cli.json("apps", exit_status=3, VIBED_URL="http://127.0.0.1:9")
    assert body["code"] == "Unreachable"


async def test_help_needs_no_vibed(cli: Cli) -> None:
    status, out, _ = await cli("--help", VIBED_URL="", VIBED_TOKEN="")
    assert status == 0
    for entry in ENTRIES:
        assert entry.name in out
        assert (await cli(entry.name, "--help"))[0] == 0, entry.name
    assert (await cli("deplo"))[2].strip().endswith("did you mean `vibed deploy`?")
    assert (await cli("--version"))[1].startswith("vibed ")


# settings


def client_file(home: Path, text: str, mode: int = 0o600) -> None:
    path = home / ".config" / "vibed" / "client.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(mode)


def test_the_environment_comes_first_then_the_file_then_this_machines_vibed(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "VIBED_HOME": str(tmp_path / "vibed")}
    with pytest.raises(NoSettings):
        settings(home)
    (tmp_path / "vibed").mkdir()
    (tmp_path / "vibed" / "admin.key").write_text("local\n")
    local = settings(home)
    assert (local.url, local.token, local.connect) == ("http://localhost:18080", "local", "127.0.0.1:18080")
    client_file(tmp_path, 'url = "https://vibed.example.com/"\ntoken = "kept"\n')
    kept = settings(home)
    assert (kept.url, kept.token) == ("https://vibed.example.com", "kept")
    given = settings({**home, "VIBED_URL": "http://localhost:1", "VIBED_TOKEN": "given"})
    assert (given.url, given.token) == ("http://localhost:1", "given")


def test_a_key_is_not_sent_to_another_url_than_its_own(tmp_path: Path) -> None:
    client_file(tmp_path, 'url = "https://vibed.example.com"\ntoken = "kept"\n')
    home = {"HOME": str(tmp_path), "VIBED_HOME": str(tmp_path / "vibed")}
    with pytest.raises(NoKey):
        settings({**home, "VIBED_URL": "http://evil.example.com"})
    assert settings({**home, "VIBED_URL": "https://vibed.example.com/"}).token == "kept"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_with_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    client_file(tmp_path, 'url = "http://localhost:1"\ntoken = "kept"\n', mode)
    with pytest.raises(NoSettings, match="others can read"):
        settings({"HOME": str(tmp_path)})


@pytest.mark.parametrize("text", ["not toml [", "", 'url = "http://localhost:1"', 'url = "ftp://x"\ntoken = "a"'])
def test_a_file_that_says_nothing_is_refused_by_name(tmp_path: Path, text: str) -> None:
    client_file(tmp_path, text)
    with pytest.raises(NoSettings):
        settings({"HOME": str(tmp_path), "VIBED_HOME": str(tmp_path / "vibed")})


def test_what_could_steer_a_terminal_is_not_printed() -> None:
    assert printable("a\x1b[31m\x07b\u202ec\nd") == "a\ufffd[31m\ufffdb\ufffdc\ufffdd"
    assert printable("a\nb\tc", lines=True) == "a\nb\tc"
