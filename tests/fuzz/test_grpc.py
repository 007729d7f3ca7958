"""Random messages to every RPC, through the gateway: the answer is a message, or a refusal with its reason, and no mistake of ours."""

import json
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2
from ground import Effort, Ground
from grpc_status import rpc_status
from hypothesis import HealthCheck, Phase, given, seed, settings
from random_messages import RandomMessages
from vesta_gateway.access.authorization import NOBODY, RIGHTS
from vesta_gateway.access.references import projects_in
from vesta_gateway.contracts.methods import Rpc, all_rpcs

pytestmark = [pytest.mark.platform, pytest.mark.no_events, pytest.mark.timeout(7200)]

RPCS = [rpc for rpc in all_rpcs() if RIGHTS[rpc.full_name] is not NOBODY]
DEADLINE_SECONDS = 30.0
WATCH_SECONDS = 0.3
ANSWERS_MAX = 3
MISTAKES = {"INTERNAL", "UNKNOWN", "DATA_LOSS", "UNIMPLEMENTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
# What is refused with one of those codes for a good reason.
EXPECTED = {"DEPLOYMENT_NOT_READY", "MEDIA_LOST"}
# What would go on working: a loop trains by itself, and a training is not worth its minutes here. What is deleted is missed by others.
SPARED = {
    "CreateLoop": {"vesta/Dataset"},
    "CreateTrainingRun": {"vesta/Snapshot"},
    "CreateStudy": {"vesta/Snapshot"},
    "UpdateMember": {"vesta/Member"},
    "UpdateDataset": {"vesta/Dataset"},
    "UpdateTaxonomy": {"vesta/Taxonomy"},
}


@pytest.mark.parametrize("rpc", RPCS, ids=lambda rpc: rpc.full_name)
def test_random_messages_are_answered_or_refused_with_a_reason(ground: Ground, effort: Effort, rpc: Rpc) -> None:
    messages = RandomMessages(ground.existing, ground.files)
    name = str(rpc.descriptor.name)
    spared = set(ground.existing) - {"vesta/Project"} if name.startswith("Delete") else SPARED.get(name, set())
    spared |= {"vesta/Project"} if name == "DeleteProject" else set()

    @seed(effort.seed)
    @settings(
        max_examples=max(1, effort.cases // len(RPCS)),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(request=messages.requests(rpc.descriptor.input_type, hidden=frozenset(spared)))
    def run(request: Any) -> None:
        fault = fault_of(ground, rpc, request)
        assert not fault, f"{fault}: {json.dumps(json_format.MessageToDict(request), ensure_ascii=True)[:4000]}"

    run()


def fault_of(ground: Ground, rpc: Rpc, request: Any) -> str:
    """What is wrong with the answer to a request; empty where nothing is."""
    is_watch = not rpc.is_unary and not rpc.is_transfer
    call = ground.channel.stream_stream(rpc.path)(
        iter([request.SerializeToString()]),
        metadata=ground.metadata,
        timeout=WATCH_SECONDS if is_watch else DEADLINE_SECONDS,
    )
    try:
        for number, answer in enumerate(call):
            rpc.response_type.FromString(answer)
            if number == ANSWERS_MAX:
                break
        call.cancel()
    except grpc.RpcError as error:
        if is_watch and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ""
        return _fault_of_refusal(error)
    return ""


def _fault_of_refusal(error: Any) -> str:
    code, details = error.code().name, f"{error.details()}"
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    if status is None or not any(detail.Unpack(info) for detail in status.details):
        return f"{code} without a reason: {details}"
    if code in MISTAKES and info.reason not in EXPECTED:
        return f"{code} {info.reason}: {details}"
    return "" if info.reason and details else f"{code} with an empty reason or message"


def test_what_is_random_reaches_every_kind_of_field(ground: Ground) -> None:
    """The strategy itself: over some hundred messages names that exist, and every field of a wide request, come up."""
    rpc = next(rpc for rpc in RPCS if rpc.descriptor.name == "BatchCreateTasks")
    seen: set[str] = set()
    projects: set[str] = set()

    @seed(1)
    @settings(
        max_examples=300, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(request=RandomMessages(ground.existing, ground.files).requests(rpc.descriptor.input_type))
    def run(request: Any) -> None:
        seen.update(_paths(request))
        projects.update(projects_in(request))

    run()
    assert ground.project in projects
    assert {"tasks.item", "tasks.pre_annotations.track.keyframes.box", "tasks.pre_annotations.mask"} <= seen


def _paths(message: Any, above: str = "") -> set[str]:
    found = set()
    for field, value in message.ListFields():
        found.add(above + field.name)
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if field.message_type is not None and not is_map:
            for entry in value if field.is_repeated else [value]:
                found |= _paths(entry, f"{above}{field.name}.")
    return found
