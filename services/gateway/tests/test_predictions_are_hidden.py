"""What a model says of an image reaches no annotator: of everything that carries it, each has a right or a mask."""

import asyncio

from google.protobuf import descriptor_pool
from vesta_common import trace
from vesta_common.clock import SystemClock
from vesta_contracts import everything
from vesta_contracts.gateway.v1 import ProjectEvent, Role, WatchEventsRequest
from vesta_gateway.access.authorization import RIGHTS, ROLES
from vesta_gateway.api.events import EventApi
from vesta_gateway.contracts.methods import all_rpcs
from vesta_gateway.events.subscribers import PREDICTION_TYPES, Watchers

SAYINGS = {"vesta.common.v1.Prediction", "vesta.common.v1.ConceptScore"}
MASKED = {"GetItem", "BatchGetItems", "ListItems"}
"""Of the datasets service, which leaves scores out for annotators and has tests of its own for it."""
ACCEPTED = "vesta.annotation.task.v1.accepted"


def says_something(descriptor, above=()):
    """Whether a message carries what a model says, however deep."""
    if descriptor.full_name in SAYINGS:
        return True
    below = [field.message_type for field in descriptor.fields if field.message_type]
    return any(says_something(one, (*above, descriptor)) for one in below if one not in above)


def test_rpcs_for_annotators_return_no_predictions_unless_masked():
    open_to_annotators = {
        rpc.descriptor.name
        for rpc in all_rpcs()
        if says_something(rpc.descriptor.output_type)
        and Role.ROLE_ANNOTATOR in ROLES.get(RIGHTS[rpc.full_name], frozenset())
    }
    assert open_to_annotators == MASKED


def test_every_event_with_predictions_is_hidden():
    found = set()
    for file in everything.FILES:
        if file.endswith("/events.proto"):
            messages = descriptor_pool.Default().FindFileByName(file).message_types_by_name.values()
            found |= {message.full_name for message in messages if says_something(message)}
    assert found - {"vesta.serving.v1.ItemPrediction"} == {
        "vesta.serving.v1.PredictionCreated",
        "vesta.pipelining.v1.ObservationCreated",
    }
    assert {f"vesta.{kind}.v1.created" for kind in ("serving.prediction", "pipelining.observation")} == PREDICTION_TYPES


def test_an_annotator_who_requests_predictions_gets_only_the_other_events():
    async def first(role):
        watchers = Watchers()
        with trace.calling("projects/a/members/ada", role):
            events = EventApi(watchers, None, SystemClock()).WatchEvents(
                WatchEventsRequest(parent="projects/a", type_prefixes=["vesta."]), None
            )
        reading = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        for kind in (*sorted(PREDICTION_TYPES), ACCEPTED):
            watchers.publish("projects/a", ProjectEvent(type=kind))
        return (await reading).type

    assert asyncio.run(first("annotator")) == ACCEPTED
    assert asyncio.run(first("reviewer")) in PREDICTION_TYPES
