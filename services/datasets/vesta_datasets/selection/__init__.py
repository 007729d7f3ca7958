"""Selection of the items to label next (active learning): one interface, one module per strategy.

A strategy is a pure function from a `Pool` to a list of `Pick`s, the most informative first:

    picks = STRATEGIES["adaptive"](Pool(embeddings, probabilities, labelled, batch_size=50, seed=7))

Every strategy returns exactly `min(batch_size, unlabelled items)` distinct, unlabelled picks, and the same picks for the
same pool. `with_control_arm` replaces a share of the batch of any strategy by an unbiased random sample.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vesta_datasets.selection.adaptive import adaptive
from vesta_datasets.selection.at_random import at_random
from vesta_datasets.selection.control_arm import with_control_arm
from vesta_datasets.selection.entropy import entropy
from vesta_datasets.selection.k_center import k_center
from vesta_datasets.selection.margin import margin
from vesta_datasets.selection.pool import Pick, Pool, Reason, Strategy, UnusablePoolError
from vesta_datasets.selection.typiclust import typiclust

STRATEGIES: Final[Mapping[str, Strategy]] = MappingProxyType(
    {
        "random": at_random,
        "margin": margin,
        "entropy": entropy,
        "k_center": k_center,
        "typiclust": typiclust,
        "adaptive": adaptive,
    }
)

__all__ = ["STRATEGIES", "Pick", "Pool", "Reason", "Strategy", "UnusablePoolError", "with_control_arm"]
