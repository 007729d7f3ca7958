"""The audit log: who changed what, when and from where; and who was refused. What is in it stays in it."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry
from vesta.cli.main import cli
from vesta_common.storage.postgres import Postgres
from vesta_contracts.datasets.v1 import Dataset, UpdateDatasetRequest
from vesta_contracts.gateway.v1 import (
    AuditEntryFilter,
    AuditServiceStub,
    ListAuditEntriesRequest,
    ListPlatformAuditEntriesRequest,
)
from vesta_gateway.audit.audit_writer import REJECTED_WAITING_MAX, AuditWriter
from vesta_gateway.audit.entries import READ_ONLY_POSTS, Origin, is_recorded, row_of
from vesta_gateway.contracts.methods import all_rpcs, get_rpc
from vesta_gateway.store import audit_entries
from vesta_gateway.store.audit_entries import AuditRow

VANS = {"displayName": "Vans", "taxonomy": "projects/acme/taxonomies/vehicles"}
UPDATE = "vesta.datasets.v1.DatasetService.UpdateDataset"


def entries(running: Any, key: str, project: str = "acme", **query: str) -> list[dict[str, Any]]:
    """What the log says of a project, newest first."""
    with running.rest(key) as client:
        answer = client.get(f"/v1/projects/{project}/auditEntries", params=query).raise_for_status()
    return list(answer.json().get("entries", []))


def test_a_change_is_there_when_its_call_is_answered(running: Any) -> None:
    secret = running.member("acme", "engineer")
    owner = running.member("acme", "owner")
    with running.rest(secret) as client:
        made = client.post("/v1/projects/acme/datasets", params={"datasetId": "vans"}, json=VANS)
    (entry,) = entries(running, owner, **{"filterBy.caller": "projects/acme/members/engineer"})
    assert entry["id"]
    assert abs(datetime.now(UTC) - datetime.fromisoformat(entry["time"])) < timedelta(minutes=1)
    assert entry["apiKey"].startswith("projects/acme/apiKeys/")
    del entry["id"], entry["time"], entry["apiKey"], entry["requestSha256"]
    assert entry == {
        "caller": "projects/acme/members/engineer",
        "role": "engineer",
        "method": "vesta.datasets.v1.DatasetService.CreateDataset",
        "resource": "projects/acme/datasets/vans",
        "updateMask": [],
        "code": "OK",
        "reason": "",
        "address": "127.0.0.1",
        "protocol": "rest",
        "requestId": made.headers["x-request-id"],
    }


def test_an_update_names_its_fields_and_its_request(running: Any) -> None:
    secret = running.member("acme", "engineer")
    request = UpdateDatasetRequest(
        dataset=Dataset(name="projects/acme/datasets/vans", display_name="Vans", taxonomy=VANS["taxonomy"])
    )
    running.services.datasets[request.dataset.name] = request.dataset
    request.update_mask.paths.append("display_name")
    with running.channel() as channel:
        update = channel.unary_unary(f"/{UPDATE.rpartition('.')[0]}/UpdateDataset")
        update(request.SerializeToString(), metadata=[("x-api-key", secret)])
        log = AuditServiceStub(channel)
        found = log.ListAuditEntries(
            ListAuditEntriesRequest(parent="projects/acme", filter_by=AuditEntryFilter(method=UPDATE)),
            metadata=[("x-api-key", running.owner_key)],
        )
    (entry,) = found.entries
    assert (entry.protocol, entry.resource, list(entry.update_mask)) == (
        "grpc",
        "projects/acme/datasets/vans",
        ["display_name"],
    )
    assert entry.request_sha256 == hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()


def test_the_address_is_what_a_trusted_proxy_says(start_gateway: Callable[..., Any]) -> None:
    running = start_gateway(trusted_proxies="127.0.0.1")
    with running.rest() as client:
        client.post(
            "/v1/projects", params={"projectId": "acme"}, json={}, headers={"x-forwarded-for": "10.9.8.7"}
        ).raise_for_status()
    assert [entry["address"] for entry in entries(running, running.owner_key)] == ["10.9.8.7"]


def test_refusals_and_failures_of_changes_are_noted_with_the_reason(running: Any) -> None:
    running.services.exhausted = True
    viewer, owner = running.member("acme", "viewer"), running.member("acme", "owner")
    with running.rest(viewer) as client:
        assert client.post("/v1/projects/acme/datasets", json={}).status_code == 403
        assert client.get("/v1/projects/acme/apiKeys").status_code == 403
        assert client.get("/v1/projects/other/datasets/vans").status_code == 403
    with running.rest(owner) as client:
        assert client.delete("/v1/projects/acme/datasets/vans").status_code == 429
    found = entries(running, owner, **{"filterBy.caller": "projects/acme/members/viewer"})
    assert [(it["method"].rpartition(".")[2], it["code"], it["reason"]) for it in reversed(found)] == [
        ("CreateDataset", "PERMISSION_DENIED", "ROLE_DENIED"),
        ("ListApiKeys", "PERMISSION_DENIED", "ROLE_DENIED"),
    ]
    (failed,) = entries(running, owner, **{"filterBy.method": "vesta.datasets.v1.DatasetService.DeleteDataset"})
    assert (failed["code"], failed["resource"]) == ("RESOURCE_EXHAUSTED", "projects/acme/datasets/vans")


def test_what_a_member_of_one_project_tried_in_another_is_told_to_that_one(running: Any) -> None:
    viewer, owner = running.member("acme", "viewer"), running.member("other", "owner")
    with running.rest(viewer) as client:
        assert client.get("/v1/projects/other/datasets/vans").status_code == 403
    (entry,) = entries(running, owner, project="other", **{"filterBy.code": "PERMISSION_DENIED"})
    assert (entry["caller"], entry["reason"]) == ("projects/acme/members/viewer", "PROJECT_DENIED")


def test_keys_that_stand_for_nobody_are_told_to_the_owner_of_the_platform(running: Any) -> None:
    with running.rest("vesta_guessed") as client:
        assert client.get("/v1/projects/acme/datasets").status_code == 401
    with running.channel() as channel:
        log = AuditServiceStub(channel)

        def refused() -> Any:
            request = ListPlatformAuditEntriesRequest(filter_by=AuditEntryFilter(code="UNAUTHENTICATED"))
            return log.ListPlatformAuditEntries(request, metadata=[("x-api-key", running.owner_key)]).entries

        running.until(lambda: bool(refused()))
        (entry,) = refused()
    assert (entry.caller, entry.api_key, entry.reason) == ("", "", "KEY_UNKNOWN")
    assert (entry.method, entry.address) == ("vesta.datasets.v1.DatasetService.ListDatasets", "127.0.0.1")


def test_reading_and_asking_leave_no_entry(running: Any) -> None:
    viewer = running.member("acme", "viewer")
    before = entries(running, running.owner_key)
    with running.rest(viewer) as client:
        client.get("/v1/projects/acme/datasets").raise_for_status()
        client.post("/v1/projects/acme/deployments/d:predict", json={"inputs": [{"data": "AA=="}]}).raise_for_status()
    assert entries(running, running.owner_key) == before


def test_uploads_are_noted_when_they_have_ended(running: Any) -> None:
    engineer = running.member("acme", "engineer")
    with running.rest(engineer) as client:
        client.post("/v1/projects/acme/sources/camera:upload", content=b"pixels").raise_for_status()
    (entry,) = entries(running, running.owner_key, **{"filterBy.resourcePrefix": "projects/acme/sources"})
    assert (entry["method"], entry["code"]) == ("vesta.connection.v1.SourceService.UploadItem", "OK")


def test_owners_alone_read_the_log_and_page_by_page(running: Any) -> None:
    engineer, owner = running.member("acme", "engineer"), running.member("acme", "owner")
    with running.rest(engineer) as client:
        for number in range(5):
            client.post("/v1/projects/acme/datasets", params={"datasetId": f"d{number}"}, json=VANS).raise_for_status()
        assert client.get("/v1/projects/acme/auditEntries").status_code == 403
        assert client.get("/v1/auditEntries").status_code == 403
    names: list[str] = []
    token = ""
    with running.rest(owner) as client:
        while token or not names:
            query = {"pageSize": "2", "pageToken": token, "filterBy.resourcePrefix": "projects/acme/datasets/"}
            answer = client.get("/v1/projects/acme/auditEntries", params=query).raise_for_status().json()
            names += [entry["resource"].rpartition("/")[2] for entry in answer["entries"]]
            token = answer.get("nextPageToken", "")
    assert names == ["d4", "d3", "d2", "d1", "d0"]


def test_times_bound_what_is_listed(running: Any) -> None:
    running.member("acme", "engineer")
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert entries(running, running.owner_key, **{"filterBy.startTime": soon}) == []
    assert entries(running, running.owner_key, **{"filterBy.endTime": soon})


def test_the_command_line_tells_who_changed_what(running: Any) -> None:
    running.member("acme", "engineer")
    options = ["--address", running.gateway.grpc_address, "--api-key", running.owner_key]
    printed = CliRunner().invoke(cli, [*options, "audit", "projects/acme"], catch_exceptions=False).output
    # The gateway of the test logs into the same stream.
    told = [parts[1:] for line in printed.splitlines() if (parts := line.split("  "))[1] == "OK"]
    assert [(caller, address, method) for _, caller, address, method, _ in told] == [
        ("projects/acme/members/owner", "127.0.0.1", "CreateApiKey"),
        ("projects/acme/members/owner", "127.0.0.1", "CreateMember"),
        ("platform/owner", "127.0.0.1", "CreateProject"),
    ]
    assert told[1][-1] == "projects/acme/members/engineer"
    everywhere = [*options, "--json", "audit", "--code", "OK", "--limit", "1", "--since", "2020-01-01"]
    printed = CliRunner().invoke(cli, everywhere, catch_exceptions=False).output
    (newest,) = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert newest["method"] == "vesta.gateway.v1.ApiKeyService.CreateApiKey"


def connected(running: Any) -> psycopg.Connection[Any]:
    options = f"-c search_path={running.settings.postgres_schema}"
    return psycopg.connect(running.settings.postgres_url, options=options, autocommit=True)


@pytest.mark.parametrize(
    "change", ["UPDATE audit_entries SET caller = 'nobody'", "DELETE FROM audit_entries", "TRUNCATE audit_entries"]
)
def test_nothing_in_it_can_be_changed_with_the_services_own_password(running: Any, change: str) -> None:
    running.member("acme", "engineer")
    before = entries(running, running.owner_key)
    with connected(running) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        connection.execute(change.encode())
    assert entries(running, running.owner_key) == before


def a_row(entry_id: str, age: timedelta = timedelta(0)) -> AuditRow:
    rpc = get_rpc("vesta.datasets.v1.DatasetService.DeleteDataset")
    request = rpc.request_type(name="projects/acme/datasets/vans")
    now = datetime.now(UTC) - age
    return row_of(rpc, None, request, b"", ("OK", ""), Origin("10.0.0.1", "rest"), entry_id, now, "5a" * 16)


def test_entries_are_deleted_when_their_retention_has_ended(running: Any) -> None:
    settings = running.settings
    postgres = Postgres(settings.postgres_url, settings.postgres_schema, 2).open()
    try:
        audit_entries.add(postgres, [a_row("old", timedelta(days=120)), a_row("young", timedelta(days=95))])
        assert audit_entries.prune(postgres, datetime.now(UTC), timedelta(days=100)) == 1
        with postgres.transaction() as connection:
            assert {row["id"] for row in connection.execute("SELECT id FROM audit_entries")} == {"young"}
    finally:
        postgres.close()


def test_every_rpc_that_is_no_get_is_recorded_but_three_that_only_ask() -> None:
    silent = {rpc.full_name for rpc in all_rpcs() if not is_recorded(rpc, "OK") and not rpc.only_reads}
    assert silent == READ_ONLY_POSTS
    assert all(is_recorded(rpc, "PERMISSION_DENIED") for rpc in all_rpcs())


def test_entries_that_come_together_are_written_together() -> None:
    batches: list[int] = []

    async def story() -> None:
        writer = AuditWriter(lambda rows: batches.append(len(rows)), CollectorRegistry())
        await asyncio.gather(*(writer.put(a_row(str(number))) for number in range(20)))

    asyncio.run(story())
    assert batches == [20]


def test_a_change_is_answered_although_its_entry_cannot_be_kept_and_that_is_counted() -> None:
    registry = CollectorRegistry()

    def fail(rows: Sequence[AuditRow]) -> None:
        raise psycopg.OperationalError("away")

    asyncio.run(AuditWriter(fail, registry).put(a_row("1")))
    assert registry.get_sample_value("vesta_gateway_audit_entries_lost_total") == 1


def test_a_flood_of_refusals_fills_no_memory() -> None:
    registry = CollectorRegistry()
    written: list[AuditRow] = []

    async def story() -> None:
        writer = AuditWriter(written.extend, registry)
        for number in range(REJECTED_WAITING_MAX + 5):
            writer.put_without_waiting(a_row(str(number)))
        await writer.close()

    asyncio.run(story())
    assert len(written) == REJECTED_WAITING_MAX
    assert registry.get_sample_value("vesta_gateway_audit_entries_lost_total") == 5
