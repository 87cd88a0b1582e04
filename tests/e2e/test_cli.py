"""The command line, as a person and as a script use it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import CHECKOUT, Instance
from tests.e2e.waiting import eventually


def _folder(into: Path, source: samples.Files) -> Path:
    for name, content in source.items():
        path = into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(content))
    return into


def _json(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}{done.stdout}"
    return json.loads(done.stdout)


def test_from_a_folder_to_a_url_and_back(vibed: Instance, apps: Apps, tmp_path: Path) -> None:
    name = apps.name()
    folder = _folder(tmp_path / name, samples.static(1))

    done = vibed.run("deploy", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"http://{name}.localhost:{vibed.port}"
    assert "is live" in done.stderr
    assert "why:" in done.stderr
    assert "version 1" in vibed.client.visit(name).text

    _folder(folder, samples.static(2))
    assert _json(vibed.run("deploy", "--json", cwd=folder))["version"] == 2
    assert name in [app["app_id"] for app in _json(vibed.run("apps", "--json"))["items"]]
    assert name in vibed.run("apps").stdout
    assert _json(vibed.run("status", "--json", cwd=folder))["phase"] == "Ready"
    assert [v["version"] for v in _json(vibed.run("versions", "--json", cwd=folder))["items"]] == [2, 1]

    assert _json(vibed.run("rollback", "1", "--json", cwd=folder))["version"] == 3
    assert "version 1" in vibed.client.visit(name).text
    assert _json(vibed.run("redeploy", "--json", cwd=folder))["version"] == 4
    assert vibed.run("open", "--no-browser", cwd=folder).stdout.strip() == vibed.client.url(name).rstrip("/")
    assert "Running" in vibed.run("events", name).stdout

    assert vibed.run("delete", name, "--yes").returncode == 0
    assert vibed.client.api("GET", f"/v1/apps/{name}").status_code == 404


def test_what_git_ignores_stays_at_home(vibed: Instance, apps: Apps, tmp_path: Path) -> None:
    folder = _folder(
        tmp_path,
        {
            "index.html": "home",
            ".gitignore": "*.secret\nbuild/\n",
            ".vibedignore": "notes.txt\n!build/\n",
            "a.secret": "x",
            "notes.txt": "x",
            "build/made.js": "made",
            "node_modules/x/index.js": "x",
            ".git/config": "x",
        },
    )
    name = apps.name()
    assert vibed.run("deploy", str(folder), "--name", name).returncode == 0
    for path in ("/a.secret", "/notes.txt", "/node_modules/x/index.js"):
        assert vibed.client.visit(name, path).status_code == 404, path
    assert vibed.client.visit(name, "/build/made.js").text == "made"


def test_a_folder_that_is_not_linked_does_not_overwrite_an_app(vibed: Instance, apps: Apps, tmp_path: Path) -> None:
    name = apps.ready(samples.static(1))
    folder = _folder(tmp_path / "other", samples.static(2))
    done = vibed.run("deploy", "--name", name, cwd=folder)
    assert done.returncode == 2
    assert "--update" in done.stderr
    assert "version 1" in vibed.client.visit(name).text
    assert vibed.run("deploy", "--name", name, "--update", cwd=folder).returncode == 0
    assert "version 2" in vibed.client.visit(name).text


def test_a_version_that_fails_is_exit_status_1_with_its_reason(vibed: Instance, apps: Apps, tmp_path: Path) -> None:
    vibed.client.wait_for_template("python-313")
    folder = _folder(tmp_path, samples.python_after("raise RuntimeError('no luck today')"))
    name = apps.name()
    done = vibed.run("deploy", "--name", name, cwd=folder, timeout_s=120)
    assert done.returncode == 1
    assert "no luck today" in done.stderr
    assert f"vibed logs {name}" in done.stderr
    told = vibed.run("logs", name)
    assert "RuntimeError: no luck today" in told.stdout


def test_logs_follow_until_they_are_interrupted(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("workerd")
    name = apps.ready(
        {"worker.js": "export default { fetch(r) { console.log('seen', r.url); return new Response('ok'); } };"}
    )
    process = subprocess.Popen(
        vibed.command("logs", "-f", name),
        env=vibed.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a test run that was started in the background ignores SIGINT, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        vibed.client.visit(name, "/first")
        lines: list[str] = []
        while not any("/first" in line for line in lines):
            lines.append(process.stdout.readline())
            assert lines[-1], "the stream ended"
        vibed.client.visit(name, "/second")
        while not any("/second" in line for line in lines):
            lines.append(process.stdout.readline())
            assert lines[-1], "the stream ended"
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def test_environment_is_added_to_what_is_there(vibed: Instance, apps: Apps, tmp_path: Path) -> None:
    vibed.client.wait_for_template("workerd")
    folder = _folder(tmp_path, samples.worker(1))
    name = apps.name()
    assert vibed.run("deploy", "--name", name, "-e", "A=1", "-e", "B=x=y", cwd=folder).returncode == 0
    assert vibed.run("deploy", "-e", "A=2", cwd=folder).returncode == 0
    assert vibed.client.visit(name, "/env").json() == {"A": "2", "B": "x=y"}


def test_templates_tell_what_is_in_them(vibed: Instance) -> None:
    found = {item["name"]: item for item in _json(vibed.run("templates", "--json"))["items"]}
    assert {"static-nginx", "workerd", "python-313", "node-24", "go-123", "base-debian", "base-al2023"} <= set(found)
    assert not found["base-al2023"]["available"]
    assert found["base-al2023"]["reason"]
    vibed.client.wait_for_template("python-313")
    one = _json(vibed.run("templates", "python-313", "--json"))
    assert {"flask", "fastapi", "django"} <= {name.lower() for name in one["packages"]}


def test_a_folder_that_is_too_large_is_told_the_limit_through_the_router(
    vibed: Instance, apps: Apps, tmp_path: Path
) -> None:
    (tmp_path / "film.mp4").write_bytes(os.urandom(60_000_000))
    done = vibed.run("deploy", "--name", apps.name(), "--json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    body = json.loads(done.stdout)
    assert body["details"]["limit_bytes"] == 50_000_000
    assert "film.mp4" in body["details"]["hint"]


def test_exit_statuses_tell_scripts_what_happened(vibed: Instance, tmp_path: Path) -> None:
    assert vibed.run("nonsense").returncode == 2
    assert vibed.run("status", "no-such-app").returncode == 1
    nowhere = {"VIBED_URL": "http://localhost:9", "VIBED_TOKEN": "x"}
    assert vibed.run("apps", env=nowhere).returncode == 3
    wrong = {"VIBED_URL": vibed.api_url, "VIBED_TOKEN": "vibed_wrong"}
    done = vibed.run("apps", "--json", env=wrong)
    assert done.returncode == 4
    assert json.loads(done.stdout)["code"] == "Unauthorized"


def test_keys_are_made_used_and_revoked(vibed: Instance) -> None:
    made = _json(vibed.run("keys", "create", "alice", "--json"))
    env = {"VIBED_URL": vibed.api_url, "VIBED_TOKEN": made["secret"]}
    assert _json(vibed.run("whoami", "--json", env=env))["owner"] == "alice"
    assert _json(vibed.run("apps", "--json", env=env))["total"] == 0
    assert vibed.run("keys", "list", env=env).returncode == 4
    assert made["key_id"] in vibed.run("keys", "list").stdout
    assert vibed.run("keys", "revoke", made["key_id"]).returncode == 0
    assert vibed.run("apps", env=env).returncode == 4


def test_the_admin_key_is_for_its_owner_alone(vibed: Instance) -> None:
    assert stat.S_IMODE(vibed.layout.admin_key.stat().st_mode) == 0o600


def test_doctor_examines_and_explains(vibed: Instance) -> None:
    done = vibed.run("doctor", "--json")
    assert done.returncode in (0, 1), done.stderr
    assert json.loads(done.stdout)


def test_up_twice_changes_nothing(vibed: Instance) -> None:
    before = (vibed.pids(), vibed.watchdog_pid())
    facts = vibed.up()
    assert (vibed.pids(), vibed.watchdog_pid()) == before
    assert facts["example_url"] == f"http://welcome.localhost:{vibed.port}"
    assert vibed.client.visit("welcome").status_code == 200
    assert {item["name"] for item in facts["templates"]} >= {"static-nginx", "python-313"}


def test_help_needs_no_vibed(vibed: Instance, tmp_path: Path) -> None:
    for arguments in (["--help"], ["deploy", "--help"], ["version"]):
        done = vibed.run(*arguments, env={"VIBED_HOME": str(tmp_path / "none"), "VIBED_LISTEN": "127.0.0.1:9"})
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_the_curl_of_the_documentation_works(vibed: Instance, apps: Apps, tmp_path: Path) -> None:
    assert shutil.which("curl")
    name = apps.name()
    archive = tmp_path / "source.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", CHECKOUT / "examples" / "static-site", "."], check=True)
    done = subprocess.run(
        [
            "curl", "-sS", "--fail-with-body", "--noproxy", "*", "--resolve", f"localhost:{vibed.port}:127.0.0.1",
            "-H", f"Authorization: Bearer {vibed.admin_key}",
            "-F", f'metadata={{"name": "{name}"}};type=application/json', "-F", f"source=@{archive}",
            f"{vibed.api_url}/v1/deploy",
        ],
        text=True, capture_output=True, check=False, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["phase"] == "Ready"
    assert eventually(lambda: vibed.client.visit(name).status_code == 200, "it is live")
