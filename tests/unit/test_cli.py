"""The command line against a real API, as a person and as a script use it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import termios
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from api_harness import ADMIN_KEY, LAYER, Running, listening

from vibed.apps.app import Phase
from vibed.cli.link import project_of
from vibed.cli.main import main
from vibed.cli.output import printable
from vibed.cli.registry import ENTRIES
from vibed.client.api import Client
from vibed.client.connection import Refused
from vibed.client.settings import NoKey, NoSettings, Settings, settings


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
    assert "`vibed deploy --update`" in err and "`vibed deploy --name NAME`" in err
    assert (await cli.api.store.get("my-app")).version == 1
    _, _, err = await cli("deploy", str(cli.folder), "--name", "my-app")
    assert f"`vibed deploy {cli.folder} --name my-app --update`" in err
    assert f"`vibed deploy {cli.folder} --name ANOTHER`" in err
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
    assert body["timings"]["total"] > 1_500, "until it was Ready, and not until the first answer"


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


async def test_what_was_installed_for_apps_is_listed(cli: Cli) -> None:
    assert (await cli.json("layers"))["items"] == []
    cli.api.controller.layers = [
        LAYER,
        {**LAYER, "key": "cd" * 32, "private": True, "packages": dict.fromkeys("abcdef", "1")},
    ]
    assert [item["builds"] for item in (await cli.json("layers"))["items"]] == [1, 1]
    _, out, _ = await cli("layers")
    assert "abababababab" in out and "humanize" in out and "a, b, c, d and 2 more (one source only)" in out
    assert "humanize 4.13.0" in (await cli("layers", "abab"))[1]
    assert (await cli("layers", "00"))[0] == 2


async def test_lists_of_packages_are_made_layers_beforehand_which_can_be_pinned_and_removed(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text("humanize\n")
    (tmp_path / "notes.md").write_text("not sent")
    baked = await cli.json("layers", "bake", str(tmp_path))
    assert [(item["template"], item["state"]) for item in baked["items"]] == [("python-313", "ready")]
    (call,) = [message for op, message in cli.api.controller.calls if op == "bake"]
    assert call["install"]["wanted"] == ["humanize"]
    assert (await cli("layers", "bake", str(tmp_path / "nothing")))[0] == 2
    cli.api.controller.layers = [{**LAYER, "pinned": True}]
    assert "pinned" in (await cli("layers"))[1]
    for command, op in (("unpin", "pin_layer"), ("pin", "pin_layer"), ("remove", "remove_layer")):
        assert (await cli("layers", command, "abab"))[0] == 0
        assert cli.api.controller.calls[-1][0] == op
        assert cli.api.controller.calls[-1][1]["key"] == LAYER["key"]


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


@pytest.mark.parametrize("process", ["controller", "router"])
def test_what_stays_for_months_does_not_hold_the_parser_of_options(process: str, tmp_path: Path) -> None:
    held = "print([one for one in ('typer', 'pydantic', 'rich') if one in sys.modules])"
    run = f"from vibed.cli.main import main; main([{process!r}])"
    code = f"import atexit, sys; atexit.register(lambda: {held}); {run}"
    told = {"VIBED_SUBSTRATE": "kubernetes", "KUBECONFIG": "/nowhere", "VIBED_HOME": str(tmp_path)}
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **told}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (1, "[]"), done.stderr
    assert "no way to a Kubernetes API" in done.stderr


async def test_help_needs_no_vibed(cli: Cli) -> None:
    status, out, _ = await cli("--help", VIBED_URL="", VIBED_TOKEN="")
    assert status == 0
    for entry in ENTRIES:
        assert entry.name in out
        assert (await cli(entry.name, "--help"))[0] == 0, entry.name
    assert (await cli("deplo"))[2].strip().endswith("did you mean `vibed deploy`?")
    assert (await cli("--version"))[1].startswith("vibed ")
    assert (await cli("help", "deploy"))[1] == (await cli("deploy", "--help"))[1]
    assert (await cli("help", "keys", "create"))[1] == (await cli("keys", "create", "--help"))[1]
    assert (await cli("help", "deplo"))[0] == 2


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("list", "`vibed apps`"),
        ("ls", "`vibed apps`"),
        ("rm", "`vibed delete`"),
        ("stop", "`vibed delete` or `vibed down`"),
        ("restart", "`vibed redeploy`"),
    ],
)
def test_what_other_tools_call_a_command_finds_it(said: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([said])
    assert ended.value.code == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err


async def test_an_app_that_is_not_there_hints_at_the_command_that_lists_them(cli: Cli) -> None:
    assert "`vibed apps`" in (await cli("status", "nothing"))[2]


# a build's output


async def test_the_status_tells_that_the_first_request_failed(cli: Cli) -> None:
    await cli.json("deploy")
    assert "was answered" not in (await cli("status"))[1]
    log = cli.api.layout.run_log("my-app", await cli.api.store.next_run("my-app"))
    log.mkdir(parents=True)
    text = "failed before any request succeeded: GET / was answered 500"
    (log / "log.jsonl").write_text(json.dumps({"seq": 1, "ts": 1.0, "stream": "system", "text": text}) + "\n")
    message = next(line for line in (await cli("status"))[1].splitlines() if line.startswith("message"))
    assert message.endswith("GET / was answered 500 before any request succeeded; its log may say why")


async def test_a_builds_output_is_its_projects_app_and_stays_so_when_a_build_clears_it(cli: Cli) -> None:
    def build(text: str) -> None:
        shutil.rmtree(cli.folder / "dist", ignore_errors=True)
        (cli.folder / "dist").mkdir()
        (cli.folder / "dist" / "index.html").write_text(text)

    (cli.folder / "package.json").write_text("{}")
    build("one")
    body = await cli.json("deploy", "dist")
    assert (body["app_id"], body["version"]) == ("my-app", 1)
    build("two")
    body = await cli.json("deploy", "dist")
    assert (body["app_id"], body["version"]) == ("my-app", 2)
    assert (cli.folder / ".vibed" / ".gitignore").read_text() == "*\n"
    assert (await cli.json("status"))["app_id"] == "my-app", "the project's folder means its only output"
    status, _, err = await cli("deploy")
    assert status == 2 and "not linked" in err, "its sources are not the same app unless that is said"
    cli.folder = cli.folder / "dist"
    assert (await cli.json("status"))["version"] == 2
    assert (await cli.json("deploy"))["version"] == 3


async def test_a_link_that_an_earlier_version_left_in_an_output_still_holds(cli: Cli) -> None:
    await cli.api.deploy("dist")
    old = cli.folder / "dist" / ".vibed" / "app.json"
    old.parent.mkdir(parents=True)
    (cli.folder / "dist" / "index.html").write_text("hello")
    old.write_text(json.dumps({"app_id": "dist", "url": cli.api.config.api_url}))
    body = await cli.json("deploy", "dist")
    assert (body["app_id"], body["version"]) == ("dist", 2)
    shutil.rmtree(cli.folder / "dist")
    (cli.folder / "dist").mkdir()
    (cli.folder / "dist" / "index.html").write_text("again")
    assert (await cli.json("deploy", "dist"))["version"] == 3, "and is kept in the project from then on"


@pytest.mark.parametrize(
    ("folder", "project"),
    [
        ("shop", "shop"),
        ("shop/dist", "shop"),
        ("shop/_site", "shop"),
        ("shop/.output/public", "shop"),
        ("shop/assets", "shop/assets"),
        ("code/site", "code"),
        ("code/public", "code/public"),
        ("code/public/dist", "code/public"),
        ("dist", "dist"),
    ],
)
def test_an_outputs_project_is_the_folder_around_it(
    folder: str, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("shop", "code/public"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "package.json").write_text("{}")
    assert project_of(tmp_path / folder) == tmp_path / project


def test_what_is_right_below_the_root_belongs_to_no_project() -> None:
    assert project_of(Path("/nowhere/dist")) == Path("/nowhere/dist")
    assert project_of(Path("/nowhere/www/html")) == Path("/nowhere/www/html")


async def test_a_folder_that_cannot_be_written_says_that_it_will_not_be_remembered(cli: Cli) -> None:
    (cli.folder / ".vibed").write_text("a file")
    status, _, err = await cli("deploy")
    assert status == 0
    assert "deploy with --update" in err
    assert "is live" in err


# what is left out, and what is too much


async def test_what_git_ignores_is_told_with_what_matters_first(cli: Cli) -> None:
    ignored = ["a.log", "b.log", "c.log", "coverage/x", "dist/x", ".env", "__pycache__/x.pyc"]
    for name in ignored:
        (cli.folder / name).parent.mkdir(exist_ok=True)
        (cli.folder / name).write_text("x")
    (cli.folder / ".gitignore").write_text("*.log\n.env\ncoverage\ndist\n__pycache__\n")
    _, out, err = await cli("deploy")
    assert "left out (.gitignore): .env, dist/, a.log, b.log, c.log … (6 in all); e.g. `!dist/` in .vibedignore" in err
    assert out.strip() == cli.api.config.app_url("my-app")
    status, out, err = await cli("deploy", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["left_out"] == {".gitignore": [".env", "a.log", "b.log", "c.log", "coverage/", "dist/"]}
    (cli.folder / ".gitignore").unlink()
    assert "left out" not in (await cli("deploy"))[2]


@pytest.mark.parametrize("rule", ["dist", "dist/*"])
async def test_built_pages_that_git_ignores_are_named_when_they_are_missed(cli: Cli, rule: str) -> None:
    vite = {"scripts": {"build": "vite build"}, "devDependencies": {"vite": "5"}}
    (cli.folder / "package.json").write_text(json.dumps(vite))
    (cli.folder / "index.html").write_text('<script type="module" src="/src/main.tsx"></script>')
    (cli.folder / "src").mkdir()
    (cli.folder / "src" / "main.tsx").write_text("export {}")
    body = await cli.json("deploy", exit_status=1)
    assert body["code"] == "BuildRequired" and ".gitignore" not in body["details"]["hint"]
    (cli.folder / "dist").mkdir()
    (cli.folder / "dist" / "index.html").write_text("built")
    (cli.folder / ".gitignore").write_text(f"{rule}\n")
    body = await cli.json("deploy", exit_status=1)
    assert "dist/ is there and .gitignore leaves it out: `!dist/` in .vibedignore" in body["details"]["hint"]
    (cli.folder / ".vibedignore").write_text("!dist/\n")
    assert (await cli.json("deploy"))["phase"] == "Ready"


async def test_an_installed_package_that_is_missed_is_said_to_be_left_out(cli: Cli) -> None:
    (cli.folder / "index.html").unlink()
    package = {"scripts": {"start": "node server.js"}, "dependencies": {"left-pad-of-ours": "1"}}
    (cli.folder / "package.json").write_text(json.dumps(package))
    (cli.folder / "server.js").write_text(
        "const pad = require('left-pad-of-ours');\nrequire('http').createServer((q, r) => r.end()).listen(8080);\n"
    )
    body = await cli.json("deploy", exit_status=1)
    assert body["code"] == "DependenciesMissing" and "!node_modules/" not in body["details"]["hint"]
    installed = cli.folder / "node_modules" / "left-pad-of-ours"
    installed.mkdir(parents=True)
    (installed / "index.js").write_text("module.exports = 1;")
    body = await cli.json("deploy", exit_status=1)
    assert "node_modules/ was left out: `!node_modules/` in .vibedignore sends it" in body["details"]["hint"]
    (cli.folder / ".vibedignore").write_text("!node_modules/\n")
    cli.api.controller.phase, cli.api.controller.reason = Phase.FAILED, "DependenciesMissing"
    assert "hint: node_modules/" not in (await cli("deploy"))[2]
    (cli.folder / ".vibedignore").unlink()
    (cli.folder / "package.json").write_text('{"scripts": {"start": "node server.js"}}')
    (cli.folder / "server.js").write_text("require('http').createServer((q, r) => r.end()).listen(8080);\n")
    assert "hint: node_modules/ was left out" in (await cli("deploy"))[2]


async def test_private_keys_are_not_sent_and_this_is_said(cli: Cli) -> None:
    (cli.folder / "server.pem").write_text("-----BEGIN PRIVATE KEY-----\nMII\n")
    status, _, err = await cli("deploy")
    assert status == 0
    assert "never sent (private keys and credentials): server.pem" in err


async def test_a_home_folder_is_not_sent_unless_that_is_meant(cli: Cli) -> None:
    home = str(cli.folder)
    status, _, err = await cli("deploy", HOME=home)
    assert status == 2 and "home folder" in err and "--yes" in err
    assert (await cli("deploy", "..", HOME=home))[0] == 2
    assert (await cli("deploy", "/", HOME=home))[0] == 2
    assert (await cli("deploy", "--yes", HOME=home))[0] == 0
    (cli.folder / ".ssh").mkdir()
    assert (await cli("deploy"))[0] == 2
    assert (await cli.json("apps"))["total"] == 1


async def test_a_disk_that_takes_nothing_is_told_as_such(cli: Cli) -> None:
    process = await cli.start("apps", "--json", stdout=os.open("/dev/full", os.O_WRONLY), PYTHONUNBUFFERED="1")
    _, err = await process.communicate()
    assert process.returncode == 1
    assert "Traceback" not in err.decode() and "No space left on device" in err.decode()


async def test_a_folder_that_is_too_large_is_refused_before_it_is_sent(cli: Cli) -> None:
    (cli.folder / "media").mkdir()
    (cli.folder / "media" / "film.mp4").write_bytes(os.urandom(60_000_000))
    body = await cli.json("deploy", exit_status=1)
    assert body["code"] == "TooLarge"
    assert "50 MB" in body["message"]
    assert "film.mp4’ (60 MB)" in body["details"]["hint"]
    assert not cli.api.sources()


async def test_a_refusal_for_its_size_names_what_is_large(tmp_path: Path, cli: Cli) -> None:
    (cli.folder / "film.mp4").write_bytes(os.urandom(1_500_000))
    async with listening(tmp_path / "home2", tmp_path / "run2", max_source_mb=1) as small:
        body = await cli.json("deploy", exit_status=1, VIBED_URL=small.config.api_url)
    assert body["code"] == "BodyTooLarge"
    assert "film.mp4’ (1.5 MB)" in body["details"]["hint"]


async def test_the_largest_source_is_known_before_one_is_sent(cli: Cli) -> None:
    assert await asyncio.to_thread(Client(Settings(cli.api.config.api_url, ADMIN_KEY)).source_limit) == 50_000_000
    assert await asyncio.to_thread(Client(Settings(cli.api.config.api_url, "wrong")).source_limit) is None


async def test_a_refusal_that_comes_early_ends_the_upload() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        text = json.dumps({"code": "BodyTooLarge", "message": "too large", "details": {}}).encode()
        writer.write(b"HTTP/1.1 413 X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text))
        writer.write(text)
        await writer.drain()
        await asyncio.sleep(5)
        writer.close()

    sent = [0]
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        client = Client(Settings(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "key"))
        with tempfile.TemporaryFile() as source:
            source.truncate(100_000_000)
            with pytest.raises(Refused, match="too large"):
                await asyncio.to_thread(client.upload, "/", {}, source, 100_000_000, progress=sent.append)
        server.close()
    assert sent[-1] < 1_000_000


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


async def test_what_was_deployed_can_be_read(cli: Cli) -> None:
    (cli.folder / "a.css").write_text("h1 {}")
    await cli.json("deploy")
    (cli.folder / "a.css").unlink()
    await cli.json("deploy")
    assert (await cli("source"))[1].split() == ["SIZE", "FILE", "5", "B", "index.html"]
    status, out, _ = await cli("source", "a.css", "--version", "1")
    assert (status, out) == (0, "h1 {}")
    listed = await cli.json("source", "--app", cli.api.config.app_url("my-app"), "--version", "1")
    assert [file["path"] for file in listed["files"]] == ["a.css", "index.html"]
    status, _, err = await cli("source", "a.js")
    assert (status, "no file 'a.js'" in err) == (1, True)


async def test_variables_are_set_on_top_of_those_that_are_there(cli: Cli) -> None:
    await cli.json("deploy", "--env", "A=1", "--env", "B=2")
    body = await cli.json("deploy", "--env", "C=3", "--env=-A")
    assert body["env_names"] == ["B", "C"]
    assert "B, C" in (await cli("status"))[1]
