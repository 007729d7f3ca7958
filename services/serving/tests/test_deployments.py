"""Deployments on a real Triton: load, predict, promote, roll back, fail and recover."""

import threading
import uuid
from datetime import timedelta

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from serving_builders import DATASET, PROJECT, a_picture, an_onnx, an_onnx_of_several_labels
from serving_service import IMAGES_IN_FLIGHT_MAX, Serving
from vesta_common.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from vesta_contracts.serving.v1 import (
    CreateDeploymentRequest,
    DeleteDeploymentRequest,
    Deployment,
    GetDeploymentRequest,
    GetPredictionRequest,
    ImagePrediction,
    ListDeploymentsRequest,
    ListPredictionsRequest,
    PredictInput,
    PredictionCreated,
    RollbackDeploymentRequest,
    UncertaintyPolicy,
    UpdateDeploymentRequest,
)
from vesta_serving.backoff import BACKOFF_FIRST
from vesta_serving.triton.client import Triton
from vesta_serving.triton.repository import (
    find_configuration,
    model_configuration,
    write_configuration,
    write_model,
)

RED, GREEN = PredictInput(data=a_picture("red")), PredictInput(data=a_picture("lime", "PNG"))


def _forget_versions(serving: Serving) -> None:
    """Clears the cache of model versions, as after a restart of the service with an empty table."""
    serving.predictor._registry._known.clear()
    with serving.store.postgres.transaction() as connection:
        connection.execute("DELETE FROM versions")


def labels(serving: Serving, deployment: Deployment, *inputs: PredictInput) -> list[str]:
    return [entry.reason or entry.labels[0].concept for entry in serving.predict(deployment, *inputs).predictions]


def test_a_deployment_answers_once_its_version_is_loaded(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version)

    assert (deployment.state, deployment.stable_version, deployment.error) == (Deployment.READY, version, "")
    assert labels(serving, deployment, RED, GREEN) == ["red", "green"]
    assert serving.told() == ["vesta.serving.deployment.v1.promoted"]


def test_a_deployment_that_is_not_loaded_yet_says_so(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    made = serving.deployments.CreateDeployment(
        CreateDeploymentRequest(parent=PROJECT, deployment=Deployment(model_version=version))
    )
    with pytest.raises(Unavailable) as caught:
        serving.predictor.served_model(made.name)
    assert (caught.value.reason, caught.value.retry_after is not None) == ("DEPLOYMENT_NOT_READY", True)


def test_one_bad_image_spoils_no_other(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    bad = PredictInput(data=a_picture()[:-100])

    assert labels(serving, deployment, RED, bad, GREEN) == ["red", "IMAGE_TRUNCATED", "green"]


def test_stored_items_are_answered_beside_bytes(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    item = PredictInput(item=serving.items.add(a_picture("blue")).name)
    none = PredictInput(item=f"{DATASET}/items/none")

    assert labels(serving, deployment, item, RED, none) == ["blue", "red", "RESOURCE_NOT_FOUND"]


def test_stored_items_are_fetched_at_the_same_time(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    items = [serving.items.add(a_picture(colour)) for colour in ("red", "blue")]
    serving.items.look = threading.Barrier(2, timeout=10).wait

    assert labels(serving, deployment, *(PredictInput(item=item.name) for item in items)) == ["red", "blue"]


def test_an_item_of_another_project_is_not_answered(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    item = serving.items.add(a_picture(), dataset="projects/other/datasets/vans")

    assert labels(serving, deployment, PredictInput(item=item.name)) == ["RESOURCE_NOT_FOUND"]


def test_an_embedding_comes_only_where_it_is_asked_for(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))

    (asked,) = serving.predict(deployment, RED, embedding=True).predictions
    (unasked,) = serving.predict(deployment, RED).predictions
    assert ([round(value, 3) for value in asked.embedding], list(unasked.embedding)) == ([0.5] * 4, [])


def test_another_version_is_promoted_and_the_one_before_is_kept(serving: Serving) -> None:
    first, second = serving.registry.add(an_onnx()), serving.registry.add(an_onnx(7))
    deployment = serving.moved(serving.deployed(first), second)

    assert (deployment.stable_version, deployment.previous_version) == (second, first)
    assert serving.predict(deployment, RED).predictions[0].model_version == second


def test_a_roll_back_answers_at_once_and_another_one_returns(serving: Serving) -> None:
    first, second = serving.registry.add(an_onnx()), serving.registry.add(an_onnx(7))
    deployment = serving.moved(serving.deployed(first), second)
    request = RollbackDeploymentRequest(name=deployment.name)

    stable = []
    for _ in range(2):
        serving.deployments.RollbackDeployment(request)
        stable.append(serving.predict(deployment, RED).predictions[0].model_version)
    assert stable == [first, second]


def test_a_repeated_roll_back_is_answered_though_the_deployment_is_gone(serving: Serving) -> None:
    first, second = serving.registry.add(an_onnx()), serving.registry.add(an_onnx(7))
    deployment = serving.moved(serving.deployed(first), second)
    request = RollbackDeploymentRequest(name=deployment.name, request_id=str(uuid.uuid4()))
    answer = serving.deployments.RollbackDeployment(request)
    serving.deployments.DeleteDeployment(DeleteDeploymentRequest(name=deployment.name))
    assert serving.deployments.RollbackDeployment(request) == answer


def test_a_deployment_that_is_deleted_takes_its_predictions_along(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    gone, stays = serving.deployed(version), serving.deployed(version, "stays")
    for deployment in (gone, stays):
        serving.predict(deployment, RED)
    serving.log.step()
    serving.deployments.DeleteDeployment(DeleteDeploymentRequest(name=gone.name))
    with serving.store.postgres.transaction() as connection:
        left = [row["deployment"] for row in connection.execute("SELECT deployment FROM predictions")]
    assert left == [stays.name]


def test_a_first_version_cannot_be_rolled_back(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    with pytest.raises(FailedPrecondition) as caught:
        serving.deployments.RollbackDeployment(RollbackDeploymentRequest(name=deployment.name))
    assert caught.value.reason == "NO_PREVIOUS_VERSION"


def test_a_broken_version_fails_and_the_stable_one_answers_on(serving: Serving) -> None:
    good, broken = serving.registry.add(an_onnx()), serving.registry.add(b"no onnx at all")
    deployment = serving.moved(serving.deployed(good), broken)

    assert (deployment.state, deployment.stable_version, broken in deployment.error) == (Deployment.FAILED, good, True)
    assert labels(serving, deployment, RED) == ["red"]
    assert serving.told()[-1] == "vesta.serving.deployment.v1.failed"


def test_a_failed_deployment_recovers_with_another_version(serving: Serving) -> None:
    broken, good = serving.registry.add(b"broken"), serving.registry.add(an_onnx())
    failed = serving.deployed(broken)
    recovered = serving.moved(failed, good)

    assert (failed.state, recovered.state) == (Deployment.FAILED, Deployment.READY)


def test_a_model_that_triton_refuses_is_told_apart_from_a_triton_that_is_away(serving: Serving) -> None:
    version = serving.registry.add(b"refused")
    serving.deployed(version)
    with pytest.raises(FailedPrecondition) as caught:
        serving.deployer.make_ready(serving.predictor._registry.get(version))
    assert caught.value.reason == "MODEL_REJECTED"


def test_a_model_that_answers_no_numbers_is_not_promoted(serving: Serving) -> None:
    version = serving.registry.add(an_onnx(not_a_number=True))
    deployment = serving.deployed(version)
    with pytest.raises(Unavailable) as caught:
        serving.triton.probe(serving.triton_name(version), classifies=True)
    assert (deployment.state, caught.value.reason) == (Deployment.FAILED, "MODEL_OUTPUT_INVALID")


def test_a_model_that_answered_before_and_is_refused_now_is_unavailable(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version)
    name = serving.triton_name(version)
    serving.triton.unload(name)
    whole = serving.deployer._repository.get(f"triton/{name}/1/model.onnx", checked=False)
    serving.deployer._repository.put_named(f"triton/{name}/1/model.onnx", b"not whole")
    with pytest.raises(Unavailable) as caught:
        labels(serving, deployment, RED)
    assert caught.value.reason == "MODEL_REJECTED"

    serving.deployer._repository.put_named(f"triton/{name}/1/model.onnx", whole)
    assert labels(serving, deployment, RED) == ["red"]


def test_a_model_that_triton_lost_is_loaded_again_by_the_next_call(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version)
    serving.triton.unload(serving.triton_name(version))

    assert labels(serving, deployment, RED) == ["red"]


def test_a_model_that_triton_lost_is_loaded_again_by_the_keeper(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    serving.deployed(version)
    name = serving.triton_name(version)
    serving.triton.unload(name)
    with pytest.raises(Unavailable) as caught:
        serving.triton.probe(name, classifies=True)
    assert caught.value.reason == "MODEL_NOT_LOADED"

    serving.deployer.keep()

    serving.triton.probe(name, classifies=True)


def test_a_customers_own_model_stays_loaded(serving: Serving) -> None:
    write_model(
        serving.repository,
        "model-of-theirs",
        an_onnx(),
        model_configuration("model-of-theirs", 3, 4, gpu=False, instance_count=2),
    )
    serving.triton.load("model-of-theirs")
    serving.deployer.keep()

    assert "model-of-theirs" in serving.triton.loaded()
    serving.triton.unload("model-of-theirs")


def test_settings_that_have_changed_reach_a_model_that_was_laid_down_before(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version)
    name = serving.triton_name(version)
    wanted = find_configuration(serving.repository, name)
    assert wanted is not None
    write_configuration(serving.repository, name, wanted.replace("count: 2", "count: 1"))
    serving.deployer._written.clear()  # as after a restart of the service
    serving.deployer.keep()

    assert find_configuration(serving.repository, name) == wanted
    assert labels(serving, deployment, RED) == ["red"]


def test_a_triton_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable) as caught:
        Triton("127.0.0.1:1").load("model")
    assert caught.value.reason == "TRITON_UNAVAILABLE"


def test_more_images_than_there_is_room_for_are_refused_with_a_time_to_come_again(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    with pytest.raises(ResourceExhausted) as caught:
        serving.predict(deployment, *[RED] * (IMAGES_IN_FLIGHT_MAX + 1))
    assert (caught.value.reason, caught.value.retry_after is not None) == ("OVERLOADED", True)


def test_room_is_given_back_after_an_answer(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    for _ in range(2):
        assert labels(serving, deployment, *[RED] * IMAGES_IN_FLIGHT_MAX) == ["red"] * IMAGES_IN_FLIGHT_MAX


def test_a_version_that_is_not_registered_is_refused(serving: Serving) -> None:
    with pytest.raises(InvalidArgument) as caught:
        serving.deployed(f"{PROJECT}/models/vans/versions/99")
    assert caught.value.reason == "MODEL_VERSION_NOT_FOUND"


def test_a_taken_name_is_told(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    serving.deployed(version)
    with pytest.raises(AlreadyExists) as caught:
        serving.deployed(version)
    assert caught.value.reason == "RESOURCE_EXISTS"


def test_no_transaction_is_open_while_the_registry_is_asked(serving: Serving) -> None:
    first, second = serving.registry.add(an_onnx()), serving.registry.add(an_onnx(7))
    open_ones: list[int] = []
    serving.registry.look = lambda: open_ones.append(serving.open_transactions())
    deployment = serving.moved(serving.deployed(first), second)
    _forget_versions(serving)
    serving.deployments.RollbackDeployment(RollbackDeploymentRequest(name=deployment.name))

    assert open_ones == [0, 0, 0, 0]


def test_an_update_to_no_version_is_refused(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    with pytest.raises(InvalidArgument) as caught:
        serving.moved(deployment, "")
    assert caught.value.reason == "FIELD_INVALID"


def test_an_update_with_the_etag_that_was_read_is_taken(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version)

    assert serving.moved(deployment, version, deployment.etag).stable_version == version


def test_an_update_with_a_stale_etag_is_aborted(serving: Serving) -> None:
    first, second = serving.registry.add(an_onnx()), serving.registry.add(an_onnx(7))
    deployment = serving.deployed(first)
    serving.moved(deployment, second)
    with pytest.raises(Aborted) as caught:
        serving.moved(deployment, first, deployment.etag)
    assert caught.value.reason == "ETAG_STALE"


def test_a_deleted_deployment_is_gone_and_its_model_unloaded(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version)
    serving.deployments.DeleteDeployment(DeleteDeploymentRequest(name=deployment.name))
    serving.deployer.keep()

    with pytest.raises(NotFound) as caught:
        serving.deployments.GetDeployment(GetDeploymentRequest(name=deployment.name))
    assert caught.value.reason == "RESOURCE_NOT_FOUND"
    assert serving.triton_name(version) not in serving.triton.loaded()


def test_deployments_are_listed_by_name_page_by_page(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    for name in ("b", "c", "a"):
        serving.deployed(version, name)
    first = serving.deployments.ListDeployments(ListDeploymentsRequest(parent=PROJECT, page_size=2))
    second = serving.deployments.ListDeployments(
        ListDeploymentsRequest(parent=PROJECT, page_size=2, page_token=first.next_page_token)
    )

    assert [found.name[-1] for found in (*first.deployments, *second.deployments)] == ["a", "b", "c"]


def test_deployments_that_are_listed_each_say_how_far_their_scoring_is(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    serving.items.add(a_picture())
    for name, datasets in (("a", [DATASET]), ("b", []), ("c", [DATASET])):
        serving.deployed(version, name, datasets=datasets)
    while serving.scorer.step():
        pass
    listed = serving.deployments.ListDeployments(ListDeploymentsRequest(parent=PROJECT)).deployments

    assert [found.scoring.scored_count for found in listed] == [1, 0, 1]
    assert list(listed) == [serving.got(found.name) for found in listed]


def test_the_prediction_log_is_read_newest_first_and_by_filter(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    serving.predict(deployment, RED)
    serving.predict(deployment, GREEN)
    serving.log.step()

    every = serving.predictions.ListPredictions(ListPredictionsRequest(parent=deployment.name)).predictions
    green = serving.predictions.ListPredictions(
        ListPredictionsRequest(parent=deployment.name, filter='label = "green" AND score > 0.5')
    ).predictions
    assert [entry.scores.scores[0].concept for entry in every] == ["green", "red"]
    assert list(green) == [serving.predictions.GetPrediction(GetPredictionRequest(name=every[0].name))]


def test_a_prediction_that_is_not_there_is_not_found(serving: Serving) -> None:
    with pytest.raises(NotFound) as caught:
        serving.predictions.GetPrediction(GetPredictionRequest(name=f"{PROJECT}/deployments/d/predictions/none"))
    assert caught.value.reason == "RESOURCE_NOT_FOUND"


def test_a_deployment_that_is_made_again_does_not_bear_the_log_of_the_one_before(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version)
    serving.predict(deployment, RED)
    serving.log.step()
    request = ListPredictionsRequest(parent=deployment.name)
    (logged,) = serving.predictions.ListPredictions(request).predictions
    serving.deployments.DeleteDeployment(DeleteDeploymentRequest(name=deployment.name))
    serving.clock.advance(timedelta(seconds=1))
    serving.deployed(version)

    assert list(serving.predictions.ListPredictions(request).predictions) == []
    with pytest.raises(NotFound):
        serving.predictions.GetPrediction(GetPredictionRequest(name=logged.name))


def test_a_deployment_that_cannot_be_loaded_just_now_holds_up_no_other_and_is_tried_again_later(
    serving: Serving,
) -> None:
    first, second = serving.registry.add(an_onnx()), serving.registry.add(an_onnx(7))
    for name, version in (("first", first), ("second", second)):
        serving.deployments.CreateDeployment(
            CreateDeploymentRequest(parent=PROJECT, deployment_id=name, deployment=Deployment(model_version=version))
        )
    _forget_versions(serving)
    serving.registry.unavailable.add(first)
    assert serving.deployer.step()  # the older deployment
    assert serving.deployer.step()
    assert not serving.deployer.step()  # not a third time: the older deployment is in backoff
    states = [serving.got(f"{PROJECT}/deployments/{name}").state for name in ("first", "second")]
    assert states == [Deployment.LOADING, Deployment.READY]

    serving.registry.unavailable.clear()
    serving.clock.advance(BACKOFF_FIRST)
    assert serving.deployer.step()
    assert serving.got(f"{PROJECT}/deployments/first").state == Deployment.READY


def test_a_deployment_of_which_something_else_is_wanted_waits_no_longer(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    serving.deployments.CreateDeployment(
        CreateDeploymentRequest(parent=PROJECT, deployment_id="vans", deployment=Deployment(model_version=version))
    )
    _forget_versions(serving)
    serving.registry.unavailable.add(version)
    serving.deployer.step()
    moved = serving.moved(serving.got(f"{PROJECT}/deployments/vans"), serving.registry.add(an_onnx(7)))
    assert moved.state == Deployment.READY


def predicted(prediction: ImagePrediction) -> tuple[list[str], bool]:
    return [label.concept for label in prediction.labels], prediction.uncertain


def test_a_multi_label_model_predicts_by_its_thresholds_and_the_log_and_the_items_say_the_same(
    serving: Serving,
) -> None:
    colours = [(40, 0, 250), (10, 200, 0), (0, 0, 0), (255, 255, 255)]
    items = [serving.items.add(a_picture(colour, "PNG")) for colour in colours]
    version = serving.registry.add(an_onnx_of_several_labels(), thresholds=(0.1, 0.9, 0.5))
    deployment = serving.deployed(version, datasets=[DATASET])
    while serving.scorer.step():
        pass
    answers = serving.predict(deployment, *(PredictInput(item=item.name) for item in items)).predictions
    serving.log.step()

    assert [predicted(answer) for answer in answers] == [
        (["blue", "red"], True),
        ([], True),
        ([], False),
        (["red", "green", "blue"], False),
    ]
    (made,) = serving.told(PredictionCreated)
    logged = serving.predictions.ListPredictions(ListPredictionsRequest(parent=deployment.name)).predictions
    assert len(logged) == len(items)
    for label, found in (("red", [0, 3]), ("green", [3])):
        request = ListPredictionsRequest(parent=deployment.name, filter=f"label = {label}")
        listed = serving.predictions.ListPredictions(request).predictions
        assert [entry.item for entry in reversed(listed)] == [items[place].name for place in found]
    for kept in ([one.scores for one in made.predictions], [one.scores for one in reversed(logged)]):
        for scores, answer in zip(kept, answers, strict=True):
            assert [one.concept for one in scores.scores if one.predicted] == predicted(answer)[0]
            assert (scores.uncertain, scores.margin) == (answer.uncertain, answer.margin)


def test_the_thresholds_of_a_deployment_are_used_instead_and_score_its_datasets_again(serving: Serving) -> None:
    item = serving.items.add(a_picture((40, 0, 250), "PNG"))
    version = serving.registry.add(an_onnx_of_several_labels(), thresholds=(0.1, 0.9, 0.5))
    deployment = serving.deployed(version, datasets=[DATASET])
    while serving.scorer.step():
        pass
    changed = serving.deployments.UpdateDeployment(
        UpdateDeploymentRequest(
            deployment=Deployment(name=deployment.name, uncertainty=UncertaintyPolicy(thresholds={"red": 0.3})),
            update_mask=FieldMask(paths=["uncertainty.thresholds"]),
        )
    )
    while serving.scorer.step():
        pass

    assert dict(changed.uncertainty.thresholds) == {"red": 0.3}
    (answer,) = serving.predict(deployment, PredictInput(item=item.name)).predictions
    assert predicted(answer) == (["blue"], False)
    _, again = serving.told(PredictionCreated)
    assert [(one.concept, one.predicted) for one in again.predictions[0].scores.scores] == [
        ("blue", True),
        ("red", False),
        ("green", False),
    ]


def test_thresholds_are_checked_against_the_wanted_version_and_what_a_later_one_does_not_know_is_ignored(
    serving: Serving,
) -> None:
    several = serving.registry.add(an_onnx_of_several_labels(), thresholds=(0.5, 0.5, 0.5))
    single = serving.registry.add(an_onnx())
    for version, thresholds, reason in (
        (several, {"pink": 0.3}, "THRESHOLD_CONCEPT_UNKNOWN"),
        (single, {"red": 0.3}, "MODEL_NOT_MULTI_LABEL"),
        (several, {"red": 1.1}, "FIELD_INVALID"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            serving.deployed(version, uncertainty=UncertaintyPolicy(thresholds=thresholds))
        assert caught.value.reason == reason

    deployment = serving.deployed(several, uncertainty=UncertaintyPolicy(thresholds={"red": 0.1}))
    with pytest.raises(InvalidArgument) as caught:
        serving.deployments.UpdateDeployment(
            UpdateDeploymentRequest(
                deployment=Deployment(name=deployment.name, uncertainty=UncertaintyPolicy(thresholds={"pink": 0.1}))
            )
        )
    assert caught.value.reason == "THRESHOLD_CONCEPT_UNKNOWN"
    moved = serving.moved(deployment, single)
    assert labels(serving, moved, RED) == ["red"]
    assert dict(moved.uncertainty.thresholds) == {"red": 0.1}
