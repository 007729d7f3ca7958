"""Scoring of datasets and new items: every item once, despite kills."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta

import numpy as np
import pytest
from serving_builders import DATASET, PROJECT, a_picture, eventually
from serving_models import an_onnx, an_onnx_with_a_head
from serving_service import Serving
from vesta_common.errors import Unavailable
from vesta_common.leases import LeaseLost
from vesta_common.media.model_input import Placement
from vesta_common.media.model_pictures import ModelPicture
from vesta_contracts.datasets.v1 import ItemEmbedding
from vesta_contracts.serving.v1 import DeleteDeploymentRequest, PredictInput, PredictionCreated
from vesta_serving.backoff import BACKOFF_FIRST
from vesta_serving.predictions.predictor import PredictedImage, Predictor, ServedModel
from vesta_serving.scoring.scorer import EVENT_ITEMS_MAX, PAGE_ITEMS, Scorer
from vesta_serving.store.scoring import LEASE_DURATION
from vesta_serving.triton.model import Outputs

SCORED = "vesta.serving.deployment.v1.scored"


class Watched(Predictor):
    """The service's predictor, with a callback before each prediction."""

    def __init__(self, serving: Serving, look: Callable[[ServedModel], None]) -> None:
        self._serving, self._look = serving.predictor, look
        serving.scorer._predictor = self

    def served_model(self, name: str) -> ServedModel:
        return self._serving.served_model(name)

    def forget(self, name: str) -> None:
        self._serving.forget(name)

    def apply_policy(
        self, served: ServedModel, outputs: Outputs, placements: Sequence[Placement]
    ) -> list[PredictedImage]:
        return self._serving.apply_policy(served, outputs, placements)

    def predict(self, served: ServedModel, pictures: Sequence[ModelPicture], *, embeds: bool) -> list[PredictedImage]:
        self._look(served)
        return self._serving.predict(served, pictures, embeds=embeds)


def scored(serving: Serving) -> Counter[str]:
    return Counter(entry.item for made in serving.told(PredictionCreated) for entry in made.predictions)


def fail_predictions_of(serving: Serving, *deployments: str) -> set[str]:
    """Lets the predictions of deployments fail while they are in the returned set."""
    failing = {*deployments}

    def fail(served: ServedModel) -> None:
        if served.row.name in failing:
            raise Unavailable("its model has died")

    Watched(serving, fail)
    return failing


def test_every_item_is_published_once_and_then_the_end_of_the_pass(serving: Serving) -> None:
    names = [serving.items.add(a_picture("red")).name for _ in range(EVENT_ITEMS_MAX + 6)]
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version, datasets=[DATASET])
    serving.score()

    made = serving.told(PredictionCreated)
    assert scored(serving) == Counter(names)
    assert {(event.model_version, event.embedding_digest) for event in made} == {(version, "space")}
    assert len({event.generation for event in made}) == 1
    assert len(made[0].predictions[0].embedding) == 4 * 4
    assert serving.told()[-1] == SCORED
    assert serving.got(deployment.name).scoring.scored_count == len(names)


def test_scoring_resumes_where_a_killed_worker_stopped(serving: Serving) -> None:
    names = [serving.items.add(a_picture("red")).name for _ in range(PAGE_ITEMS + 5)]
    serving.deployed(serving.registry.add(an_onnx()), datasets=[DATASET])
    serving.scorer.step()
    before = sum(scored(serving).values())
    serving.store.scoring.claim_pass()  # the next worker dies after its claim
    assert not serving.scorer.step()
    serving.clock.advance(LEASE_DURATION + timedelta(seconds=1))
    serving.score()

    assert (before, scored(serving)) == (PAGE_ITEMS, Counter(names))


def test_an_unreadable_item_is_skipped_and_the_others_are_scored(serving: Serving) -> None:
    good = serving.items.add(a_picture("red"))
    serving.items.add(b"no picture")
    serving.deployed(serving.registry.add(an_onnx()), datasets=[DATASET])
    serving.score()

    assert (scored(serving), serving.told()[-1]) == (Counter([good.name]), SCORED)


def test_a_new_version_scores_all_items_again(serving: Serving) -> None:
    item = serving.items.add(a_picture("red"))
    deployment = serving.deployed(serving.registry.add(an_onnx()), datasets=[DATASET])
    serving.score()
    (first,) = serving.told(PredictionCreated)
    serving.items.embeddings[item.name] = ItemEmbedding(digest="space", values=first.predictions[0].embedding)
    serving.moved(deployment, serving.registry.add(an_onnx(7)))
    serving.score()

    _, second = serving.told(PredictionCreated)
    assert first.generation < second.generation
    assert [bool(event.predictions[0].embedding) for event in (first, second)] == [True, False]
    assert serving.told().count(SCORED) == 2


def test_a_new_head_scores_the_stored_embeddings_without_reading_images(
    serving: Serving,
) -> None:
    items = [serving.items.add(a_picture(colour)) for colour in ("red", "green", "blue")]
    deployment = serving.deployed(serving.registry.add(an_onnx_with_a_head()), datasets=[DATASET])
    serving.score()
    (first,) = serving.told(PredictionCreated)
    # The last item has an embedding of another space, the second one has none.
    serving.items.embeddings = {
        items[0].name: ItemEmbedding(digest="space", values=first.predictions[0].embedding),
        items[2].name: ItemEmbedding(digest="elsewhere", values=first.predictions[2].embedding),
    }
    asked: list[int] = []
    Watched(serving, lambda _: asked.append(1))
    serving.moved(deployment, serving.registry.add(an_onnx_with_a_head(2)))
    serving.score()

    _, second = serving.told(PredictionCreated)
    assert len(asked) == 1  # once for both images
    assert [entry.item for entry in second.predictions] == [item.name for item in items]
    assert [bool(entry.embedding) for entry in second.predictions] == [False, True, True]
    answer = serving.predict(serving.got(deployment.name), PredictInput(data=a_picture("red"))).predictions[0]
    told = second.predictions[0].prediction
    assert told.model_version == answer.model_version != first.model_version
    np.testing.assert_allclose(
        [one.score for one in told.scores], [one.score for one in [*answer.labels, *answer.other_labels]], atol=1e-5
    )
    assert (told.uncertain, round(told.margin, 5)) == (answer.uncertain, round(answer.margin, 5))


def test_a_new_item_is_scored_alone(serving: Serving) -> None:
    serving.deployed(serving.registry.add(an_onnx()), datasets=[DATASET])
    serving.score()
    item = serving.items.add(a_picture("blue"))
    serving.arrives(item)
    serving.scorer.step()

    (made,) = serving.told(PredictionCreated)
    assert (made.predictions[0].item, made.predictions[0].prediction.scores[0].concept) == (item.name, "blue")


def test_an_item_that_is_added_right_after_an_update_is_scored_by_the_new_version(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()), datasets=[DATASET])
    before = serving.predictor.served_model(deployment.name)
    newer = serving.registry.add(an_onnx(7))
    serving.moved(deployment, newer)
    serving.score()
    serving.predictor._fresh[deployment.name] = (time.monotonic(), before)  # it may be cached for half a second
    serving.arrives(serving.items.add(a_picture("blue")))
    serving.scorer.step()

    assert serving.told(PredictionCreated)[-1].model_version == newer


def test_predictions_over_a_thousand_concepts_fit_into_events(serving: Serving) -> None:
    names = [serving.items.add(a_picture("red")).name for _ in range(EVENT_ITEMS_MAX)]
    concepts = [f"concept-{number:040d}" for number in range(1_000)]
    serving.deployed(serving.registry.add(an_onnx(concept_count=1_000), concepts=concepts), datasets=[DATASET])
    serving.score()

    assert (scored(serving), serving.told()[-1]) == (Counter(names), SCORED)
    assert len(serving.told(PredictionCreated)) > 1


def test_deleting_a_dataset_ends_its_pass_and_the_others_are_published(serving: Serving) -> None:
    gone = f"{PROJECT}/datasets/gone"
    item = serving.items.add(a_picture("red"))
    serving.deployed(serving.registry.add(an_onnx()), datasets=[gone, DATASET])
    serving.score()

    assert (scored(serving), serving.told()[-1]) == (Counter([item.name]), SCORED)


def test_scores_of_a_recreated_deployment_count_as_newer(serving: Serving) -> None:
    serving.items.add(a_picture("red"))
    versions = [serving.registry.add(an_onnx(scale)) for scale in (8.0, 7.0)]
    deployment = serving.moved(serving.deployed(versions[0], datasets=[DATASET]), versions[1])
    serving.score()
    serving.deployments.DeleteDeployment(DeleteDeploymentRequest(name=deployment.name))
    serving.deployed(versions[0], datasets=[DATASET])
    serving.score()

    before, after = serving.told(PredictionCreated)
    assert before.deployment == after.deployment
    assert before.generation < after.generation


def test_no_transaction_is_open_during_inference(serving: Serving) -> None:
    serving.deployed(serving.registry.add(an_onnx()), datasets=[DATASET])
    serving.score()
    item = serving.items.add(a_picture("blue"))
    serving.arrives(item)
    open_ones: list[int] = []
    Watched(serving, lambda _: open_ones.append(serving.open_transactions()))
    serving.scorer.step()

    assert (open_ones, scored(serving)) == ([0], Counter([item.name]))


def test_a_failing_deployment_does_not_block_others_and_is_retried_after_its_backoff(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    broken, well = (serving.deployed(version, name, datasets=[DATASET]) for name in ("broken", "well"))
    serving.score()
    items = [serving.items.add(a_picture("blue")) for _ in range(EVENT_ITEMS_MAX + 1)]
    for item in items:
        serving.arrives(item)
    failing = fail_predictions_of(serving, broken.name)
    serving.score()
    assert {made.deployment for made in serving.told(PredictionCreated)} == {well.name}
    assert scored(serving) == Counter(item.name for item in items)

    failing.clear()
    serving.clock.advance(BACKOFF_FIRST + timedelta(seconds=1))
    serving.score()
    assert scored(serving) == Counter(item.name for item in items * 2)


def test_new_items_of_a_killed_worker_are_scored_by_the_next_worker(serving: Serving) -> None:
    serving.deployed(serving.registry.add(an_onnx()), datasets=[DATASET])
    serving.score()
    item = serving.items.add(a_picture("blue"))
    serving.arrives(item)
    serving.store.scoring.claim_arrivals(EVENT_ITEMS_MAX)
    assert not serving.scorer.step()
    serving.clock.advance(LEASE_DURATION + timedelta(seconds=1))
    serving.scorer.step()

    assert scored(serving) == Counter([item.name])


def test_of_two_passes_that_end_concurrently_exactly_one_is_the_last(serving: Serving) -> None:
    other = f"{PROJECT}/datasets/other"
    serving.deployed(serving.registry.add(an_onnx()), datasets=[DATASET, other])
    store = serving.store
    first, second = (store.scoring.claim_pass() for _ in range(2))
    assert first
    assert second
    finished: list[bool] = []

    def end_second() -> None:
        with store.postgres.transaction() as connection:
            finished.append(store.scoring.advance_pass(connection, second, "", 0, 1, done=True))

    with store.postgres.transaction() as connection:
        before = store.scoring.advance_pass(connection, first, "", 0, 1, done=True)
        thread = threading.Thread(target=end_second)
        thread.start()  # the first has not committed yet
        eventually(lambda: serving.waiting_for_locks() or not thread.is_alive(), bool)
    thread.join()

    assert (before, finished) == (False, [True])


def test_a_failing_pass_blocks_neither_other_deployments_nor_other_datasets(serving: Serving) -> None:
    version, other = serving.registry.add(an_onnx()), f"{PROJECT}/datasets/other"
    items = [serving.items.add(a_picture("blue"), dataset) for dataset in (DATASET, other)]
    broken = serving.deployed(version, "broken", datasets=[DATASET, other])
    well = serving.deployed(version, "well", datasets=[DATASET])
    failing = fail_predictions_of(serving, broken.name)
    serving.score()
    assert serving.got(well.name).scoring.scored_count == 1
    assert serving.got(broken.name).scoring.scored_count == 0

    failing.clear()
    serving.clock.advance(BACKOFF_FIRST + timedelta(seconds=1))
    serving.score()
    assert serving.got(broken.name).scoring.scored_count == len(items)
    assert serving.told().count(SCORED) == 2


def test_an_unreadable_dataset_does_not_block_other_datasets_of_its_deployment(serving: Serving) -> None:
    away, item = f"{PROJECT}/datasets/away", serving.items.add(a_picture("blue"))
    serving.deployed(serving.registry.add(an_onnx()), datasets=[away, DATASET])
    serving.datasets.unavailable.add(away)
    serving.score()
    assert scored(serving) == Counter([item.name])


def test_the_backoff_of_a_deployment_applies_to_all_replicas(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()), datasets=[DATASET])
    serving.score()
    serving.arrives(serving.items.add(a_picture("blue")))
    asked: list[str] = []

    def fail(served: ServedModel) -> None:
        asked.append(served.row.name)
        raise Unavailable("its model has died")

    watched = Watched(serving, fail)
    scorer = serving.scorer
    replica = Scorer(
        serving.store, watched, scorer._items, scorer._datasets, scorer._media, scorer._large, serving.clock
    )
    assert scorer.step()
    assert not replica.step()
    serving.clock.advance(BACKOFF_FIRST)
    assert replica.step()
    serving.clock.advance(BACKOFF_FIRST)
    assert not scorer.step()  # the second consecutive failure doubles the delay
    serving.clock.advance(BACKOFF_FIRST)
    assert scorer.step()
    assert asked == [deployment.name] * 3


def test_a_worker_whose_lease_expired_publishes_nothing(serving: Serving) -> None:
    names = [serving.items.add(a_picture("red")).name]
    serving.deployed(serving.registry.add(an_onnx()), datasets=[DATASET])
    scorer, slow = serving.scorer, [True]

    def overtaken(_: ServedModel) -> None:
        if slow:
            slow.clear()
            serving.clock.advance(LEASE_DURATION)
            replica = Scorer(
                serving.store, watched, scorer._items, scorer._datasets, scorer._media, scorer._large, serving.clock
            )
            assert replica.step()

    watched = Watched(serving, overtaken)
    assert scorer.step()
    assert scored(serving) == Counter(names)

    slow.append(True)
    item = serving.items.add(a_picture("blue"))
    serving.arrives(item)
    assert scorer.step()
    assert scored(serving) == Counter([*names, item.name])
    assert not scorer.step()


@pytest.mark.parametrize("table", ["passes", "arrivals"])
def test_a_worker_that_needs_longer_than_its_lease_keeps_it(serving: Serving, table: str) -> None:
    serving.deployed(serving.registry.add(an_onnx()), datasets=[DATASET])
    if table == "arrivals":
        while serving.scorer.step():
            pass
    items = [serving.items.add(a_picture(colour)) for colour in ("red", "blue")]
    if table == "arrivals":
        for item in items:
            serving.arrives(item)
    claimed_meanwhile: list[bool] = []

    def is_renewed() -> bool:
        with serving.store.postgres.connect() as connection:
            rows = connection.execute(f"SELECT lease_expire_time FROM {table}".encode()).fetchall()
        return all(row["lease_expire_time"] == serving.clock.now() + LEASE_DURATION for row in rows)

    def slow(_: ServedModel) -> None:
        for _ in range(2):
            serving.clock.advance(LEASE_DURATION * 0.9)
            eventually(is_renewed, bool)
        claimed_meanwhile.append(scorer.step())

    watched, scorer = Watched(serving, slow), serving.scorer
    replica = Scorer(
        serving.store,
        watched,
        scorer._items,
        scorer._datasets,
        scorer._media,
        scorer._large,
        serving.clock,
        heartbeat_interval=timedelta(milliseconds=20),
    )
    assert replica.step()
    assert claimed_meanwhile == [False]
    assert scored(serving) == Counter(item.name for item in items)


def test_a_page_of_an_outdated_generation_is_not_recorded(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()), datasets=[DATASET])
    claimed = serving.store.scoring.claim_pass()
    assert claimed
    serving.moved(deployment, serving.registry.add(an_onnx(7)))
    with pytest.raises(LeaseLost), serving.store.postgres.transaction() as connection:
        serving.store.scoring.advance_pass(connection, claimed, "", 5, 5, done=True)
    assert serving.got(deployment.name).scoring.scored_count == 0
