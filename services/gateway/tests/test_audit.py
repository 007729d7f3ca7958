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


def test_an_audit_entry_exists_when_the_call_returns(running: Any) -> None:
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


def test_the_entry_of_an_update_has_its_fields_and_request(running: Any) -> None:
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


def test_the_address_is_taken_from_a_trusted_proxy(start_gateway: Callable[..., Any]) -> None:
    running = start_gateway(trusted_proxies="127.0.0.1")
    with running.rest() as client:
        client.post(
            "/v1/projects", params={"projectId": "acme"}, json={}, headers={"x-forwarded-for": "10.9.8.7"}
        ).raise_for_status()
    assert [entry["address"] for entry in entries(running, running.owner_key)] == ["10.9.8.7"]


def test_rejected_and_failed_changes_are_recorded_with_the_reason(running: Any) -> None:
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


def test_attempts_of_members_of_other_projects_are_recorded_in_the_project(running: Any) -> None:
    viewer, owner = running.member("acme", "viewer"), running.member("other", "owner")
    with running.rest(viewer) as client:
        assert client.get("/v1/projects/other/datasets/vans").status_code == 403
    (entry,) = entries(running, owner, project="other", **{"filterBy.code": "PERMISSION_DENIED"})
    assert (entry["caller"], entry["reason"]) == ("projects/acme/members/viewer", "PROJECT_DENIED")


def test_unknown_keys_are_recorded_for_the_platform_owner(running: Any) -> None:
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


def test_reads_and_predictions_are_not_recorded(running: Any) -> None:
    viewer = running.member("acme", "viewer")
    before = entries(running, running.owner_key)
    with running.rest(viewer) as client:
        client.get("/v1/projects/acme/datasets").raise_for_status()
        client.post("/v1/projects/acme/deployments/d:predict", json={"inputs": [{"data": "AA=="}]}).raise_for_status()
    assert entries(running, running.owner_key) == before


def test_uploads_are_recorded_when_they_have_ended(running: Any) -> None:
    engineer = running.member("acme", "engineer")
    with running.rest(engineer) as client:
        client.post("/v1/projects/acme/sources/camera:upload", content=b"pixels").raise_for_status()
    (entry,) = entries(running, running.owner_key, **{"filterBy.resourcePrefix": "projects/acme/sources"})
    assert (entry["method"], entry["code"]) == ("vesta.connection.v1.SourceService.UploadItem", "OK")


def test_only_owners_list_the_log_and_in_pages(running: Any) -> None:
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


def test_the_log_is_filtered_by_time(running: Any) -> None:
    running.member("acme", "engineer")
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert entries(running, running.owner_key, **{"filterBy.startTime": soon}) == []
    assert entries(running, running.owner_key, **{"filterBy.endTime": soon})


def test_the_command_line_lists_the_audit_entries(running: Any) -> None:
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
def test_entries_cannot_be_changed_with_the_database_user_of_the_service(running: Any, change: str) -> None:
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


def test_every_rpc_other_than_get_is_recorded_except_three_that_only_read() -> None:
    silent = {rpc.full_name for rpc in all_rpcs() if not is_recorded(rpc, "OK") and not rpc.only_reads}
    assert silent == READ_ONLY_POSTS
    assert all(is_recorded(rpc, "PERMISSION_DENIED") for rpc in all_rpcs())


def test_concurrent_entries_are_written_in_one_batch() -> None:
    batches: list[int] = []

    async def story() -> None:
        writer = AuditWriter(lambda rows: batches.append(len(rows)), CollectorRegistry())
        await asyncio.gather(*(writer.put(a_row(str(number))) for number in range(20)))

    asyncio.run(story())
    assert batches == [20]


def test_a_change_succeeds_although_its_entry_cannot_be_stored_and_this_is_counted() -> None:
    registry = CollectorRegistry()

    def fail(rows: Sequence[AuditRow]) -> None:
        raise psycopg.OperationalError("away")

    asyncio.run(AuditWriter(fail, registry).put(a_row("1")))
    assert registry.get_sample_value("vesta_gateway_audit_entries_lost_total") == 1


def test_many_rejections_use_bounded_memory() -> None:
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
