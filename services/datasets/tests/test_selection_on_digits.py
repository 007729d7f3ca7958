"""Guards the results of the default strategy in the README against regressions, on scans of digits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from vesta_datasets.selection import STRATEGIES, Pool
from vesta_datasets.task_types.classification import distribution_uncertainty


@pytest.fixture(scope="module")
def digits():
    scans = load_digits()
    embeddings = (scans.data / np.linalg.norm(scans.data, axis=1, keepdims=True)).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(embeddings))
    return embeddings[order[540:]], scans.target[order[540:]], embeddings[order[:540]], scans.target[order[:540]]


def accuracy_after(digits, strategy, labels, seed, batch_size=10):
    embeddings, classes, test_embeddings, test_classes = digits
    labelled = np.zeros(len(embeddings), dtype=np.bool_)
    uncertainty = None
    while labelled.sum() < labels:
        pool = Pool(embeddings, uncertainty, labelled.copy(), batch_size, seed * 1000 + int(labelled.sum()))
        labelled[[pick.index for pick in STRATEGIES[strategy](pool)]] = True
        head = LogisticRegression(C=30.0, max_iter=1000, tol=1e-3).fit(embeddings[labelled], classes[labelled])
        uncertainty = distribution_uncertainty(head.predict_proba(embeddings).astype(np.float32))
    return head.score(test_embeddings, test_classes)


@pytest.mark.parametrize(("labels", "gain"), [(10, 0.15), (50, 0.05)])
def test_the_default_exceeds_random_selection_by_far_with_few_labels(digits, labels, gain):
    default, chance = (
        np.mean([accuracy_after(digits, strategy, labels, seed) for seed in range(3)])
        for strategy in ("adaptive", "random")
    )
    assert default > chance + gain
