"""The SubmissionService: answers, and their effect on the task."""

from datetime import UTC

import pytest
from annotation_builders import (
    LEASE,
    FakeDatasets,
    FakeItems,
    FakeTaxonomies,
    Service,
    a_box,
    item,
    label,
    member,
    names,
)
from google.protobuf.duration_pb2 import Duration
from vesta_common import trace
from vesta_common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from vesta_common.media.large_annotations import LargeAnnotations
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.annotation.v1 import (
    CreateSubmissionRequest,
    GetSubmissionRequest,
    ListSubmissionsRequest,
    Review,
    Submission,
    Task,
)
from vesta_contracts.common.v1 import Annotation, Keyframe, Keypoint, Keypoints, Mask, PixelBox, PixelPoint, Track

ELBOW = Keypoint(label="elbow", point=PixelPoint(x_px=1, y_px=1))


def test_an_answer_is_stored_with_annotator_time_and_round(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    given = Submission(annotations=[label("van")], time_spent=Duration(seconds=7), annotator="somebody else", round=9)
    with trace.calling(member("ada")):
        made = annotation.submissions.CreateSubmission(CreateSubmissionRequest(parent=task.name, submission=given))
    assert (made.annotator, made.round, made.time_spent.seconds) == (member("ada"), 1, 7)
    assert made.create_time.ToDatetime(UTC) == annotation.clock.now()
    assert annotation.submissions.GetSubmission(GetSubmissionRequest(name=made.name)) == made


def test_a_single_answer_decides_and_is_published_in_the_same_transaction(annotation: Service) -> None:
    annotation.has_campaign()
    (task,) = annotation.has_tasks("one", control=True, model_version="projects/acme/models/vans/versions/3")
    annotation.answer("ada", task, "van")
    decided = annotation.task(task)
    assert (decided.state, list(decided.accepted), list(decided.leases)) == (Task.ACCEPTED, [label("van")], [])
    (event,) = annotation.told()
    assert (event.type, event.subject) == ("vesta.annotation.task.v1.accepted", task.name)
    accepted = event.payload
    assert (accepted.task, accepted.item, accepted.control) == (task.name, item("one"), True)
    assert accepted.model_version == "projects/acme/models/vans/versions/3"
    assert (list(accepted.annotations), list(accepted.annotators)) == ([label("van")], [member("ada")])
    assert (accepted.reviewer, accepted.accept_time.ToDatetime(UTC)) == ("", annotation.clock.now())


def test_none_of_the_concepts_is_an_answer(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.answer("ada", task)
    assert annotation.task(task).state == Task.ACCEPTED


def test_shapes_are_stored_unchanged(annotation: Service) -> None:
    task = annotation.has_task()
    drawn = [a_box(score=0.5, attributes={"occluded": "true"}), a_box("car")]
    annotation.lease("ada")
    annotation.submit("ada", task, *drawn)
    assert list(annotation.task(task).accepted) == list(annotation.told()[0].payload.annotations) == drawn


def test_a_large_answer_is_stored_and_its_event_refers_to_it(annotation: Service, objects: ObjectStore) -> None:
    task = annotation.has_task()
    drawn = [a_box() for _ in range(500)] + [a_box("car", attributes={"n": str(number)}) for number in range(500)]
    annotation.lease("ada")
    annotation.submit("ada", task, *drawn)
    assert list(annotation.task(task).accepted) == drawn
    (event,) = annotation.told()
    accepted = event.payload
    assert len(event.value) < 1000
    assert (list(accepted.annotations), list(accepted.annotators)) == ([], [member("ada")])
    assert (accepted.stored.annotation_count, list(accepted.stored.concepts)) == (1000, ["car", "van"])
    assert accepted.stored.object_key.startswith("annotations/acme/vans/")
    assert list(LargeAnnotations(objects).load(accepted.stored)) == drawn


def test_a_task_waits_for_all_its_answers(annotation: Service) -> None:
    task = annotation.has_task(annotators_per_task=2)
    annotation.answer("ada", task, "van")
    waiting = annotation.task(task)
    assert (waiting.state, waiting.submission_count, annotation.told()) == (Task.OPEN, 1, [])
    annotation.answer("bob", task, "van")
    assert annotation.task(task).state == Task.ACCEPTED


def test_a_majority_of_the_answers_decides(annotation: Service) -> None:
    task = annotation.has_task(annotators_per_task=3)
    for name, concept in (("ada", "van"), ("bob", "car"), ("cyd", "van")):
        annotation.answer(name, task, concept)
    (event,) = annotation.told()
    assert list(event.payload.annotators) == [member("ada"), member("cyd")]


@pytest.mark.parametrize(("share", "bob"), [(0.0, "car"), (1.0, "van")])
def test_ties_and_sampled_tasks_go_to_review(annotation: Service, share: float, bob: str) -> None:
    task = annotation.has_task(annotators_per_task=2, review_share=share)
    annotation.answer("ada", task, "van")
    annotation.answer("bob", task, bob)
    assert (annotation.task(task).state, annotation.told()) == (Task.IN_REVIEW, [])


def test_submitting_twice_fails_and_publishes_nothing_more(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.answer("ada", task, "van")
    with pytest.raises(AlreadyExists) as raised:
        annotation.submit("ada", task, label("car"))
    assert raised.value.reason == "TASK_ANSWERED"
    assert len(annotation.told()) == 1


def test_a_repeated_request_returns_the_first_response_and_publishes_nothing_more(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    first = annotation.submit("ada", task, label("van"), request_id="r1")
    assert annotation.submit("ada", task, label("van"), request_id="r1") == first
    assert len(annotation.told()) == 1


def test_without_a_lease_answers_are_rejected(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("bob")
    with pytest.raises(FailedPrecondition) as raised:
        annotation.submit("ada", task, label("van"))
    assert raised.value.reason == "LEASE_LOST"


def test_a_rejected_answer_keeps_the_lease(annotation: Service) -> None:
    task = annotation.has_task(concepts=["van", "car"])
    annotation.lease("ada")
    with pytest.raises(InvalidArgument) as raised:
        annotation.submit("ada", task, label("bus"))
    assert raised.value.reason == "CONCEPT_NOT_IN_CAMPAIGN"
    annotation.submit("ada", task, label("car"))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (Annotation(concept="van", box=PixelBox(x_max_px=99, y_max_px=9)), "SHAPE_OUTSIDE_IMAGE"),
        (Annotation(concept="van", mask=Mask(width_px=48, height_px=64, runs_px=[64 * 48])), "MASK_SIZE_MISMATCH"),
        (Annotation(concept="van", mask=Mask(width_px=64, height_px=48, runs_px=[9])), "MASK_RUNS_INVALID"),
        (Annotation(concept="van", keypoints=Keypoints(points=[ELBOW])), "KEYPOINT_UNKNOWN"),
        (Annotation(concept="van", track=Track(keyframes=[Keyframe()])), "SHAPE_NEEDS_CLIP"),
        (Annotation(concept="van"), "SHAPE_MISSING"),
    ],
)
def test_a_shape_outside_the_image_is_rejected_and_nothing_is_stored(
    annotation: Service, wrong: Annotation, reason: str
) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    with pytest.raises(InvalidArgument) as refused:
        annotation.submit("ada", task, label("van"), wrong)
    assert (refused.value.reason, refused.value.violations[0].field) == (reason, "submission.annotations[1]")
    assert annotation.task(task).submission_count == 0


def test_an_answer_may_use_only_current_concepts_of_the_taxonomy(
    annotation: Service, taxonomies: FakeTaxonomies
) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    taxonomies.gone.add("bus")
    with pytest.raises(InvalidArgument) as refused:
        annotation.submit("ada", task, label("bus"))
    assert refused.value.reason == "CONCEPT_UNKNOWN"
    annotation.submit("ada", task, label("van"))


def test_a_majority_for_a_removed_concept_goes_to_review(annotation: Service, taxonomies: FakeTaxonomies) -> None:
    task = annotation.has_task(annotators_per_task=3)
    for name in ("ada", "bob"):
        annotation.answer(name, task, "bus")
    taxonomies.gone.add("bus")
    annotation.answer("cyd", task, "van")
    assert annotation.task(task).state == Task.IN_REVIEW
    annotation.lease_to_review("rosa")
    with pytest.raises(InvalidArgument) as refused:
        annotation.review("rosa", task, Review.ACCEPT)
    assert refused.value.reason == "CONCEPT_UNKNOWN"
    annotation.review("rosa", task, Review.CORRECT, label("van"))


def test_the_image_size_is_read_from_the_item_if_the_task_lacks_it(annotation: Service, items: FakeItems) -> None:
    """Removes the image size from a task, as in tasks of older versions."""
    task = annotation.has_task()
    with annotation.postgres.transaction() as connection:
        connection.execute("UPDATE tasks SET body = ''")
    annotation.lease("ada")
    outside = Annotation(concept="van", box=PixelBox(x_max_px=99, y_max_px=9))
    with pytest.raises(InvalidArgument) as refused:
        annotation.submit("ada", task, outside)
    assert refused.value.reason == "SHAPE_OUTSIDE_IMAGE"
    items.gone.add(task.item)
    with pytest.raises(FailedPrecondition, match=task.item) as gone:
        annotation.submit("ada", task, label("van"))
    assert gone.value.reason == "DATASET_DELETED"


def test_answers_for_a_deleted_dataset_are_rejected_except_repeated_requests(
    annotation: Service, datasets: FakeDatasets
) -> None:
    annotation.has_campaign(annotators_per_task=2)
    (task,) = annotation.has_tasks("one")
    annotation.lease("ada")
    annotation.lease("bob")
    made = annotation.submit("ada", task, label("van"), request_id="r1")
    datasets.gone = True
    assert annotation.submit("ada", task, label("van"), request_id="r1") == made
    with pytest.raises(FailedPrecondition) as refused:
        annotation.submit("bob", task, label("van"))
    assert refused.value.reason == "DATASET_DELETED"


def test_a_reviewer_cannot_answer_the_task_under_review(annotation: Service) -> None:
    task = annotation.is_disputed()
    annotation.lease_to_review("rosa")
    with pytest.raises(FailedPrecondition) as raised:
        annotation.submit("rosa", task, label("van"))
    assert raised.value.reason == "TASK_IN_REVIEW"


def test_an_answer_to_a_decided_task_is_rejected(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.answer("ada", task, "van")
    with pytest.raises(FailedPrecondition) as raised:
        annotation.submit("bob", task, label("van"))
    assert raised.value.reason == "TASK_DECIDED"


def test_answers_are_listed_by_time_in_pages(annotation: Service) -> None:
    task = annotation.has_task(annotators_per_task=3)
    for name in ("cyd", "ada", "bob"):
        annotation.answer(name, task, "van")
    request, annotators = ListSubmissionsRequest(parent=task.name, page_size=2), []
    while not annotators or request.page_token:
        page = annotation.submissions.ListSubmissions(request)
        annotators += [one.annotator for one in page.submissions]
        request.page_token = page.next_page_token
    assert annotators == [member("cyd"), member("ada"), member("bob")]


@pytest.mark.parametrize(("role", "sees"), [("annotator", ["bob"]), ("reviewer", ["ada", "bob"]), ("", ["ada", "bob"])])
def test_annotators_see_the_answers_of_others_only_when_a_task_has_all_of_them(
    annotation: Service, role: str, sees: list[str]
) -> None:
    task = annotation.has_task(annotators_per_task=3)
    answers = {name: annotation.answer(name, task, "van") for name in ("ada", "bob")}

    def seen() -> list[str]:
        with trace.calling(member("bob"), role):
            listed = annotation.submissions.ListSubmissions(ListSubmissionsRequest(parent=task.name)).submissions
            for name in answers:
                request = GetSubmissionRequest(name=answers[name].name)
                if answers[name] in listed:
                    assert annotation.submissions.GetSubmission(request) == answers[name]
                else:
                    with pytest.raises(NotFound):
                        annotation.submissions.GetSubmission(request)
        return [name for name in answers if answers[name] in listed]

    assert seen() == sees
    annotation.answer("cyd", task, "van")
    assert seen() == ["ada", "bob"]


def test_unknown_names_are_not_found(annotation: Service) -> None:
    task = annotation.has_task()
    gone = Task(name=f"{task.name}x")
    with pytest.raises(NotFound):
        annotation.submit("ada", gone, label("van"))
    with pytest.raises(NotFound):
        annotation.submissions.ListSubmissions(ListSubmissionsRequest(parent=gone.name))
    with pytest.raises(NotFound):
        annotation.submissions.GetSubmission(GetSubmissionRequest(name=f"{task.name}/submissions/gone"))


def test_a_late_answer_counts_if_the_annotator_has_leased_the_task_again(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    annotation.clock.advance(LEASE)
    assert names(annotation.lease("ada")) == [task.name]
    annotation.submit("ada", task, label("van"))
