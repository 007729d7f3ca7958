"""What a node gives to the pods of any namespace: names, enforced NetworkPolicies, metrics and autoscaling."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from kube import RESTRICTED, Kube, Refused, until

pytestmark = pytest.mark.timeout(300)

AGNHOST = os.environ.get("VESTA_TEST_AGNHOST", "vesta.test/agnhost:1")
"""The image of Kubernetes' own tests."""


def pod(name: str, *arguments: str, **fields: Any) -> dict[str, Any]:
    """A pod of agnhost."""
    container = {
        "name": "agnhost",
        "image": AGNHOST,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/agnhost", *arguments],
        "securityContext": RESTRICTED,
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        **fields,
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


@pytest.fixture(scope="module")
def talkers(node: Kube) -> Iterator[Kube]:
    """A namespace with a server, called `served`, and two callers, of which the policies know one."""
    with node.own_namespace() as own:
        own.put([pod("served", "netexec", "--http-port=8080"), pod("friend", "pause"), pod("stranger", "pause")])
        own.put(
            [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": "served"},
                    "spec": {"selector": {"app": "served"}, "ports": [{"port": 80, "targetPort": 8080}]},
                }
            ]
        )
        own("wait", "pod", "--all", "--for=condition=Ready", "--timeout=120s")
        yield own


def test_a_pod_calls_another_by_its_name(talkers: Kube) -> None:
    for caller in ("friend", "stranger"):
        assert until(lambda caller=caller: reaches(talkers, caller, "served:80"))


def test_a_call_that_no_policy_allows_does_not_get_through(talkers: Kube) -> None:
    allowed = {"podSelector": {"matchLabels": {"app": "friend"}}}
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "friends"},
        "spec": {"podSelector": {"matchLabels": {"app": "served"}}, "ingress": [{"from": [allowed]}]},
    }
    talkers.put([policy])

    assert until(lambda: not reaches(talkers, "stranger", "served:80"))
    assert reaches(talkers, "friend", "served:80")

    talkers("delete", "networkpolicy", "friends")
    assert until(lambda: reaches(talkers, "stranger", "served:80"))


def test_the_restricted_standard_refuses_a_pod_of_root(talkers: Kube) -> None:
    root = pod("root", "pause", securityContext={**RESTRICTED, "runAsNonRoot": False, "runAsUser": 0})
    with pytest.raises(Refused, match=r'violates PodSecurity "restricted'):
        talkers.put([root])


def reaches(kube: Kube, caller: str, address: str) -> bool:
    """Whether a pod can open a connection."""
    try:
        kube("exec", caller, "--", "/agnhost", "connect", address, "--timeout=2s")
    except Refused:
        return False
    return True
