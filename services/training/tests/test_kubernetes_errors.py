"""Errors of the executor if the API server rejects requests or does not respond."""

import json

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from vesta_common.errors import FailedPrecondition, Unavailable
from vesta_common.storage.objects import ObjectStore
from vesta_training.executors.job_manifest import Pods
from vesta_training.executors.kubernetes import KubernetesExecutor


def an_executor() -> KubernetesExecutor:
    """Returns an executor for an API server that does not exist."""
    nowhere = client.Configuration(host="http://127.0.0.1:1")
    nowhere.retries = False
    return KubernetesExecutor(client.ApiClient(nowhere), ObjectStore(None, "vesta"), "vesta", Pods(image="i"))


def test_an_unavailable_cluster_is_awaited() -> None:
    with pytest.raises(Unavailable, match="does not respond"):
        an_executor().cancel("train-r")


@pytest.mark.parametrize("status", [403, 422])
def test_a_rejection_by_the_cluster_is_reported_and_not_retried(status: int) -> None:
    error = ApiException(status=status, reason="no")
    error.body = json.dumps({"message": 'jobs.batch is forbidden: User "training" cannot create'})
    told = an_executor()._converted(error)
    assert isinstance(told, FailedPrecondition)
    assert told.reason == "TRAINING_JOB_REJECTED"
    assert "cannot create" in str(told)


@pytest.mark.parametrize("status", [401, 429, 503])
def test_calls_to_an_overloaded_cluster_or_with_an_expired_token_are_retried(status: int) -> None:
    assert isinstance(an_executor()._converted(ApiException(status=status, reason="no")), Unavailable)
