"""The evaluation of a trained model of shapes on the test items, and its comparison with the champion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from vesta_contracts.training.v1 import Comparison, HeldOutPredictions, Metrics

from vesta_training.example import Example, Split
from vesta_training.metrics.predictions import Labels
from vesta_training.models.model_file import ModelFile, read_model
from vesta_training.tasks.assignment import Assignment, Dependencies
from vesta_training.tasks.views.training import Measured, incomparable


class Selectable(Protocol):
    """Predictions for items."""

    def selected(self, chosen: Labels) -> Self:
        """Returns the predictions for some of the items."""
        ...


Shaped = TypeVar("Shaped", bound=Example)
Predicted = TypeVar("Predicted", bound=Selectable)


@dataclass(frozen=True, slots=True)
class Measurement(Generic[Shaped, Predicted]):
    """How the models of a task are measured.

    Attributes:
        kind: of the examples.
        find: returns the predictions of a model file for examples, over these concepts, with the truth of these concepts.
        held_out: returns the evidence for deployments, from predictions and their examples.
        measure: returns the metrics of predictions.
        compare: returns the differences between the predictions of challenger and champion.
    """

    kind: type[Shaped]
    find: Callable[[Path, ModelFile, Sequence[Shaped], Dependencies, tuple[str, ...]], Predicted]
    held_out: Callable[..., HeldOutPredictions | None]
    measure: Callable[..., Metrics]
    compare: Callable[..., Comparison]

    def of(self, path: Path, assignment: Assignment, dependencies: Dependencies) -> Measured[Predicted]:
        """Measures a model file on the annotated test items with known concepts, and compares it with the champion if there is one."""
        model, choices, seed = read_model(path), assignment.recipe.evaluation, assignment.seed
        champion = read_model(assignment.champion.path) if assignment.champion is not None else None
        annotated = [one for one in assignment.examples if isinstance(one, self.kind) and one.split is Split.TEST]
        all_predictions = self.find(path, model, annotated, dependencies, model.concepts)
        held_out = self.held_out(all_predictions, annotated, drawn_at_random=assignment.test_split_is_random)
        is_usable = np.array(
            [set(model.concepts).issuperset(example.concepts) for example in annotated], dtype=np.bool_
        )
        test = [example for example, usable in zip(annotated, is_usable, strict=True) if usable]
        missing = incomparable(assignment, model, champion, test)
        if not test:
            return Measured(None, None, None, None, missing, held_out)
        predictions = all_predictions.selected(is_usable)
        champion_predictions, comparison = None, None
        if champion is not None and not missing:
            assert assignment.champion is not None
            name, champion_path = assignment.champion.name, assignment.champion.path
            # The truth is that of all concepts of the challenger, also of those that the champion does not know.
            champion_predictions = self.find(champion_path, champion, test, dependencies, model.concepts)
            comparison = self.compare(predictions, champion_predictions, choices, champion_name=name, seed=seed)
        metrics = self.measure(predictions, choices, seed=seed)
        return Measured(metrics, predictions, champion_predictions, comparison, missing, held_out)
