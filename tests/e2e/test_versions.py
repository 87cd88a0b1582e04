"""Every deploy is a version that stays; going back is a version too."""

from __future__ import annotations

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance


def test_versions_are_numbered_and_listed_newest_first(vibed: Instance, apps: Apps) -> None:
    name = apps.name()
    for version in (1, 2, 3):
        assert vibed.client.deploy_ready(name, samples.static(version)).number == version
    page = vibed.client.ask("GET", f"/v1/apps/{name}/versions")
    assert [item["version"] for item in page["items"]] == [3, 2, 1]
    assert page["total"] == 3
    assert len({item["source_digest"] for item in page["items"]}) == 3
    assert all(item["created_at"] and item["created_by"] for item in page["items"])


def test_a_rollback_is_a_new_version_of_the_old_source_and_settings(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("workerd")
    name = apps.name()
    vibed.client.deploy_ready(name, samples.worker(1), env=[{"name": "WORD", "value": "one"}])
    vibed.client.deploy_ready(name, samples.worker(2), env=[{"name": "WORD", "value": "two"}])
    answer = vibed.client.ask("POST", f"/v1/apps/{name}/rollback", json={"version": 1})
    assert (answer["version"], answer["phase"]) == (3, "Ready")
    assert vibed.client.visit(name).text == "version 1\n"
    assert vibed.client.visit(name, "/env").json() == {"WORD": "one"}
    listed = vibed.client.ask("GET", f"/v1/apps/{name}/versions")["items"]
    assert listed[0]["rolled_back_from"] == 1
    assert listed[0]["source_digest"] == listed[2]["source_digest"]


def test_a_rollback_to_what_never_was_is_refused(vibed: Instance, apps: Apps) -> None:
    name = apps.ready(samples.static(1))
    answer = vibed.client.api("POST", f"/v1/apps/{name}/rollback", json={"version": 9})
    assert (answer.status_code, answer.json()["code"]) == (404, "NotFound")
    assert vibed.client.app(name)["version"] == 1


def test_a_redeploy_without_a_body_is_the_same_again(vibed: Instance, apps: Apps) -> None:
    name = apps.ready(samples.static(1))
    answer = vibed.client.ask("POST", f"/v1/apps/{name}/redeploy")
    assert answer["version"] == 2
    assert "version 1" in vibed.client.visit(name).text


def test_a_change_of_env_is_a_version_with_the_same_source(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("workerd")
    name = apps.ready(samples.worker(1), env=[{"name": "WORD", "value": "one"}])
    answer = vibed.client.ask("PATCH", f"/v1/apps/{name}", json={"env": [{"name": "WORD", "value": "two"}]})
    vibed.client.settled(name, answer["version"])
    assert vibed.client.visit(name, "/env").json() == {"WORD": "two"}


def test_a_retried_deploy_with_its_idempotency_key_is_one_deploy(vibed: Instance, apps: Apps) -> None:
    name = apps.name()
    answers = [
        vibed.client.post_deploy(name, samples.static(1), headers={"Idempotency-Key": f"once-{name}"}) for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert {answer.json()["version"] for answer in answers} == {1}
    assert vibed.client.app(name)["version"] == 1
    other = vibed.client.post_deploy(name, samples.static(2), headers={"Idempotency-Key": f"once-{name}"})
    assert (other.status_code, other.json()["code"]) == (422, "IdempotencyMismatch")


def test_the_source_of_a_version_can_be_had_back(vibed: Instance, apps: Apps) -> None:
    import gzip

    name = apps.ready(samples.static("kept"))
    answer = vibed.client.api("GET", f"/v1/apps/{name}/source")
    assert answer.status_code == 200
    assert b"version kept" in gzip.decompress(answer.content)


def test_a_name_that_is_taken_is_refused_where_the_client_asks_for_it(vibed: Instance, apps: Apps) -> None:
    name = apps.ready(samples.static(1))
    answer = vibed.client.post_deploy(name, samples.static(2), if_exists="fail")
    assert (answer.status_code, answer.json()["code"]) == (409, "AlreadyExists")
    assert "version 1" in vibed.client.visit(name).text


def test_another_owner_cannot_take_see_or_end_an_app(vibed: Instance, apps: Apps) -> None:
    name = apps.ready(samples.static(1))
    made = vibed.client.ask("POST", "/v1/keys", json={"owner": "mallory"})
    mallory = vibed.client_with(made["secret"])
    try:
        stolen = mallory.post_deploy(name, samples.static("stolen"))
        assert (stolen.status_code, stolen.json()["code"]) == (409, "NameTaken")
        assert "admin" not in stolen.text
        for method, path in (
            ("GET", ""),
            ("GET", "/logs"),
            ("GET", "/source"),
            ("GET", "/versions"),
            ("DELETE", ""),
            ("POST", "/redeploy"),
        ):
            assert mallory.api(method, f"/v1/apps/{name}{path}").status_code == 404, (method, path)
        assert mallory.ask("GET", "/v1/apps")["total"] == 0
    finally:
        mallory.close()
        vibed.client.api("DELETE", f"/v1/keys/{made['key_id']}")
    assert "version 1" in vibed.client.visit(name).text
