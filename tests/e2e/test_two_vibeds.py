"""Two vibeDs on one machine know nothing of each other."""

from __future__ import annotations

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance


def test_the_same_name_is_two_apps(vibed: Instance, second: Instance, apps: Apps, second_apps: Apps) -> None:
    name = apps.ready(samples.static("one"))
    second.client.deploy_ready(name, samples.static("two"))
    try:
        assert "version one" in vibed.client.visit(name).text
        assert "version two" in second.client.visit(name).text
        second.client.delete(name)
        assert "version one" in vibed.client.visit(name).text
    finally:
        second.client.delete(name)


def test_neither_knows_the_others_keys_or_apps(vibed: Instance, second: Instance, apps: Apps) -> None:
    name = apps.ready(samples.static(1))
    assert second.client.api("GET", f"/v1/apps/{name}").status_code == 404
    stranger = second.client_with(vibed.admin_key)
    assert stranger.api("GET", "/v1/apps").status_code == 401
    stranger.close()


def test_they_share_no_folder_uid_port_or_process(vibed: Instance, second: Instance) -> None:
    assert vibed.layout.runtime != second.layout.runtime
    assert set(vibed.layout.uids.sandboxes).isdisjoint(second.layout.uids.sandboxes)
    assert set(vibed.pids().values()).isdisjoint(second.pids().values())
    assert vibed.port != second.port


def test_one_goes_down_and_up_and_the_other_does_not_notice(
    vibed: Instance, second: Instance, apps: Apps, second_apps: Apps
) -> None:
    vibed.client.wait_for_template("workerd")
    second.client.wait_for_template("workerd")
    here = apps.ready(samples.worker("here"))
    there = second_apps.ready(samples.worker("there"))
    before = vibed.pids()
    assert second.down().returncode == 0
    assert vibed.client.visit(here).text == "version here\n"
    assert vibed.client.deploy_ready(here, samples.worker("still here")).number == 2
    second.up()
    second.wait_until_ready()
    assert second.client.visit(there).text == "version there\n"
    assert vibed.pids() == before


def test_up_on_a_port_that_is_taken_says_so(vibed: Instance, tmp_path: object) -> None:
    done = vibed.run("up", "--detach", env={"VIBED_HOME": f"{tmp_path}/home"}, timeout_s=120)
    assert done.returncode == 1
    assert f"127.0.0.1:{vibed.port}" in done.stderr
    assert "VIBED_LISTEN" in done.stderr
