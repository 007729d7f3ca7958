"""The costs and benefits of the promotion gate: policies replayed on recorded rounds.

`gate_rounds.json` contains rounds in which the head of the classification recipe was trained on a growing set of
labels from the default selection. For each model it has the test items that the model predicted correctly, so that
any two models can be compared like in the gate, and its accuracy on items that no gate uses, which counts as the
truth. In half of the runs, two batches have careless answers: CARELESS_SHARE of their labels are wrong and stay so.

    python benchmarks/gate.py                                  # the table of docs/loop.md
    python benchmarks/gate.py record --into rounds.json        # the digits of scikit-learn
    VESTA_TEST_IMAGES=FOLDER python benchmarks/gate.py record --into rounds.json   # photographs in folders by class

A simplification: the labelled items do not depend on the verdicts, while in a real loop the uncertainty of the
champion selects them.
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from label_saving import Labels, Task, digits_tasks, photograph_tasks
from vesta_conductor.reconciliation.gate import judge
from vesta_conductor.task_types.classification import Classification
from vesta_contracts.conductor.v1 import Gate
from vesta_contracts.training.v1 import Comparison, Estimate, Metrics
from vesta_datasets.selection import STRATEGIES, Pool
from vesta_datasets.task_types.classification import distribution_uncertainty
from vesta_datasets.task_types.uncertainty import Uncertainty
from vesta_training.heads.linear_head import fit_head
from vesta_training.metrics.comparison import differences
from vesta_training.metrics.predictions import Predictions
from vesta_training.recipes.choices import Task as RecipeTask
from vesta_training.recipes.recipe import builtin_recipe

RECORDED: Final = Path(__file__).with_name("gate_rounds.json")
SEEDS: Final = 6
ROUNDS: Final = 12
BATCH_SIZE: Final = 20
TEST_SHARE: Final = 0.6  # of all items
GATE_ITEMS: Final = 500  # of the test split; no gate uses the other test items
CARELESS_ROUNDS: Final = (5, 9)
CARELESS_SHARE: Final = 0.8
WORSE: Final = 0.005  # a challenger counts as worse if its true accuracy is more than half a point lower
POLICIES: Final[Mapping[str, Gate | None]] = {
    "no gate": None,
    "strict": Gate(accuracy_loss_max=0),
    "default": Gate(),
    "interval alone": Gate(accuracy_loss_max=1),
}


@dataclass(frozen=True)
class Model:
    """The model of one round.

    Attributes:
        right: `(GATE_ITEMS,)`, which items of the test split it predicts correctly.
        accuracy: on the items that no gate uses, in [0, 1].
    """

    label_count: int
    right: np.ndarray[Any, np.dtype[np.bool_]]
    accuracy: float


@dataclass(frozen=True)
class Run:
    """The rounds of one dataset and seed. `truth` is `(GATE_ITEMS,)`, the concept of each item of the test split."""

    dataset: str
    seed: int
    careless: bool
    truth: Labels
    models: tuple[Model, ...]


@dataclass(frozen=True)
class Cost:
    """The results of a policy over all runs.

    Attributes:
        better, better_rejected: challengers with a higher true accuracy than the champion, and those of them that
            were rejected.
        worse, worse_accepted: challengers whose true accuracy is lower by more than `WORSE`, and those of them that
            were accepted.
        accuracy: of the deployed model, averaged over all rounds.
        lost: the accuracy of the newest model minus that of the deployed one, averaged over all rounds; negative if
            the policy gained.
    """

    better: int
    better_rejected: int
    worse: int
    worse_accepted: int
    accuracy: float
    lost: float


@cache
def read(path: Path = RECORDED) -> tuple[Run, ...]:
    """Returns the recorded runs. The values are the same at each call, so that comparisons are cached."""
    return tuple(
        Run(
            dataset=run["dataset"],
            seed=run["seed"],
            careless=run["careless"],
            truth=np.array([int(digit) for digit in run["truth"]]),
            models=tuple(
                Model(model["labels"], _bits(model["right"], len(run["truth"])), model["accuracy"])
                for model in run["models"]
            ),
        )
        for run in json.loads(path.read_text())["runs"]
    )


def _passes(policy: Gate, key: "_Key") -> bool:
    return judge(policy, Metrics(), "champion", _comparison(key), task_type=Classification()).passed


def replay(runs: Sequence[Run], policy: Gate | None, items: int) -> Cost:
    """Applies a policy to the recorded challengers with the first `items` items of the test split.

    Args:
        policy: None accepts all challengers.
    """
    better = better_rejected = worse = worse_accepted = 0
    deployed, newest = [], []
    for run in runs:
        champion = run.models[0]
        for challenger in run.models[1:]:
            gain = challenger.accuracy - champion.accuracy
            passed = policy is None or _passes(policy, _Key(run, champion, challenger, items))
            better, better_rejected = better + (gain > 0), better_rejected + (gain > 0 and not passed)
            worse, worse_accepted = worse + (gain < -WORSE), worse_accepted + (gain < -WORSE and passed)
            champion = challenger if passed else champion
            deployed.append(champion.accuracy)
            newest.append(challenger.accuracy)
    mean = float(np.mean(deployed))
    return Cost(better, better_rejected, worse, worse_accepted, mean, float(np.mean(newest)) - mean)


class _Key:
    """Two models of a run, hashed by their identity."""

    def __init__(self, run: Run, champion: Model, challenger: Model, items: int) -> None:
        self.run, self.champion, self.challenger, self.items = run, champion, challenger, items

    def _identity(self) -> tuple[int, int, int, int]:
        return id(self.run), id(self.champion), id(self.challenger), self.items

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())


@cache
def _comparison(key: _Key) -> Comparison:
    """Compares as in a training: predictions of challenger and champion on the same items."""
    overall, concepts = differences(
        _answers(key.run.truth[: key.items], key.challenger.right[: key.items]),
        _answers(key.run.truth[: key.items], key.champion.right[: key.items]),
        builtin_recipe("classification").evaluation,
        seed=key.challenger.label_count,
    )
    accuracy = float(key.champion.right[: key.items].mean())
    return Comparison(
        champion_metrics=Metrics(item_count=key.items, accuracy=Estimate(value=accuracy)),
        difference=overall,
        concepts=concepts,
    )


def _answers(truth: Labels, right: np.ndarray[Any, np.dtype[np.bool_]]) -> Predictions:
    """Returns predictions with the given correctness; a wrong one has some other concept."""
    count = int(truth.max()) + 1
    true = np.eye(count, dtype=np.bool_)[truth]
    predicted = np.where(right[:, None], true, np.roll(true, 1, axis=1))
    return Predictions(
        task=RecipeTask.CLASSIFICATION,
        items=tuple(map(str, range(len(truth)))),
        concepts=tuple(map(str, range(count))),
        truth=true,
        probabilities=predicted.astype(np.float32),
        predicted=predicted,
    )


def record(tasks: Sequence[Task], dataset: str) -> Iterator[dict[str, Any]]:
    """Trains `ROUNDS` rounds of each task, once with careful and once with careless answers."""
    for task in tasks:
        dealt = _dealt_anew(task)
        for careless in (False, True):
            yield {
                "dataset": dataset,
                "seed": task.seed,
                "careless": careless,
                "truth": "".join(map(str, dealt.test_labels[:GATE_ITEMS])),
                "models": list(_rounds(dealt, careless=careless)),
            }


def _rounds(task: Task, *, careless: bool) -> Iterator[dict[str, Any]]:
    generator = np.random.default_rng(task.seed)
    concepts = tuple(map(str, range(int(task.labels.max()) + 1)))
    answered = task.labels.copy()
    labelled = np.zeros(task.labels.size, dtype=np.bool_)
    uncertainty: Uncertainty | None = None
    for number in range(1, ROUNDS + 1):
        pool = Pool(task.embeddings, uncertainty, labelled.copy(), task.batch_size, task.seed * 1000 + number)
        picks = [pick.index for pick in STRATEGIES["adaptive"](pool)]
        labelled[picks] = True
        if careless and number in CARELESS_ROUNDS:
            wrong = [pick for pick in picks if generator.random() < CARELESS_SHARE]
            answered[wrong] = (answered[wrong] + generator.integers(1, len(concepts), len(wrong))) % len(concepts)
        head = fit_head(
            task.embeddings[labelled],
            np.eye(len(concepts), dtype=np.bool_)[answered[labelled]],
            concepts,
            RecipeTask.CLASSIFICATION,
            builtin_recipe("classification").head,  # type: ignore[arg-type]
            seed=number,
        ).head
        uncertainty = distribution_uncertainty(head.probabilities(task.embeddings))
        right = head.probabilities(task.test_embeddings).argmax(axis=1) == task.test_labels
        yield {
            "labels": int(labelled.sum()),
            "right": np.packbits(right[:GATE_ITEMS]).tobytes().hex(),
            "accuracy": round(float(right[GATE_ITEMS:].mean()), 4),
        }


def _bits(text: str, count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8), count=count).astype(np.bool_)


def _dealt_anew(task: Task) -> Task:
    """Returns the same items with a larger test set; the items beyond those of the gate are the truth."""
    embeddings = np.concatenate([task.embeddings, task.test_embeddings])
    labels = np.concatenate([task.labels, task.test_labels])
    pool = int(labels.size * (1 - TEST_SHARE))
    return replace(
        task,
        batch_size=BATCH_SIZE,
        embeddings=embeddings[:pool],
        labels=labels[:pool],
        test_embeddings=embeddings[pool:],
        test_labels=labels[pool:],
    )


def table(runs: Sequence[Run]) -> str:
    """Returns the trade-off in Markdown: a row for each policy and number of test items."""
    lines = [
        "| rounds | test items | policy | better, rejected | worse, accepted | accuracy of the deployed model | points lost |",
        "|---|---|---|---|---|---|---|",
    ]
    for careless, kind in ((False, "careful"), (True, "two careless batches")):
        chosen = [run for run in runs if run.careless is careless]
        for items in (100, GATE_ITEMS):
            for name, policy in POLICIES.items():
                cost = replay(chosen, policy, items)
                lines.append(
                    f"| {kind} | {items} | {name} | {cost.better_rejected} of {cost.better} | "
                    f"{cost.worse_accepted} of {cost.worse} | {100 * cost.accuracy:.1f} % | {100 * cost.lost:+.1f} |"
                )
    return "\n".join(lines)


def main() -> None:
    """Prints the table, or records rounds."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("command", nargs="?", choices=["table", "record"], default="table")
    arguments.add_argument("--into", type=Path, default=Path("gate_rounds.json"))
    options = arguments.parse_args()
    if options.command == "table":
        print(table(read()))
        return
    folder, seeds = os.environ.get("VESTA_TEST_IMAGES"), range(SEEDS)
    tasks = photograph_tasks(Path(folder), seeds) if folder else digits_tasks(seeds)
    name = "photographs" if folder else "digits"
    about = json.loads(options.into.read_text()) if options.into.exists() else {}
    kept = [run for run in about.get("runs", []) if run["dataset"] != name]
    runs = [*kept, *record(tasks, name)]
    options.into.write_text(json.dumps({**about, "runs": runs}, indent=0) + "\n")


if __name__ == "__main__":
    main()
