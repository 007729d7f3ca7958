"""Watching events: by project and type, never slowing anybody, dropped when too slow."""

import asyncio

import pytest
from vesta_common.errors import ResourceExhausted, Unavailable
from vesta_contracts.gateway.v1 import ProjectEvent
from vesta_gateway.events.subscribers import Watchers
from vesta_gateway.events.tail import event_topics

ACCEPTED, MADE = "vesta.annotation.task.v1.accepted", "vesta.serving.prediction.v1.created"


async def begin(watchers, project="projects/a", prefixes=()):
    """A watcher that is being waited for, and its first event."""
    events = watchers.watch(project, prefixes)
    first = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    return events, first


def an_event(event_type=ACCEPTED, event_id="1"):
    return ProjectEvent(id=event_id, type=event_type)


def test_a_watcher_gets_only_events_of_its_project():
    async def story():
        watchers = Watchers()
        events, first = await begin(watchers)
        assert watchers.is_watched("projects/a")
        assert not watchers.is_watched("projects/b")
        watchers.publish("projects/b", an_event(event_id="b"))
        watchers.publish("projects/a", an_event(event_id="a"))
        assert (await first).id == "a"
        await events.aclose()
        assert watchers.count == 0
        assert not watchers.is_watched("projects/a")

    asyncio.run(story())


def test_predictions_are_sent_on_request():
    async def story():
        watchers = Watchers()
        _, usual = await begin(watchers)
        _, asking = await begin(watchers, prefixes=["vesta.serving."])
        watchers.publish("projects/a", an_event(MADE))
        watchers.publish("projects/a", an_event(ACCEPTED))
        assert (await usual).type == ACCEPTED
        assert (await asking).type == MADE

    asyncio.run(story())


def test_a_slow_watcher_reads_its_backlog_and_is_dropped_without_affecting_others():
    async def story():
        watchers = Watchers(queue_events_max=3)
        slow, first = await begin(watchers)
        watchers.publish("projects/a", an_event(event_id="0"))
        await first
        quick, following = await begin(watchers)
        for number in range(1, 6):
            watchers.publish("projects/a", an_event(event_id=str(number)))
            assert (await following).id == str(number)
            following = asyncio.ensure_future(anext(quick))
            await asyncio.sleep(0)
        assert [(await anext(slow)).id for _ in range(3)] == ["1", "2", "3"]
        with pytest.raises(ResourceExhausted, match="read faster") as caught:
            await anext(slow)
        assert caught.value.reason == "WATCHER_TOO_SLOW"
        assert watchers.count == 1
        following.cancel()

    asyncio.run(story())


def test_all_watchers_are_closed_at_the_end():
    async def story():
        watchers = Watchers()
        _, first = await begin(watchers)
        watchers.close()
        with pytest.raises(Unavailable) as caught:
            await first
        assert caught.value.reason == "STOPPING"
        with pytest.raises(Unavailable):
            await anext(watchers.watch("projects/a", ()))

    asyncio.run(story())


def test_events_of_resources_are_followed_and_frames_and_dead_letters_are_not():
    topics = event_topics()

    assert {"vesta.annotation.task.v1", "vesta.training.training_run.v1", "vesta.serving.prediction.v1"} <= topics
    assert not any("dead_letter" in topic or "frame" in topic for topic in topics)
