"""The accuracy with the same number of randomly selected labels: trains on a second dataset with the same images."""

import random
from collections.abc import Callable, Sequence

from experts import label
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

BATCH = 200


def share_without_training(drawn: Sequence[str], test: Sequence[str]) -> float | None:
    """Returns the test accuracy if all labels have the same class, which is then always predicted; None if there are
    several classes.
    """
    return test.count(drawn[0]) / len(test) if len(set(drawn)) == 1 else None


class RandomControl:
    """Trains on randomly selected labels, with the recipe and the test split of the loop."""

    def __init__(
        self, owner: Vesta, loop_dataset: Dataset, items: list[Item], truth: Callable[[str], str], label_count_max: int
    ) -> None:
        self._owner = owner
        self._project = "/".join(loop_dataset.name.split("/")[:2])
        self._labelled = 0
        pool = [item for item in items if item.split == Split.SPLIT_TRAIN and not item.duplicate_of]
        random.Random(0).shuffle(pool)
        pool = pool[:label_count_max]
        test = [item for item in items if item.split == Split.SPLIT_TEST]
        self._test_concepts = [truth(item.name) for item in test]
        self._dataset = owner.datasets.CreateDataset(
            CreateDatasetRequest(
                parent=self._project,
                dataset_id="random-control",
                dataset=Dataset(display_name="The same number of random labels", taxonomy=loop_dataset.taxonomy),
            )
        ).name
        self._add(test, truth)
        created = self._add(pool, None)
        self._pool = [(name, truth(item.name)) for name, item in zip(created, pool, strict=True)]

    def accuracy(self, label_count: int) -> float | None:
        """Returns the test accuracy of a model trained on `label_count` random labels; None if no test item is
        labelled.
        """
        if not self._test_concepts:
            return None
        for start in range(self._labelled, min(label_count, len(self._pool)), BATCH):
            batch = self._pool[start : min(start + BATCH, label_count)]
            self._owner.items.BatchAnnotateItems(
                BatchAnnotateItemsRequest(
                    parent=self._dataset,
                    items=[ItemAnnotations(item=name, annotations=[label(concept)]) for name, concept in batch],
                )
            )
        self._labelled = max(self._labelled, label_count)
        one_class = share_without_training([concept for _, concept in self._pool[:label_count]], self._test_concepts)
        if one_class is not None:
            return one_class  # such a training would fail
        snapshot = self._owner.snapshots.CreateSnapshot(
            CreateSnapshotRequest(parent=self._dataset, snapshot=Snapshot())
        )
        run = self._owner.training_runs.CreateTrainingRun(
            CreateTrainingRunRequest(
                parent=self._project,
                training_run=TrainingRun(
                    snapshot=snapshot.name,
                    recipe=f"{self._project}/recipes/classification",
                    model=f"{self._project}/models/random-control",
                ),
            )
        )
        ended = self._owner.wait_for_run(run.name)
        if ended.state != TrainingRun.SUCCEEDED:
            raise RuntimeError(f"the control training failed: {ended.error}")
        return ended.metrics.accuracy.value

    def _add(self, items: list[Item], truth: Callable[[str], str] | None) -> list[str]:
        names: list[str] = []
        for start in range(0, len(items), BATCH):
            batch = [
                NewItem(
                    media=item.media,
                    split=item.split,
                    annotations=AnnotationList(annotations=[label(truth(item.name))]) if truth else None,
                )
                for item in items[start : start + BATCH]
            ]
            answer = self._owner.items.BatchCreateItems(BatchCreateItemsRequest(parent=self._dataset, items=batch))
            names += [item.name for item in answer.items]
        return names
