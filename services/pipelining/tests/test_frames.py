"""Frames on the broker become observations: in order, once, whatever fails."""

from datetime import timedelta
from itertools import pairwise

import psycopg
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from pipelining_builders import OBJECTS_MANY, PIPELINE, a_detection, a_frame, a_jpeg, a_map, eventually
from pipelining_service import Pipelining
from vesta_common.errors import InvalidArgument, NotFound, ResourceExhausted, Unavailable
from vesta_contracts.pipelining.v1 import DeleteStreamRequest, Stream, UpdateStreamRequest

DARK = a_jpeg(red=10)


def test_frames_of_several_cameras_become_observations_in_order(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    streams = [pipelining.a_stream(camera) for camera in ("door", "yard", "gate")]
    frames = [a_frame(streams[number % 3], age=timedelta(seconds=60 - number)) for number in range(60)]
    pipelining.publish(*frames)
    told = pipelining.told(60)
    for stream in streams:
        sent = [frame.time.replace(tzinfo=None) for frame in frames if frame.subject == stream]
        seen = [event.payload.observation.frame_time.ToDatetime() for event in told if event.subject == stream]
        assert seen == sent
        kept = pipelining.when(stream, lambda found: found.observed_count == 20)
        assert kept.last_frame_time.ToDatetime() == sent[-1]
        assert 0 < kept.lag.ToTimedelta().total_seconds() < 60
        listed = pipelining.observed(stream)
        assert [entry.frame_time.ToDatetime() for entry in listed] == sent[::-1]
        assert all(newer.name > older.name for newer, older in pairwise(listed))
    assert max(pipelining.serving.asked) > 1
    best = told[0].payload.observation
    assert [label.concept for label in best.labels] == ["van"]
    assert [score.concept for score in best.prediction.scores] == ["van", "car"]


def test_an_observation_has_the_labels_that_serving_predicts_and_all_scores_best_first(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door = pipelining.a_stream("door")
    pipelining.publish(a_frame(door, data=a_jpeg(red=0, green=200)))
    pipelining.when(door, lambda found: found.observed_count == 1)
    (seen,) = pipelining.observed(door, "label = van AND NOT label = car")

    assert [label.concept for label in seen.labels] == ["van"]
    assert [(one.concept, one.predicted) for one in seen.prediction.scores] == [("car", False), ("van", True)]


def test_an_observation_has_the_objects_of_a_frame_and_their_concepts_as_labels(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door = pipelining.a_stream("door")
    pipelining.publish(a_frame(door, data=a_jpeg(red=0, blue=200)))
    (event,) = pipelining.told(1)
    (seen,) = pipelining.observed(door, "label = van")

    assert list(seen.prediction.annotations) == list(a_detection(2).annotations)
    assert [label.concept for label in seen.labels] == ["van"]
    assert event.payload.observation.prediction == seen.prediction


def test_the_event_of_a_frame_with_too_many_objects_leaves_them_out(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door = pipelining.a_stream("door")
    pipelining.publish(a_frame(door, data=a_jpeg(red=0, green=200, blue=200)))
    (event,) = pipelining.told(1)
    (seen,) = pipelining.observed(door)

    assert len(seen.prediction.annotations) == OBJECTS_MANY
    assert list(event.payload.observation.prediction.annotations) == []
    assert [label.concept for label in event.payload.observation.labels] == ["van"]


def test_the_map_of_a_frame_is_in_its_event_unless_it_is_too_large(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door = pipelining.a_stream("door")
    pipelining.publish(
        a_frame(door, data=a_jpeg(red=0, blue=255)), a_frame(door, data=a_jpeg(red=0, green=200, blue=255))
    )
    small, large = (event.payload.observation for event in pipelining.told(2))
    seen = {one.name: one.prediction for one in pipelining.observed(door, "label = van")}

    assert (small.prediction, seen[small.name]) == (a_map(8), a_map(8))
    assert seen[large.name] == a_map(200)
    assert not large.prediction.HasField("segmentation_map")
    assert [label.concept for label in large.labels] == ["van", "car"]


def test_a_duplicate_frame_is_observed_once(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door = pipelining.a_stream("door")
    frame, last = a_frame(door), a_frame(door)
    pipelining.publish(frame, frame, last)
    pipelining.when(door, lambda found: found.observed_count >= 2)
    pipelining.publish(frame, a_frame(door))
    assert pipelining.when(door, lambda found: found.observed_count >= 3).observed_count == 3
    assert len(pipelining.observed(door)) == 3


def test_old_frames_are_dropped_and_counted(pipelining: Pipelining) -> None:
    pipelining.a_pipeline(age_max=Duration(seconds=20))
    door = pipelining.a_stream("door")
    pipelining.publish(a_frame(door, age=timedelta(seconds=30)), a_frame(door, age=timedelta(hours=1)), a_frame(door))
    found = pipelining.when(door, lambda stream: stream.observed_count == 1)
    assert (found.dropped_count, found.rejected_count) == (2, 0)


def test_frames_that_are_no_images_are_counted_as_rejected_and_stop_nothing(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door = pipelining.a_stream("door")
    pipelining.publish(
        a_frame(door), a_frame(door, data=b"\xff\xd8nothing"), a_frame(door, data=b"x" * 8_000_001), a_frame(door)
    )
    found = pipelining.when(door, lambda stream: stream.observed_count == 2)
    assert (found.rejected_count, found.dropped_count) == (2, 0)
    assert pipelining.letters() == []


def test_frames_of_unknown_streams_become_dead_letters_and_stop_nothing(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door, gone = pipelining.a_stream("door"), pipelining.a_stream("gone")
    pipelining.streams.DeleteStream(DeleteStreamRequest(name=gone))
    pipelining.publish(*(a_frame(gone) for _ in range(120)))  # more than a consumer's limit of consecutive failures
    pipelining.publish(a_frame(door, age=timedelta(hours=-1)), a_frame(door))
    pipelining.when(door, lambda stream: stream.observed_count == 1)
    reasons = [
        letter.reason.partition(":")[0] for letter in eventually(pipelining.letters, lambda all_: len(all_) > 120)
    ]
    assert sorted(set(reasons)) == ["FRAME_TIME_IN_FUTURE", "STREAM_NOT_FOUND"]
    assert reasons.count("STREAM_NOT_FOUND") == 120
    assert all(component.healthy() for component in pipelining.app.components)


def test_frames_wait_in_order_while_serving_is_overloaded(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door = pipelining.a_stream("door")
    pipelining.serving.failure = ResourceExhausted("too much", reason="OVERLOADED")
    frames = [a_frame(door, age=timedelta(seconds=9 - number)) for number in range(6)]
    pipelining.publish(*frames)
    eventually(lambda: len(pipelining.serving.asked), lambda calls: calls > 3)
    pipelining.serving.failure = None
    seen = [event.payload.observation.frame_time.ToDatetime() for event in pipelining.told(6)]
    assert seen == [frame.time.replace(tzinfo=None) for frame in frames]


def test_a_lasting_overload_sheds_old_frames(pipelining: Pipelining) -> None:
    pipelining.a_pipeline(age_max=Duration(seconds=1))
    door = pipelining.a_stream("door")
    pipelining.serving.failure = Unavailable("away")
    pipelining.publish(*(a_frame(door) for _ in range(20)))
    assert pipelining.when(door, lambda stream: stream.dropped_count == 20).observed_count == 0
    pipelining.serving.failure = None
    pipelining.publish(a_frame(door))
    pipelining.when(door, lambda stream: stream.observed_count == 1)


def test_a_deleted_deployment_does_not_stop_the_consumer(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door = pipelining.a_stream("door")
    pipelining.serving.failure = NotFound("gone")
    pipelining.publish(*(a_frame(door) for _ in range(150)))
    pipelining.when(door, lambda stream: stream.dropped_count == 150)
    assert all(component.healthy() for component in pipelining.app.components)


def test_no_transaction_is_open_during_inference(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door = pipelining.a_stream("door")
    pipelining.serving.gate.clear()
    pipelining.publish(a_frame(door))
    eventually(lambda: pipelining.serving.asked, bool)
    with psycopg.connect(pipelining.settings.postgres_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state LIKE 'idle in transaction%%'",
            (f"vesta-{pipelining.settings.postgres_schema}",),
        ).fetchone()
    pipelining.serving.gate.set()
    assert row == (0,)
    pipelining.when(door, lambda stream: stream.observed_count == 1)


def test_uncertain_frames_are_uploaded_once(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door = pipelining.a_stream("door")
    frame = a_frame(door, data=DARK)
    pipelining.publish(frame, a_frame(door), frame)
    pipelining.when(door, lambda stream: stream.uncertain_count == 1)
    (sent,) = pipelining.connection.taken
    assert sent.file.data == DARK
    assert dict(sent.metadata) == {"camera": "door", "stream": door}
    assert sent.file_name.startswith("door-")
    (seen,) = pipelining.observed(door, "uncertain")
    assert seen.item in pipelining.connection.items.values()
    assert pipelining.observed(door, "label = van AND NOT uncertain")[0].item == ""
    assert pipelining.observed(door, 'frame_time < "2020-01-01T00:00:00Z"') == []


def test_uncertain_frames_above_the_budget_are_not_uploaded(pipelining: Pipelining) -> None:
    pipelining.a_pipeline(uncertain_per_minute_max=2)
    door = pipelining.a_stream("door")
    pipelining.publish(*(a_frame(door, data=DARK) for _ in range(6)))
    pipelining.when(door, lambda stream: stream.observed_count == 6)
    pipelining.when(door, lambda stream: stream.uncertain_count == 2)
    assert _waiting(pipelining) == 0


def test_a_kill_loses_no_uncertain_frame_and_a_lost_response_uploads_none_twice(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door = pipelining.a_stream("door")
    pipelining.connection.failure = Unavailable("away")
    pipelining.publish(*(a_frame(door, data=a_jpeg(red)) for red in (10, 40, 70)))
    pipelining.when(door, lambda stream: stream.observed_count == 3)
    pipelining.stop()
    pipelining.connection.failure, pipelining.connection.lost = None, 1
    pipelining.start()
    assert pipelining.when(door, lambda stream: stream.uncertain_count >= 3).uncertain_count == 3
    assert len(pipelining.connection.items) == 3
    assert len({entry.item for entry in pipelining.observed(door)}) == 3


def test_a_rejected_uncertain_frame_is_not_retried(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door = pipelining.a_stream("door")
    pipelining.connection.failure = InvalidArgument("no", reason="IMAGE_TOO_SMALL")
    pipelining.publish(a_frame(door, data=DARK))
    pipelining.when(door, lambda stream: stream.observed_count == 1)
    eventually(lambda: _waiting(pipelining), lambda count: count == 0)
    assert pipelining.stream(door).uncertain_count == 0


def test_a_restarted_service_repeats_no_frame(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door = pipelining.a_stream("door", PIPELINE)
    pipelining.publish(*(a_frame(door) for _ in range(5)))
    pipelining.when(door, lambda stream: stream.observed_count == 5)
    pipelining.stop()
    pipelining.publish(*(a_frame(door) for _ in range(5)))
    pipelining.start()
    assert pipelining.when(door, lambda stream: stream.observed_count >= 10).observed_count == 10


def _waiting(pipelining: Pipelining) -> int:
    """Returns the number of uncertain frames that wait for upload."""
    with psycopg.connect(pipelining.settings.postgres_url) as connection:
        row = connection.execute(
            f"SELECT count(*) FROM {pipelining.settings.postgres_schema}.uncertain_frames"  # type: ignore[arg-type]
        ).fetchone()
    assert row
    return int(row[0])


def test_frames_of_a_paused_stream_are_dropped_until_it_resumes(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door, yard = pipelining.a_stream("door"), pipelining.a_stream("yard")
    etag = pipelining.stream(door).etag
    pipelining.publish(a_frame(door))
    assert pipelining.when(door, lambda found: found.observed_count == 1).etag == etag  # counts do not change it

    pipelining.streams.UpdateStream(UpdateStreamRequest(stream=Stream(name=door, paused=True, etag=etag)))
    pipelining.when_frames_come(door, lambda found: found.dropped_count > 0)  # a running worker applies it
    seen, asked = pipelining.stream(door).observed_count, sum(pipelining.serving.asked)
    pipelining.publish(a_frame(door), a_frame(door), a_frame(yard))
    pipelining.when(yard, lambda found: found.observed_count == 1)
    pipelining.when(door, lambda found: found.dropped_count >= 3)
    assert (pipelining.stream(door).observed_count, sum(pipelining.serving.asked)) == (seen, asked + 1)

    pipelining.streams.UpdateStream(
        UpdateStreamRequest(stream=Stream(name=door), update_mask=FieldMask(paths=["paused"]))
    )
    pipelining.when_frames_come(door, lambda found: found.observed_count > seen)


def test_a_stream_can_have_a_lower_budget_of_uncertain_frames_than_its_pipeline(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door, yard = pipelining.a_stream("door"), pipelining.a_stream("yard")
    pipelining.streams.UpdateStream(UpdateStreamRequest(stream=Stream(name=door, uncertain_per_minute_max=1)))
    pipelining.publish(*(a_frame(stream, data=DARK) for stream in (door, yard) for _ in range(3)))
    pipelining.when(door, lambda found: found.observed_count == 3)
    assert pipelining.when(yard, lambda found: found.uncertain_count == 3).uncertain_count == 3
    assert pipelining.when(door, lambda found: found.uncertain_count == 1).uncertain_count == 1
    assert _waiting(pipelining) == 0
