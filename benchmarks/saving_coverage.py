"""How often the estimated interval of random labels contains the true value, by simulating loops on real data.

    python benchmarks/saving_coverage.py --seeds 10

Each seed has its own pool and test set. A loop selects batches as the platform does, 15 % of each at random. At some
label counts its estimate, from the control arm and 100 labelled test items, is compared with the true number of
random labels: the mean curve of many random draws, measured on all test items. The data are those of
`label_saving.py`.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from label_saving import Labels, Mask, Task, default_tasks, teach
from numpy.typing import NDArray
from vesta_contracts.training.v1 import RandomLabels
from vesta_datasets.selection import STRATEGIES, Pool
from vesta_datasets.task_types.uncertainty import Uncertainty
from vesta_training.metrics.learning_curve import learning_curve
from vesta_training.metrics.random_labels import random_labels
from vesta_training.recipes.choices import HeadChoices
from vesta_training.recipes.choices import Task as Kind

CONTROL_SHARE: Final = 0.15
LABEL_COUNTS: Final = (60, 120, 200, 300)
TEST_LABELS: Final = 100
TRUTH_COUNTS: Final = (10, 20, 30, 45, 60, 80, 110, 150, 200, 270, 360, 480, 640, 850, 1100)
TRUTH_DRAWS: Final = 8


@dataclass(frozen=True)
class Estimated:
    """One estimate with the true value, which is infinite if random selection never reached the accuracy."""

    label_count: int
    truth: float
    found: RandomLabels

    @property
    def holds(self) -> bool:
        """Whether the interval contains the true value."""
        low, high = self.found.labels.low, self.found.labels.high
        return low <= self.truth and (self.found.high_unknown or self.truth <= high)


def simulate(task: Task) -> Iterator[Estimated]:
    """A loop that spends 300 labels, with an estimate at each of `LABEL_COUNTS`."""
    generator = np.random.default_rng(task.seed)
    truth = _random_curve(task, generator)
    labelled = np.zeros(task.labels.size, dtype=np.bool_)
    control: list[int] = []
    uncertainty: Uncertainty | None = None
    for due in LABEL_COUNTS:
        while labelled.sum() < due:
            control_count = max(1, round(CONTROL_SHARE * task.batch_size))
            drawn = generator.choice(np.flatnonzero(~labelled), control_count, replace=False)
            labelled[drawn] = True
            control += drawn.tolist()
            seed = task.seed * task.labels.size + int(labelled.sum())
            pool = Pool(task.embeddings, uncertainty, labelled.copy(), task.batch_size - control_count, seed)
            labelled[[pick.index for pick in STRATEGIES["adaptive"](pool)]] = True
            uncertainty, right = teach(task, labelled)
        needed = float(np.interp(right.mean(), truth, TRUTH_COUNTS[: len(truth)], right=np.inf))
        yield Estimated(int(labelled.sum()), needed, _estimate(task, control, right))


def _estimate(task: Task, control: list[int], right: Mask) -> RandomLabels:
    """Returns the estimate of the loop, from the labels of the control arm and of a part of the test items."""
    concepts = tuple(str(label) for label in range(int(task.labels.max()) + 1))
    curve = learning_curve(
        (task.embeddings[control], _one_hot(task.labels[control], len(concepts))),
        (task.test_embeddings[:TEST_LABELS], _one_hot(task.test_labels[:TEST_LABELS], len(concepts))),
        concepts,
        Kind.CLASSIFICATION,
        HeadChoices(),
        learns_from_test=True,
        draws=2,
        seed=task.seed,
    )
    return random_labels(curve, right[:TEST_LABELS], seed=task.seed)


def _random_curve(task: Task, generator: np.random.Generator) -> NDArray[np.float64]:
    """Returns the mean accuracy after each of `TRUTH_COUNTS` randomly drawn labels, made monotonic."""
    accuracies = []
    for count in (count for count in TRUTH_COUNTS if count <= task.labels.size):
        rights = []
        for _ in range(TRUTH_DRAWS):
            labelled = np.zeros(task.labels.size, dtype=np.bool_)
            labelled[generator.choice(task.labels.size, count, replace=False)] = True
            rights.append(teach(task, labelled)[1].mean())
        accuracies.append(float(np.mean(rights)))
    return np.maximum.accumulate(accuracies)


def _one_hot(labels: Labels, concept_count: int) -> Mask:
    return np.eye(concept_count, dtype=np.bool_)[labels]


def main() -> None:
    """Prints, by label count, how often there is an estimate, how often its interval contains the true value, and its
    width.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    found: dict[int, list[Estimated]] = defaultdict(list)
    for task in default_tasks(range(parser.parse_args().seeds)):
        for one in simulate(task):
            found[one.label_count].append(one)
    print(f"{'labels':>7}{'truth':>8}{'loops':>7}{'estimated':>11}{'holds':>7}{'high / low':>12}")
    for count, estimates in sorted(found.items()):
        made = [one for one in estimates if not one.found.reason]
        truth = float(np.median([one.truth for one in estimates]))
        holds = f"{np.mean([one.holds for one in made]):.0%}" if made else "-"
        width = f"{np.median([one.found.labels.high / one.found.labels.low for one in made]):.1f}" if made else "-"
        print(f"{count:7}{truth:8.0f}{len(estimates):7}{len(made):11}{holds:>7}{width:>12}")


if __name__ == "__main__":
    main()
