"""Without root: everything that a user who is nobody gets, what they do not get and are told, and nothing left behind.

One vibeD of a uid that no account has, with a home, a runtime directory and a port of its own. Its tools and all images
but one are copies of the tests' own; the image that is left out has to be built, which needs Debian's mirror.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests import prepare
from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import PARTS, free_port
from tests.e2e.unprivileged import (
    UnprivilegedInstance,
    owners_below,
    python_for,
    trouble_with_namespaces,
    unused_uid,
)
from tests.e2e.waiting import eventually
from vibed.processes import start_time

TEMPLATES = ("static-nginx", "workerd", "python-313", "base-debian")
SAMPLES: dict[str, Callable[[object], samples.Files]] = {
    "static-nginx": samples.static,
    "workerd": samples.worker,
    "python-313": samples.python_hello,
}
WHO_AM_I = samples.python_after("import os, sys; print('uid', os.getuid(), open('/proc/version').read(), flush=True)")


@pytest.fixture(scope="module")
def nobody() -> Iterator[UnprivilegedInstance]:
    """A vibeD that was brought up by a user who is not root."""
    if os.geteuid() != 0:
        pytest.skip("only root can become a user that nobody is")
    uid = unused_uid()
    if trouble := trouble_with_namespaces(uid):
        pytest.skip(f"users who are not root can have no namespaces here (see `vibed doctor`): {trouble}")
    python = python_for(uid)
    if python is None:
        pytest.skip("there is no Python of the tests' version that another user than root can run")
    instance = UnprivilegedInstance(
        uid, python, templates=",".join(TEMPLATES), pools="workerd=1,python-313=1,base-debian=0", drain_s="4"
    )
    try:
        instance.up()
        yield instance
    finally:
        left = instance.end()
        left += [f"process {pid}: {text}" for pid, text in instance.processes().items()]
        for pid in instance.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert not left, "a vibeD without root must leave nothing behind:\n" + "\n".join(left)


@pytest.fixture
def apps(request: pytest.FixtureRequest, nobody: UnprivilegedInstance) -> Iterator[Apps]:
    """Apps on it, deleted when their test is over."""
    made = Apps(
        nobody.client, f"t-{request.node.originalname.removeprefix('test_').replace('_', '-')[:36]}".rstrip("-")
    )
    yield made
    made.end()


def _ready(nobody: UnprivilegedInstance, template: str) -> dict[str, Any]:
    return nobody.client.wait_for_template(template, within_s=90)


# It comes up, and says what it cannot


def test_everything_that_vibed_up_starts_runs_as_the_user(nobody: UnprivilegedInstance) -> None:
    started = {**nobody.pids(), "watchdog": nobody.watchdog_pid()}
    assert set(started) == {*PARTS, "watchdog"}
    assert set(started.values()) <= nobody.processes().keys()
    assert nobody.client.api("GET", "/readyz").status_code == 200
    assert nobody.client.visit("welcome").status_code == 200
    apps = json.loads(nobody.run("apps", "--json").stdout)["items"]
    assert "welcome" in [app["app_id"] for app in apps], "the CLI finds URL and key in the user's home"


def test_doctor_names_each_thing_that_is_missing_with_its_cure(nobody: UnprivilegedInstance) -> None:
    done = nobody.run("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    root = findings["root"]
    assert not root["ok"]
    assert "one uid for all sandboxes" in root["detail"]
    assert "sudo" in root["cure"]
    assert findings["namespaces"]["ok"]
    cgroups = findings["cgroups"]
    if not cgroups["ok"]:  # a machine may delegate one to everybody
        assert "not bounded" in cgroups["detail"] or "; not " in cgroups["detail"]
        assert "sudo" in cgroups["cure"]
    assert done.returncode == 0, f"nothing is missing that vibeD cannot work without:\n{done.stdout}"


def test_templates_name_what_does_not_hold_for_their_sandboxes_and_the_cure(nobody: UnprivilegedInstance) -> None:
    items = nobody.client.templates()
    cgroups = next(
        finding
        for finding in json.loads(nobody.run("doctor", "--json").stdout)["findings"]
        if finding["name"] == "cgroups"
    )
    for name in ("workerd", "python-313"):
        told = items[name]["limitations"]
        assert "one uid" in told[0] and "sudo" in told[0]
        assert len(told) == (1 if cgroups["ok"] else 2)
        assert cgroups["ok"] or (cgroups["detail"] in told[1] and cgroups["cure"] in told[1])
    assert items["static-nginx"]["limitations"] == [], "a static site has no sandbox"
    assert "one uid" in nobody.run("templates").stderr


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_isolation_that_is_shown_is_what_the_probe_measured(nobody: UnprivilegedInstance, template: str) -> None:
    shown = _ready(nobody, template)["isolation"]
    driver = {"static-nginx": "static", "workerd": "workerd"}.get(template, "gvisor")
    measured = json.loads((nobody.layout.runtime / "ctl" / "probes.json").read_text())[driver]
    assert shown == measured["isolation"]
    assert shown == {"static": "static", "workerd": "isolate", "gvisor": "kernel"}[driver]
    assert driver == "static" or "ran an app of" in measured["detail"]


# What runs


@pytest.mark.parametrize("template", SAMPLES)
def test_an_app_is_deployed_and_its_url_answers(nobody: UnprivilegedInstance, apps: Apps, template: str) -> None:
    expected = _ready(nobody, template)["isolation"]
    name = apps.ready(SAMPLES[template](1))
    assert "version 1" in nobody.client.visit(name).text
    app = nobody.client.app(name)
    assert (app["runtime"]["template"], app["isolation"]) == (template, expected)


def test_a_python_app_sees_gvisors_kernel_and_a_user_of_its_own(nobody: UnprivilegedInstance, apps: Apps) -> None:
    _ready(nobody, "python-313")
    name = apps.ready(WHO_AM_I)
    said = eventually(lambda: [line["text"] for line in nobody.client.logs(name) if line["stream"] == "stdout"], "log")
    assert said[0].startswith("uid 1000 ")
    assert "gvisor" in said[0].lower()


def test_an_image_is_built_and_is_the_one_that_root_builds(nobody: UnprivilegedInstance, apps: Apps) -> None:
    _ready(nobody, "base-debian")
    ours, roots = (
        json.loads((home / "templates" / "base-debian" / "current" / "manifest.json").read_text())
        for home in (nobody.home, prepare.home())
    )
    if ours["digest"] == roots["digest"]:  # Debian has not changed meanwhile
        assert ours["sha256"] == roots["sha256"]
    name = apps.ready({"start.sh": _SHELL, "Procfile": "web: sh start.sh\n"})
    assert nobody.client.visit(name).text.strip() == "from busybox"
    assert nobody.client.app(name)["runtime"]["template"] == "base-debian"


def test_redeploy_logs_and_rollback_are_as_ever(nobody: UnprivilegedInstance, apps: Apps) -> None:
    _ready(nobody, "python-313")
    client = nobody.client
    name = apps.ready(samples.python_after("print('this is one', flush=True)", version=1))
    first = _alive(nobody.sandbox_of(name)["pid"])
    assert client.deploy_ready(name, samples.python_after("print('this is two', flush=True)", version=2)).number == 2
    assert client.visit(name).text == "version 2\n"
    eventually(lambda: "this is two" in client.log_text(name), "its log has what it said", within_s=10)
    answer = client.ask("POST", f"/v1/apps/{name}/rollback", json={"version": 1})
    assert client.settled(name, answer["version"])["phase"] == "Ready"
    assert client.visit(name).text == "version 1\n"
    versions = client.ask("GET", f"/v1/apps/{name}/versions")["items"]
    assert [(v["version"], v["rolled_back_from"]) for v in versions] == [(3, 1), (2, None), (1, None)]
    eventually(lambda: not _still(first), "nothing of the first sandbox lives", within_s=20)


# What dies comes back


def test_apps_serve_while_the_controller_is_killed_and_deploys_go_on_after(
    nobody: UnprivilegedInstance, apps: Apps
) -> None:
    _ready(nobody, "workerd")
    name = apps.ready(samples.worker(1))
    sandbox = nobody.sandbox_of(name)["id"]
    nobody.kill("controller")
    assert nobody.client.visit(name).text == "version 1\n"
    nobody.wait_until_ready()
    assert nobody.client.visit(name).text == "version 1\n"
    assert nobody.sandbox_of(name)["id"] == sandbox, "the next controller takes it over"
    assert nobody.client.deploy_ready(name, samples.worker(2)).number == 2
    assert nobody.client.visit(name).text == "version 2\n"


@pytest.mark.parametrize("template", ["workerd", "python-313"])
@pytest.mark.parametrize("what", ["supervisor", "sandbox"])
def test_an_app_whose_sandbox_is_killed_comes_back_on_a_new_one(
    nobody: UnprivilegedInstance, apps: Apps, template: str, what: str
) -> None:
    """No group and no uid of its own holds a sandbox together here: only its namespaces do."""
    _ready(nobody, template)
    name = apps.ready(SAMPLES[template](1))
    before = nobody.sandbox_of(name)
    family = _alive(before["pid"])
    assert len(family) > 2
    assert family.keys() <= nobody.processes().keys(), "all of it is the user and nobody else"
    for pid in [before["pid"]] if what == "supervisor" else _children(before["pid"]):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not _still(family), "nothing of the killed sandbox lives", within_s=20)
    eventually(lambda: "version 1" in nobody.client.visit(name).text, "the app serves again", within_s=30)
    after = eventually(lambda: nobody.sandbox_of(name), "it has a sandbox", within_s=10)
    assert after["id"] != before["id"], "a sandbox is never used again"
    eventually(lambda: not Path(before["folder"]).exists(), "the dead sandbox is cleared away", within_s=20)


# What it leaves


def test_all_that_it_made_is_the_users_and_lies_below_home_and_runtime_directory(nobody: UnprivilegedInstance) -> None:
    owners = owners_below(nobody.user_home, nobody.run_dir)
    assert len(owners) > 100
    assert [str(path) for path, uid in owners.items() if uid != nobody.uid] == []
    assert _elsewhere(nobody) == []
    assert "permission denied" not in (nobody.layout.own_logs / "caddy.log").read_text(), "nor did it try elsewhere"


def test_a_folder_below_tmp_that_somebody_else_made_first_is_not_used(nobody: UnprivilegedInstance) -> None:
    """Without XDG_RUNTIME_DIR the sockets lie in /tmp/vibed-<uid>, and whoever owns that could put others there."""
    trap = Path(f"/tmp/vibed-{nobody.uid}")
    trap.mkdir()
    trap.chmod(0o777)
    other = nobody.user_home / "other"
    try:
        env = {"XDG_RUNTIME_DIR": "", "VIBED_HOME": str(other), "VIBED_LISTEN": f"127.0.0.1:{free_port()}"}
        done = nobody.run("up", "--detach", env=env)
        assert done.returncode == 1
        assert f"{trap} belongs to another user" in done.stderr
        assert "XDG_RUNTIME_DIR" in done.stderr
        assert list(trap.iterdir()) == []
    finally:
        trap.rmdir()
        shutil.rmtree(other, ignore_errors=True)


def test_down_ends_every_process_and_up_brings_back_what_is_asked_for(nobody: UnprivilegedInstance, apps: Apps) -> None:
    _ready(nobody, "python-313")
    names = [apps.ready(make(1)) for make in SAMPLES.values()]
    done = nobody.down()
    assert done.returncode == 0, done.stderr
    assert nobody.processes() == {}
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", nobody.port)) != 0
    nobody.up()
    for name in names:
        eventually(lambda n=name: "version 1" in nobody.client.visit(n).text, f"{name} serves", within_s=30)  # type: ignore[misc]


def test_clean_ends_everything_and_leaves_nothing(nobody: UnprivilegedInstance) -> None:
    """The last one: it takes the vibeD of all others away."""
    assert nobody.processes()
    done = nobody.clean()
    assert done.returncode == 0, done.stderr
    assert nobody.processes() == {}
    assert set(owners_below(nobody.user_home, nobody.run_dir)) == {nobody.home.parent, nobody.home.parent.parent}, (
        "the folders that every home has"
    )
    assert _elsewhere(nobody) == []


_SHELL = """
printf 'from busybox\\n' > index.html
exec busybox httpd -f -p "$PORT" -h .
"""


def _elsewhere(nobody: UnprivilegedInstance) -> list[str]:
    """What of this user lies in the folders that are everybody's."""
    found = []
    for place in ("/tmp", "/var/tmp", "/dev/shm", "/run"):
        for path in Path(place).iterdir():
            with suppress(FileNotFoundError):  # somebody else's, and gone
                if path.lstat().st_uid == nobody.uid:
                    found.append(str(path))
    return found


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


def _descendants(pid: int) -> list[int]:
    found = []
    with suppress(OSError):
        for child in _children(pid):
            found += [child, *_descendants(child)]
    return found


def _alive(supervisor: int) -> dict[int, str]:
    """A supervisor and all below it, by pid and start time."""
    return {pid: began for pid in (supervisor, *_descendants(supervisor)) if (began := start_time(pid)) is not None}


def _still(family: dict[int, str]) -> list[int]:
    return [pid for pid, began in family.items() if start_time(pid) == began]
