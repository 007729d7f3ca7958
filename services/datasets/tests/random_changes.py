"""Random changes of the items of a dataset, by the same calls and events as in production."""

import random
from collections.abc import Callable

from datasets_builders import PROJECT, Datasets, a_medium, handle_accepted, says
from vesta_contracts.common.v1 import Annotation, ConceptScore, PixelBox, Prediction
from vesta_contracts.datasets.v1 import BatchAnnotateItemsRequest, DeleteItemRequest, ItemAnnotations, Split
from vesta_datasets.ingest.count_folding import CountFolder

HASHES = (0x0123456789ABCDEF, 0xFEDCBA9876543210)


def a_box(side_px: float, **fields: float) -> Annotation:
    """Returns a van of this width and height."""
    return Annotation(concept="van", box=PixelBox(x_max_px=side_px, y_max_px=side_px), **fields)


class RandomChanges:
    """A random sequence of changes of one dataset."""

    def __init__(self, datasets: Datasets, dataset: str, seed: int) -> None:
        self._datasets = datasets
        self._dataset = dataset
        self._random = random.Random(seed)
        self._number = seed * 10_000
        self._names: list[str] = []
        self.changes: list[Callable[[], None]] = [
            self.add,
            self.annotate,
            self.accept,
            self.score,
            self.delete,
            self.fold,
        ]

    def make(self, count: int) -> None:
        self.add()
        for _ in range(count):
            self._random.choice(self.changes)()

    def add(self) -> None:
        """Adds items, some of them near-duplicates of earlier items, also of both sides of a split."""
        media = []
        for _ in range(self._random.randint(1, 3)):
            self._number += 1
            bits = self._random.choice((0, 1, 3, 7, 15)) << self._random.randint(0, 12)
            near = self._random.choice(HASHES) ^ bits
            medium = a_medium(self._number, self._random.choice((near, None)))
            medium.provenance.file_name = f"{self._number % 3}.jpg"
            medium.provenance.source = self._random.choice(("", f"{PROJECT}/sources/a"))
            media.append(medium)
        split = self._random.choice((Split.SPLIT_UNSPECIFIED, *Split.values()))
        labels = self._random.choice((None, (), ("van",)))
        self._names += [one.name for one in self._datasets.add(self._dataset, *media, labels=labels, split=split)]

    def annotate(self) -> None:
        """Labels an item, and adds boxes to it, some of them nearly equal."""
        boxes = [a_box(self._random.randint(1, 4) + index / 100) for index in range(self._random.randint(0, 3))]
        entry = ItemAnnotations(item=self._random.choice(self._names), annotations=[*says("car"), *boxes])
        self._datasets.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=self._dataset, items=[entry]))

    def accept(self) -> None:
        """Accepts an answer, possibly an outdated one."""
        task, seconds = f"tasks/{self._random.randint(0, 9)}", self._random.randint(0, 100)
        control = self._random.random() < 0.5
        handle_accepted(self._datasets, self._random.choice(self._names), seconds, task, "van", control=control)

    def score(self) -> None:
        """Scores items by an older, the same or a newer generation of one of two deployments, in one of two spaces."""
        names = self._random.sample(self._names, min(len(self._names), self._random.randint(1, 6)))
        scores = {
            name: Prediction(
                scores=[ConceptScore(concept="van", score=1)],
                uncertain=self._random.random() < 0.5,
                annotations=[a_box(2, score=1)] * self._random.randint(0, 2),
            )
            for name in names
        }
        self._datasets.predicts(
            self._dataset, scores, self._random.randint(1, 3), self._random.choice("ab"), self._random.choice("de")
        )

    def delete(self) -> None:
        if len(self._names) > 2:
            name = self._names.pop(self._random.randrange(len(self._names)))
            self._datasets.items.DeleteItem(DeleteItemRequest(name=name))

    def fold(self) -> None:
        CountFolder(self._datasets.store, changes_min=self._random.randint(1, 20)).step()
