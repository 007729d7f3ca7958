"""The quality with the same number of randomly selected labels: trains on a second dataset with the same images."""

import random
from dataclasses import dataclass

from task_types.demo_task import Annotations
from vesta import Vesta
from vesta_contracts.datasets.v1 import (
    AnnotationList,
    BatchAnnotateItemsRequest,
    BatchCreateItemsRequest,
    CreateDatasetRequest,
    CreateSnapshotRequest,
    Dataset,
    Item,
    ItemAnnotations,
    NewItem,
    Snapshot,
    Split,
)
from vesta_contracts.training.v1 import CreateTrainingRunRequest, TrainingRun
from world import World

BATCH = 200


@dataclass(frozen=True)
class RandomRound:
    """What random labels achieve.

    Attributes:
        quality: the primary metric; None if no test item is labelled.
        object_count: the annotations of the random images.
    """

    quality: float | None
    object_count: int


class RandomControl:
    """Trains on randomly selected labels, with the recipe and the test split of the loop. Each seed draws others."""

    def __init__(self, owner: Vesta, world: World, label_count_max: int, seed: int = 0) -> None:
        self._owner = owner
        self._world = world
        self._labelled = 0
        pool = [item for item in world.items if item.split == Split.SPLIT_TRAIN and not item.duplicate_of]
        random.Random(seed).shuffle(pool)
        pool = pool[:label_count_max]
        test = [item for item in world.items if item.split == Split.SPLIT_TEST]
        self._test = [world.truth(item.name) for item in test]
        self._dataset = owner.datasets.CreateDataset(
            CreateDatasetRequest(
                parent=world.project,
                dataset_id=f"random-control-{seed}",
                dataset=Dataset(
                    display_name="The same number of random labels",
                    taxonomy=world.dataset.taxonomy,
                    task_type=world.dataset.task_type,
                ),
            )
        ).name
        self._add(test, labelled=True)
        created = self._add(pool, labelled=False)
        self._pool = [(name, world.truth(item.name)) for name, item in zip(created, pool, strict=True)]

    def measure(self, label_count: int) -> RandomRound:
        """Trains on `label_count` random labels, or on all if there are fewer.

        Raises:
            RuntimeError: the training failed.
        """
        drawn = [truth for _, truth in self._pool[:label_count]]
        object_count = sum(map(len, drawn))
        if not self._test:
            return RandomRound(None, object_count)
        self._label(label_count)
        constant = self._world.task_type.quality_without_training(drawn, self._test)
        if constant is not None:
            return RandomRound(constant, object_count)  # such a training would fail
        return RandomRound(self._train(), object_count)

    def _label(self, label_count: int) -> None:
        for start in range(self._labelled, min(label_count, len(self._pool)), BATCH):
            batch = self._pool[start : min(start + BATCH, label_count)]
            self._owner.items.BatchAnnotateItems(
                BatchAnnotateItemsRequest(
                    parent=self._dataset,
                    items=[ItemAnnotations(item=name, annotations=truth) for name, truth in batch],
                )
            )
        self._labelled = max(self._labelled, label_count)

    def _train(self) -> float:
        project = self._world.project
        snapshot = self._owner.snapshots.CreateSnapshot(
            CreateSnapshotRequest(parent=self._dataset, snapshot=Snapshot())
        )
        run = self._owner.training_runs.CreateTrainingRun(
            CreateTrainingRunRequest(
                parent=project,
                training_run=TrainingRun(
                    snapshot=snapshot.name,
                    recipe=self._world.recipe,
                    model=f"{project}/models/random-control",
                ),
            )
        )
        ended = self._owner.wait_for_run(run.name)
        if ended.state != TrainingRun.SUCCEEDED:
            raise RuntimeError(f"the control training failed: {ended.error}")
        return self._world.task_type.quality(ended.metrics).value

    def _add(self, items: list[Item], *, labelled: bool) -> list[str]:
        names: list[str] = []
        for start in range(0, len(items), BATCH):
            batch = [
                NewItem(
                    media=item.media,
                    split=item.split,
                    annotations=_list(self._world.truth(item.name)) if labelled else None,
                )
                for item in items[start : start + BATCH]
            ]
            answer = self._owner.items.BatchCreateItems(BatchCreateItemsRequest(parent=self._dataset, items=batch))
            names += [item.name for item in answer.items]
        return names


def _list(annotations: Annotations) -> AnnotationList:
    return AnnotationList(annotations=annotations)
