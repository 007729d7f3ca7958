"""Members, keys and projects: who there is, what they come with, and how they go."""

from datetime import UTC, datetime, timedelta

import httpx
import psycopg
import pytest
from vesta_contracts.conductor.v1 import Project


def reason(answer):
    return answer.json()["error"]["details"][0]["reason"]


def test_a_new_project_has_an_owner_who_can_get_a_key(running):
    with running.rest() as client:
        client.post("/v1/projects", params={"projectId": "acme"}, json={}).raise_for_status()
        members = client.get("/v1/projects/acme/members").json()["members"]
        key = client.post("/v1/projects/acme/apiKeys", json={"member": "projects/acme/members/owner"}).json()
    with running.rest(key["secret"]) as client:
        identity = client.get("/v1/identity").json()

    assert [(member["name"], member["role"]) for member in members] == [("projects/acme/members/owner", "ROLE_OWNER")]
    assert identity == {"member": "projects/acme/members/owner", "platformOwner": False, "role": "ROLE_OWNER"}


def test_a_project_without_an_owner_after_a_crash_gets_one_on_the_next_request(running):
    running.services.projects["projects/acme"] = Project(name="projects/acme")
    with running.rest() as client:
        key = client.post("/v1/projects/acme/apiKeys", json={"member": "projects/acme/members/owner"})
        nowhere = client.post("/v1/projects/none/members", json={"role": "ROLE_VIEWER"})

    assert key.status_code == 200
    assert nowhere.status_code == 404


def test_only_the_platform_owner_creates_projects(running):
    with running.rest(running.member("acme", "owner")) as client:
        answer = client.post("/v1/projects", params={"projectId": "mine"}, json={})

    assert answer.status_code == 403


def test_a_member_lists_only_its_own_project(running):
    key = running.member("acme", "viewer")
    running.member("other", "viewer")
    with running.rest(key) as client:
        own = client.get("/v1/projects", params={"names": "projects/other"}).json()
    with running.rest() as client:
        every = client.get("/v1/projects").json()

    assert [project["name"] for project in own["projects"]] == ["projects/acme"]
    assert [project["name"] for project in every["projects"]] == ["projects/acme", "projects/other"]


def test_a_changed_role_applies_to_keys_immediately(running):
    running.services.exhausted = True
    owner, key = running.member("acme", "owner"), running.member("acme", "viewer", "ada")
    with running.rest(owner) as client, running.rest(key) as ada:
        before = ada.delete("/v1/projects/acme/datasets/d").status_code
        member = client.get("/v1/projects/acme/members/ada").json()
        client.patch(
            "/v1/projects/acme/members/ada", json={"role": "ROLE_ENGINEER", "etag": member["etag"]}
        ).raise_for_status()
        after = ada.delete("/v1/projects/acme/datasets/d").status_code
        stale = client.patch("/v1/projects/acme/members/ada", json={"displayName": "Ada", "etag": member["etag"]})

    assert (before, after) == (403, 429)
    assert (stale.status_code, reason(stale)) == (409, "ETAG_STALE")


def test_a_revoked_key_is_rejected_immediately(running):
    owner, key = running.member("acme", "owner"), running.member("acme", "viewer")
    with running.rest(owner) as client, running.rest(key) as viewer:
        viewer.get("/v1/identity").raise_for_status()
        name = next(
            k["name"] for k in client.get("/v1/projects/acme/apiKeys").json()["apiKeys"] if "viewer" in k["member"]
        )
        client.delete(f"/v1/{name}").raise_for_status()

        assert viewer.get("/v1/identity").status_code == 401
        assert client.get(f"/v1/{name}").status_code == 404


def test_deleting_a_member_deletes_its_keys(running):
    owner, key = running.member("acme", "owner"), running.member("acme", "viewer")
    with running.rest(owner) as client, running.rest(key) as viewer:
        viewer.get("/v1/identity").raise_for_status()
        client.delete("/v1/projects/acme/members/viewer").raise_for_status()

        assert viewer.get("/v1/identity").status_code == 401
        assert [k["member"] for k in client.get("/v1/projects/acme/apiKeys").json()["apiKeys"]] == [
            "projects/acme/members/owner"
        ]


def test_the_last_owner_cannot_be_removed(running):
    with running.rest(running.member("acme", "owner")) as client:
        deleted = client.delete("/v1/projects/acme/members/owner")
        demoted = client.patch("/v1/projects/acme/members/owner", json={"role": "ROLE_VIEWER"})
        running.member("acme", "owner", "second")
        allowed = client.patch("/v1/projects/acme/members/owner", json={"role": "ROLE_VIEWER"})

    assert (deleted.status_code, reason(deleted)) == (400, "LAST_OWNER")
    assert (demoted.status_code, reason(demoted)) == (400, "LAST_OWNER")
    assert allowed.status_code == 200


@pytest.mark.parametrize("body", [{}, {"displayName": "x"}, {"role": "ROLE_UNSPECIFIED"}])
def test_a_member_requires_a_role(running, body):
    with running.rest(running.member("acme", "owner")) as client:
        answer = client.post("/v1/projects/acme/members", json=body)

    assert answer.status_code == 400
    assert "role" in answer.json()["error"]["message"]


def test_members_are_listed_in_pages_and_ids_are_unique(running):
    with running.rest(running.member("acme", "owner")) as client:
        for member in ("ada", "bob", "cleo"):
            client.post(
                "/v1/projects/acme/members", params={"memberId": member}, json={"role": "ROLE_VIEWER"}
            ).raise_for_status()
        again = client.post("/v1/projects/acme/members", params={"memberId": "ada"}, json={"role": "ROLE_OWNER"})
        first = client.get("/v1/projects/acme/members", params={"pageSize": 3}).json()
        second = client.get(
            "/v1/projects/acme/members", params={"pageSize": 3, "pageToken": first["nextPageToken"]}
        ).json()

    assert (again.status_code, reason(again)) == (409, "ALREADY_EXISTS")
    names = [member["name"].rpartition("/")[2] for page in (first, second) for member in page["members"]]
    assert names == ["ada", "bob", "cleo", "owner"]
    assert second["nextPageToken"] == ""


def test_a_secret_is_returned_once_and_not_stored(running):
    with running.rest(running.member("acme", "owner")) as client:
        params = {"apiKeyId": "desk", "requestId": "r1"}
        body = {"member": "projects/acme/members/owner", "displayName": "Desk"}
        made = client.post("/v1/projects/acme/apiKeys", params=params, json=body).json()
        repeated = client.post("/v1/projects/acme/apiKeys", params=params, json=body)
        read = client.get("/v1/projects/acme/apiKeys/desk").json()

    assert made["secret"].startswith(made["prefix"])
    assert repeated.json() == {**made, "secret": ""}
    assert read["secret"] == ""
    schema = running.settings.postgres_schema
    with psycopg.connect(running.settings.postgres_url) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (schema,)
        ).fetchall()
        dump = "".join(
            str(connection.execute(f'SELECT t::text FROM "{schema}"."{table}" AS t').fetchall()) for (table,) in tables
        )
    assert "desk" in dump
    assert made["secret"][10:] not in dump
    assert made["secret"].encode().hex() not in dump


def test_an_expired_key_is_rejected_and_cannot_be_created(running):
    with running.rest(running.member("acme", "owner")) as client:
        member = "projects/acme/members/owner"
        past = client.post("/v1/projects/acme/apiKeys", json={"member": member, "expireTime": "2020-01-01T00:00:00Z"})
        soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
        key = client.post("/v1/projects/acme/apiKeys", json={"member": member, "expireTime": soon}).json()
    deadline = datetime.now(UTC) + timedelta(seconds=10)
    while (answer := httpx.get(f"{running.url}/v1/identity", headers={"x-api-key": key["secret"]})).status_code == 200:
        assert datetime.now(UTC) < deadline

    assert past.status_code == 400
    assert (answer.status_code, reason(answer)) == (401, "KEY_EXPIRED")


def test_a_key_belongs_to_a_member_of_its_own_project(running):
    running.member("other", "viewer")
    with running.rest(running.member("acme", "owner")) as client:
        nobody = client.post("/v1/projects/acme/apiKeys", json={"member": "projects/acme/members/nobody"})
        foreign = client.post("/v1/projects/acme/apiKeys", json={"member": "projects/other/members/viewer"})

    assert nobody.status_code == 404
    assert (foreign.status_code, reason(foreign)) == (403, "PROJECT_DENIED")


def test_the_last_use_of_a_key_is_recorded(running):
    with running.rest(running.member("acme", "owner")) as client:
        client.get("/v1/identity").raise_for_status()
        key = client.get("/v1/projects/acme/apiKeys").json()["apiKeys"][0]

    assert "lastUseTime" in key


def test_deleting_a_project_immediately_deletes_its_members_and_keys_and_prevents_new_ones(running):
    key, other = running.member("acme", "owner"), running.member("other", "viewer")
    with running.rest() as client:
        refused = client.delete("/v1/projects/acme")
        with running.rest(key) as owner:
            before = owner.get("/v1/projects/acme/datasets").status_code
        deleted = client.delete("/v1/projects/acme", params={"force": "true"})
        members = client.get("/v1/projects/acme/members").json()
        created = client.post("/v1/projects/acme/datasets", params={"datasetId": "d"}, json={})
        joined = client.post("/v1/projects/acme/members", params={"memberId": "ada"}, json={"role": "ROLE_VIEWER"})
        listed = client.get("/v1/projects/acme/datasets").status_code
    with running.rest(key) as owner, running.rest(other) as viewer:
        after = owner.get("/v1/projects/acme/datasets")
        elsewhere = viewer.get("/v1/projects/other/datasets").status_code

    assert (refused.status_code, reason(refused), before) == (400, "PROJECT_NOT_EMPTY", 200)
    assert (deleted.status_code, deleted.json()["state"]) == (200, "DELETING")
    assert (members.get("members", []), after.status_code) == ([], 401)
    assert (created.status_code, reason(created)) == (400, "PROJECT_DELETING")
    assert (joined.status_code, reason(joined)) == (400, "PROJECT_DELETING")
    assert (listed, elsewhere) == (200, 200)


def test_only_the_platform_owner_deletes_projects(running):
    with running.rest(running.member("acme", "owner")) as client:
        answer = client.delete("/v1/projects/acme", params={"force": "true"})

    assert (answer.status_code, reason(answer)) == (403, "ROLE_DENIED")


@pytest.mark.parametrize("state", [Project.DELETING, Project.DELETED])
def test_a_project_whose_deletion_this_gateway_missed_is_closed(running, state):
    key = running.member("acme", "owner")
    running.services.projects["projects/acme"].state = state  # the gateway was killed before it was told
    with running.rest(key) as owner, running.rest() as client:
        running.until(lambda: owner.get("/v1/projects/acme/datasets").status_code == 401, 20)
        joined = client.post("/v1/projects/acme/apiKeys", json={"member": "projects/acme/members/owner"})

    assert (joined.status_code, reason(joined)) == (400, "PROJECT_DELETING")


def test_repeating_the_creation_does_not_reopen_a_deleted_project(running):
    creation = {"projectId": "acme", "requestId": "1"}
    with running.rest() as client:
        client.post("/v1/projects", params=creation, json={}).raise_for_status()
        client.delete("/v1/projects/acme", params={"force": "true"}).raise_for_status()
        client.post("/v1/projects", params=creation, json={}).raise_for_status()
        members = client.get("/v1/projects/acme/members").json()

    assert members.get("members", []) == []
