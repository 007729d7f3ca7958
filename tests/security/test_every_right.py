"""Every RPC × every role × another project's key, over both doors of the running platform: nobody gets across the walls."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from vesta import Vesta
from vesta_common.ids import new_id
from vesta_contracts.conductor.v1 import CreateProjectRequest, Project
from vesta_contracts.datasets.v1 import Concept, CreateDatasetRequest, CreateTaxonomyRequest, Dataset, Taxonomy
from vesta_contracts.gateway.v1 import (
    ApiKey,
    CreateApiKeyRequest,
    CreateMemberRequest,
    DeleteApiKeyRequest,
    Member,
    Role,
)
from vesta_gateway.access.authorization import ANY_MEMBER, NOBODY, PLATFORM_OWNER, RIGHTS, ROLES
from vesta_gateway.contracts.methods import Rpc, all_rpcs
from vesta_gateway.contracts.path_template import ANY_SEGMENT
from vesta_local.testing import WholePlatform

pytestmark = [pytest.mark.platform, pytest.mark.no_events, pytest.mark.timeout(300)]

RPCS = {rpc.full_name: rpc for rpc in all_rpcs()}
ROLE_OF = {
    "viewer": Role.ROLE_VIEWER,
    "annotator": Role.ROLE_ANNOTATOR,
    "reviewer": Role.ROLE_REVIEWER,
    "engineer": Role.ROLE_ENGINEER,
    "owner": Role.ROLE_OWNER,
}
DEADLINE_SECONDS = 20.0
WATCH_DEADLINE_SECONDS = 0.5
SHUT = {"ROLE_DENIED", "PROJECT_DENIED", "KEY_MISSING", "KEY_UNKNOWN"}
# What tells not that a call got through: it was refused, or nobody knows what became of it.
NOT_THROUGH = SHUT | {
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNKNOWN",
    "UNAVAILABLE",
    "RESOURCE_EXHAUSTED",
}


@dataclass(frozen=True)
class Town:
    """Two projects: ours with a member of every role, and another one with something in it."""

    rest: str
    channel: grpc.Channel
    client: httpx.Client
    owner_key: str
    project: str
    keys: dict[str, str]
    revoked_key: str
    other: str
    other_dataset: str


@pytest.fixture(scope="module")
def town(platform: WholePlatform) -> Iterator[Town]:
    address, owner_key = platform.home.address("gateway_grpc"), platform.home.owner_key
    with (
        Vesta(address, owner_key) as client,
        grpc.insecure_channel(address) as channel,
        httpx.Client(timeout=DEADLINE_SECONDS) as rest_client,
    ):
        ours, other = (
            client.projects.CreateProject(CreateProjectRequest(project_id=f"p{new_id()}", project=Project())).name
            for _ in range(2)
        )
        keys = {word: _key(client, ours, word) for word in ROLE_OF}
        revoked = client.api_keys.CreateApiKey(
            CreateApiKeyRequest(parent=ours, api_key=ApiKey(member=f"{ours}/members/viewer"))
        )
        client.api_keys.DeleteApiKey(DeleteApiKeyRequest(name=revoked.name))
        # Ours holds something, too: the platform's owner, who tries everything, must not delete it.
        for parent in (ours, other):
            taxonomy = client.taxonomies.CreateTaxonomy(
                CreateTaxonomyRequest(parent=parent, taxonomy_id="t", taxonomy=Taxonomy(concepts=[Concept(id="van")]))
            )
        dataset = client.datasets.CreateDataset(
            CreateDatasetRequest(parent=other, dataset_id="secret", dataset=Dataset(taxonomy=taxonomy.name))
        )
        yield Town(
            rest=f"http://{platform.home.address('gateway')}",
            channel=channel,
            client=rest_client,
            owner_key=owner_key,
            project=ours,
            keys=keys,
            revoked_key=revoked.secret,
            other=other,
            other_dataset=dataset.name,
        )


def _key(client: Vesta, project: str, word: str) -> str:
    if word != "owner":
        member = Member(role=ROLE_OF[word])
        client.members.CreateMember(CreateMemberRequest(parent=project, member_id=word, member=member))
    made = client.api_keys.CreateApiKey(
        CreateApiKeyRequest(parent=project, api_key=ApiKey(member=f"{project}/members/{word}"))
    )
    return str(made.secret)


def _request(rpc: Rpc, project: str) -> Any:
    """A request about something that is not there, in a project."""
    request = rpc.request_type()
    if rpc.scope:
        *above, last = rpc.scope.split(".")
        target: Any = request
        for part in above:
            target = getattr(target, part)
        setattr(target, last, _name(rpc, project))
    return request


def _name(rpc: Rpc, project: str) -> str:
    """A name of the shape that the RPC's HTTP rule asks for, of nothing that is there."""
    for rule in rpc.rules:
        for variable in rule.template.variables:
            if variable.field_path == rpc.scope:
                parts = list(rule.template.segments[variable.start : variable.end])
                parts[1] = project.split("/")[1]
                return "/".join("absent" if part == ANY_SEGMENT else part for part in parts)
    return project


def _over_grpc(town: Town, rpc: Rpc, project: str, key: str) -> str:
    """The reason a call was refused with, or its status; OK where it was answered."""
    metadata = [("authorization", f"Bearer {key}")] if key else []
    deadline = WATCH_DEADLINE_SECONDS if rpc.descriptor.name == "WatchEvents" else DEADLINE_SECONDS
    raw = _request(rpc, project).SerializeToString()
    call = town.channel.stream_stream(rpc.path)(iter([raw]), metadata=metadata, timeout=deadline)
    try:
        for _ in call:
            break
        call.cancel()
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        info = error_details_pb2.ErrorInfo()
        if status is not None and status.details and status.details[0].Unpack(info) and info.reason in SHUT:
            return info.reason
        return str(error.code().name)
    return "OK"


def _over_rest(town: Town, rpc: Rpc, project: str, key: str) -> str:
    """The same over HTTP."""
    rule = rpc.rules[0]
    values = {variable.field_path: _name(rpc, project) for variable in rule.template.variables}
    headers = {"authorization": f"Bearer {key}"} if key else {}
    content = b"{}" if rule.body else None
    url = town.rest + rule.template.expand(values)
    with town.client.stream(rule.verb, url, headers=headers, content=content) as answer:
        if answer.headers["content-type"].startswith("text/event-stream") or answer.status_code == 200:
            return "OK"
        error = json.loads(answer.read())["error"]
    reason = str(error["details"][0]["reason"])
    return reason if reason in SHUT else str(error["status"])


def _when_let(call: Callable[[], str]) -> str:
    """The answer of a call once the limit on strangers lets it be answered."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (answer := call()) == "RESOURCE_EXHAUSTED" and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


def _is_allowed(name: str, word: str) -> bool:
    right = RIGHTS[name]
    return right is ANY_MEMBER or ROLE_OF[word] in ROLES.get(right, ())


@pytest.mark.parametrize("name", sorted(RIGHTS))
def test_each_role_may_call_what_the_table_says(town: Town, name: str) -> None:
    rpc = RPCS[name]
    for word, key in town.keys.items():
        answers = [_over_grpc(town, rpc, town.project, key)]
        answers += [_over_rest(town, rpc, town.project, key)] if rpc.rules else []
        for answer in answers:
            if _is_allowed(name, word):
                assert answer not in NOT_THROUGH, (word, answer)
            else:
                assert answer == "ROLE_DENIED", (word, answer)


@pytest.mark.parametrize(
    "name",
    sorted(name for name, right in RIGHTS.items() if RPCS[name].scope and right not in {NOBODY, PLATFORM_OWNER}),
)
def test_no_role_reaches_another_project(town: Town, name: str) -> None:
    rpc = RPCS[name]
    for key in town.keys.values():
        assert _over_grpc(town, rpc, town.other, key) == "PROJECT_DENIED"
        assert _over_rest(town, rpc, town.other, key) == "PROJECT_DENIED"


@pytest.mark.parametrize("name", sorted(RIGHTS))
def test_nobody_gets_in_without_a_good_key(town: Town, name: str) -> None:
    rpc = RPCS[name]
    for key, reason in (("", "KEY_MISSING"), (town.revoked_key, "KEY_UNKNOWN")):
        assert _when_let(lambda key=key: _over_grpc(town, rpc, town.project, key)) == reason
        if rpc.rules:
            assert _when_let(lambda key=key: _over_rest(town, rpc, town.project, key)) == reason


@pytest.mark.parametrize("name", sorted(name for name, right in RIGHTS.items() if right in {NOBODY, PLATFORM_OWNER}))
def test_what_is_for_no_member_is_for_no_member(town: Town, name: str) -> None:
    for key in town.keys.values():
        assert _over_grpc(town, RPCS[name], town.project, key) == "ROLE_DENIED"


@pytest.mark.parametrize("name", sorted(name for name, right in RIGHTS.items() if right is not NOBODY))
def test_the_platforms_owner_may_call_whatever_is_for_anybody(town: Town, name: str) -> None:
    assert _over_grpc(town, RPCS[name], town.project, town.owner_key) not in NOT_THROUGH


def test_the_inner_door_is_shut_for_the_platforms_owner_too(town: Town) -> None:
    rpc = RPCS["vesta.connection.v1.MediaService.IngestMedia"]

    assert _over_grpc(town, rpc, town.project, town.owner_key) == "ROLE_DENIED"


def test_a_refusal_tells_not_whether_the_thing_exists(town: Town) -> None:
    """Two names of the same length in the other project, one of which exists, get the same answer but for its trace."""
    headers = {"authorization": f"Bearer {town.keys['owner']}"}
    absent = f"{town.other_dataset.rpartition('/')[0]}/absent"
    answers = [httpx.get(f"{town.rest}/v1/{name}", headers=headers) for name in (town.other_dataset, absent)]

    assert answers[0].status_code == answers[1].status_code == 403
    assert answers[0].content == answers[1].content


def test_no_reference_in_a_request_reaches_across(town: Town) -> None:
    """Of every RPC that takes references: each single one of them, pointed at the other project, is refused."""
    checked = 0
    with httpx.Client(headers={"authorization": f"Bearer {town.keys['owner']}"}) as client:
        for rpc in RPCS.values():
            if (
                not rpc.rules
                or not rpc.rules[0].body
                or rpc.descriptor.client_streaming
                or RIGHTS[rpc.full_name] not in ROLES
            ):
                continue
            for body in _bodies_with_a_reference(rpc, town.other_dataset):
                rule = rpc.rules[0]
                values = {variable.field_path: _name(rpc, town.project) for variable in rule.template.variables}
                url = town.rest + rule.template.expand(values)
                answer = client.request(rule.verb, url, json=body)
                assert answer.json()["error"]["details"][0]["reason"] == "PROJECT_DENIED", (rpc.full_name, body)
                checked += 1

    assert checked > 50


def _bodies_with_a_reference(rpc: Rpc, target: str) -> Iterator[dict[str, Any]]:
    """Bodies that hold one text each, wherever the contract has room for one, and that text is a name of another project."""
    rule = rpc.rules[0]
    descriptor = rpc.descriptor.input_type
    if rule.body != "*":
        descriptor = descriptor.fields_by_name[rule.body].message_type
    bound = {variable.field_path.split(".")[-1] for variable in rule.template.variables}
    for path in itertools.islice(_text_fields(descriptor, 0), 200):
        if path[0][0] in bound:
            continue
        value: Any = target
        for name, is_repeated in reversed(path):
            value = {name: [value] if is_repeated else value}
        yield value


def _text_fields(descriptor: Any, depth: int) -> Iterator[list[tuple[str, bool]]]:
    """Every path to a string field, maps and the messages of Google aside."""
    for field in descriptor.fields:
        step = (field.json_name, field.is_repeated)
        below = field.message_type
        if below is not None:
            if depth < 4 and not below.GetOptions().map_entry and not below.full_name.startswith("google."):
                yield from ([step, *rest] for rest in _text_fields(below, depth + 1))
        elif field.type == field.TYPE_STRING:
            yield [step]


def test_parameters_cannot_reach_across_either(town: Town) -> None:
    headers = {"authorization": f"Bearer {town.keys['owner']}"}
    query = urlencode({"requestId": town.other_dataset})
    answer = httpx.post(f"{town.rest}/v1/{town.project}/taxonomies?{query}", headers=headers, json={})

    assert answer.json()["error"]["details"][0]["reason"] == "PROJECT_DENIED"
