"""A blind task is read through every RPC and event stream that is open to annotators: what the model says of its item is in none."""

import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.message import Message
from hostile_media import noise
from vesta import Vesta
from vesta_common.events.broker import Broker, open_producer
from vesta_common.events.cloudevents import encode_headers, new_event
from vesta_common.ids import new_id
from vesta_contracts.annotation.v1 import (
    BatchCreateTasksRequest,
    Campaign,
    CancelTaskRequest,
    CreateCampaignRequest,
    LeasePurpose,
    LeaseTasksRequest,
    ListTasksRequest,
    Task,
)
from vesta_contracts.common.v1 import Annotation, ConceptScore, ImageLabel, Prediction
from vesta_contracts.conductor.v1 import CreateProjectRequest, Project
from vesta_contracts.connection.v1 import CreateSourceRequest, Source, UploadSource
from vesta_contracts.datasets.v1 import (
    BatchGetItemsRequest,
    Concept,
    CreateDatasetRequest,
    CreateTaxonomyRequest,
    Dataset,
    GetItemRequest,
    ListItemsRequest,
    SearchItemsRequest,
    Taxonomy,
)
from vesta_contracts.gateway.v1 import (
    ApiKey,
    CreateApiKeyRequest,
    CreateMemberRequest,
    Member,
    Role,
    WatchEventsRequest,
)
from vesta_contracts.serving.v1 import ItemPrediction, PredictInput, PredictionCreated, PredictRequest
from vesta_gateway.access.authorization import ANY_MEMBER, RIGHTS, ROLES
from vesta_gateway.contracts.methods import Rpc, all_rpcs
from vesta_gateway.contracts.path_template import ANY_SEGMENT
from vesta_local.testing import WholePlatform

pytestmark = [pytest.mark.platform, pytest.mark.timeout(300)]

SCORE = 0.42421875
"""Exact in 32 bits, and found in no answer by chance."""
SECRETS = (struct.pack("<f", SCORE), struct.pack("<d", SCORE), b"models/oracle/versions/78")
"""What is said of the item, and whose suggestion the task has. Which model scored the dataset last, version 77, is no secret."""
TOPIC = "vesta.serving.prediction.v1"
DEADLINE_SECONDS = 30.0
STREAM_SECONDS = 1.0


@dataclass
class Secret:
    """A project in which a model has said something of the item that a blind task asks about.

    Attributes:
        ids: the last part of a resource's name, by the collection that it is in.
        keys: by role.
    """

    owner: Vesta
    channel: grpc.Channel
    rest: str
    broker: Broker
    topic: str
    project: str
    item: str
    task: str
    ids: dict[str, str]
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        return self.item.rpartition("/items/")[0]

    @property
    def campaign(self) -> str:
        return self.task.rpartition("/tasks/")[0]

    def predict(self) -> None:
        """The model says something of the item, as the serving service would tell it."""
        model = f"{self.project}/models/oracle/versions/77"
        scores = Prediction(model_version=model, scores=[ConceptScore(concept="van", score=SCORE)], uncertain=True)
        vector = np.full(8, 8**-0.5, "<f4").tobytes()
        made = PredictionCreated(
            deployment=f"{self.project}/deployments/d",
            dataset=self.dataset,
            model_version=model,
            generation=1,
            embedding_digest="space",
            predictions=[ItemPrediction(item=self.item, prediction=scores, embedding=vector)],
        )
        event = new_event("serving", made.deployment, made, datetime.now(UTC))
        producer = open_producer(self.broker)
        producer.send(self.topic, value=event.value, key=event.subject.encode(), headers=encode_headers(event)).get(
            timeout=20
        )
        producer.close(timeout=5)

    def mark(self) -> None:
        """Something else happens in the project that everybody may know."""
        task = self.owner.tasks.BatchCreateTasks(
            BatchCreateTasksRequest(parent=f"{self.project}/campaigns/marks", tasks=[Task(item=self.item)])
        ).tasks[0]
        self.owner.tasks.CancelTask(CancelTaskRequest(name=task.name))

    def answers(self, rpc: Rpc, request: Message, role: str) -> list[bytes]:
        """The serialised answers to a call of somebody in a role; none where it is refused."""
        call = self.channel.stream_stream(rpc.path)(
            iter([request.SerializeToString()]),
            metadata=[("authorization", f"Bearer {self.keys[role]}")],
            timeout=STREAM_SECONDS if rpc.descriptor.name == "WatchEvents" else DEADLINE_SECONDS,
        )
        found: list[bytes] = []
        with suppress(grpc.RpcError):
            found.extend(call)
        return found


def wait_until(condition: Callable[[], object], again: Callable[[], None] = lambda: None) -> None:
    """Waits for a condition, doing something again now and then."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        again()
        time.sleep(0.2)


def tells(answers: list[bytes]) -> bool:
    """Whether an answer has anything of what the model said."""
    return any(secret in answer for answer in answers for secret in SECRETS)


@pytest.fixture(scope="module")
def secret(platform: WholePlatform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secret]:
    picture = tmp_path_factory.mktemp("pictures") / "van.png"
    picture.write_bytes(noise(64))
    address = platform.addresses["gateway_grpc"]
    owner = Vesta(address, platform.owner_key)
    project = owner.projects.CreateProject(CreateProjectRequest(project_id=f"b{new_id()}", project=Project())).name
    taxonomy = owner.taxonomies.CreateTaxonomy(
        CreateTaxonomyRequest(parent=project, taxonomy_id="t", taxonomy=Taxonomy(concepts=[Concept(id="van")]))
    )
    dataset = owner.datasets.CreateDataset(
        CreateDatasetRequest(parent=project, dataset_id="d", dataset=Dataset(taxonomy=taxonomy.name))
    ).name
    source = owner.sources.CreateSource(
        CreateSourceRequest(parent=project, source_id="desk", source=Source(dataset=dataset, upload=UploadSource()))
    )
    item = owner.upload(source.name, picture).item
    for campaign_id in ("c", "marks"):
        owner.campaigns.CreateCampaign(
            CreateCampaignRequest(parent=project, campaign_id=campaign_id, campaign=Campaign(dataset=dataset))
        )
    suggested = Annotation(concept="van", image_label=ImageLabel(), score=SCORE)
    version = f"{project}/models/oracle/versions/78"
    wanted = Task(item=item, control=True, pre_annotations=[suggested], model_version=version)
    request = BatchCreateTasksRequest(parent=f"{project}/campaigns/c", tasks=[wanted])
    task = owner.tasks.BatchCreateTasks(request).tasks[0].name
    with grpc.insecure_channel(address) as channel:
        found = Secret(
            owner=owner,
            channel=channel,
            rest=f"http://{platform.home.address('gateway')}",
            broker=platform.broker,
            topic=platform.topic(TOPIC),
            project=project,
            item=item,
            task=task,
            ids={
                "projects": project.rpartition("/")[2],
                "datasets": "d",
                "taxonomies": "t",
                "campaigns": "c",
                "items": item.rpartition("/")[2],
                "tasks": task.rpartition("/")[2],
                "sources": "desk",
                "members": "annotator",
                "deployments": "d",
            },
        )
        for role in (Role.ROLE_ANNOTATOR, Role.ROLE_REVIEWER):
            word = Role.Name(role).removeprefix("ROLE_").lower()
            owner.members.CreateMember(CreateMemberRequest(parent=project, member_id=word, member=Member(role=role)))
            key = ApiKey(member=f"{project}/members/{word}")
            found.keys[word] = owner.api_keys.CreateApiKey(CreateApiKeyRequest(parent=project, api_key=key)).secret
        found.predict()
        wait_until(lambda: owner.items.GetItem(GetItemRequest(name=item)).HasField("prediction"))
        yield found
    owner.close()


def scope_of(secret: Secret, rpc: Rpc) -> str:
    """The name that an RPC is about: of what there is, as far as its HTTP rule fits."""
    for rule in rpc.rules:
        for variable in rule.template.variables:
            if variable.field_path == rpc.scope:
                parts = list(rule.template.segments[variable.start : variable.end])
                for place, part in enumerate(parts):
                    if part == ANY_SEGMENT:
                        parts[place] = secret.ids.get(parts[place - 1], "absent")
                return "/".join(parts)
    return secret.project


def requests_of(secret: Secret, rpc: Rpc) -> list[Message]:
    """Requests of an RPC about the item, the task, and what they are in."""
    named = rpc.request_type()
    if rpc.scope:
        *above, last = rpc.scope.split(".")
        target: Any = named
        for part in above:
            target = getattr(target, part)
        setattr(target, last, scope_of(secret, rpc))
    dataset, campaign = secret.dataset, secret.campaign
    more: dict[str, list[Message]] = {
        "ListItems": [
            ListItemsRequest(parent=dataset, embeddings=True),
            ListItemsRequest(parent=dataset, filter="predicted = van"),
        ],
        "BatchGetItems": [BatchGetItemsRequest(parent=dataset, names=[secret.item])],
        "SearchItems": [SearchItemsRequest(parent=dataset, item=secret.item)],
        "ListTasks": [ListTasksRequest(parent=campaign, filter="control")],
        "LeaseTasks": [
            LeaseTasksRequest(parent=campaign, purpose=purpose, count=100)
            for purpose in (LeasePurpose.LEASE_PURPOSE_ANNOTATE, LeasePurpose.LEASE_PURPOSE_REVIEW)
        ],
        "Predict": [
            PredictRequest(name=f"{secret.project}/deployments/d", inputs=[PredictInput(item=secret.item)]),
        ],
        "WatchEvents": [WatchEventsRequest(parent=secret.project, type_prefixes=["vesta."])],
    }
    return [named, *more.get(rpc.descriptor.name, [])]


def telling_rpcs(secret: Secret, role: str) -> set[str]:
    """Those RPCs, of all that read or that annotators may call, whose answers have what the model said."""
    right = {"annotator": Role.ROLE_ANNOTATOR, "reviewer": Role.ROLE_REVIEWER}[role]
    found = set()
    # Leases are taken first, so that what only a holder may call is called by one.
    for rpc in sorted(all_rpcs(), key=lambda one: one.descriptor.name != "LeaseTasks"):
        is_open = RIGHTS[rpc.full_name] is ANY_MEMBER or right in ROLES.get(RIGHTS[rpc.full_name], ())
        if is_open and any(tells(secret.answers(rpc, request, role)) for request in requests_of(secret, rpc)):
            found.add(rpc.descriptor.name)
    return found


def test_no_rpc_tells_an_annotator_what_the_model_says_and_some_tell_a_reviewer(secret: Secret) -> None:
    assert telling_rpcs(secret, "annotator") == set()
    assert telling_rpcs(secret, "reviewer") >= {
        "GetItem",
        "BatchGetItems",
        "ListItems",
        "SearchItems",
        "GetTask",
        "ListTasks",
    }


def test_rest_does_not_tell_either(secret: Secret) -> None:
    def read(role: str, path: str) -> str:
        headers = {"authorization": f"Bearer {secret.keys[role]}"}
        answer = httpx.get(f"{secret.rest}/v1/{path}", headers=headers)
        assert answer.status_code == 200
        return json.dumps(answer.json())

    for path in (secret.item, secret.task, f"{secret.dataset}/items", f"{secret.campaign}/tasks"):
        assert "oracle" not in read("annotator", path)
        assert "oracle" in read("reviewer", path)


def test_no_event_tells_an_annotator_what_the_model_says(secret: Secret) -> None:
    seen: dict[str, list[Any]] = {"annotator": [], "reviewer": []}
    streams = {}
    for role, events in seen.items():
        request = WatchEventsRequest(parent=secret.project, type_prefixes=["vesta."])
        rpc = next(one for one in all_rpcs() if one.descriptor.name == "WatchEvents")
        call = secret.channel.stream_stream(rpc.path, response_deserializer=rpc.response_type.FromString)(
            iter([request.SerializeToString()]), metadata=[("authorization", f"Bearer {secret.keys[role]}")]
        )
        streams[role] = call

        def read(call: Any = call, events: list[Any] = events) -> None:
            with suppress(grpc.RpcError):
                events.extend(call)

        threading.Thread(target=read, daemon=True).start()

    def types(role: str) -> set[str]:
        return {event.type for event in seen[role]}

    cancelled, predicted = "vesta.annotation.task.v1.cancelled", f"{TOPIC}.created"
    wait_until(lambda: cancelled in types("annotator") & types("reviewer"), again=secret.mark)
    wait_until(lambda: predicted in types("reviewer"), again=secret.predict)
    count = len(seen["annotator"])
    wait_until(lambda: len(seen["annotator"]) > count, again=secret.mark)
    for call in streams.values():
        call.cancel()
    assert tells([event.SerializeToString() for event in seen["reviewer"]])
    assert predicted not in types("annotator")
    assert not tells([event.SerializeToString() for event in seen["annotator"]])
