"""What a real Kubernetes makes of the pods of a node that does not respond, and what a run says of it."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from kube import Kube, until
from vesta_training.executors import State
from vesta_training.executors.reasons import Seen, observed

JOB: dict[str, Any] = {"metadata": {"name": "one"}, "spec": {"completions": 1}, "status": {}}


def status_of(pod_or_node: Kube, kind: str, name: str, status: dict[str, Any]) -> None:
    """Says of an object what its kubelet would."""
    pod_or_node(
        "patch", kind, name, "--subresource=status", "--type=merge", f"--patch={json.dumps({'status': status})}"
    )


READY = {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}


@pytest.fixture
def node(kube: Kube) -> Iterator[str]:
    """A node that no kubelet stands behind."""
    name = f"lost-{uuid4().hex[:8]}"
    kube.put([{"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}])
    status_of(kube, "node", name, READY)
    yield name
    kube("delete", "node", name)


@pytest.fixture
def pod(namespace: Kube, node: str) -> str:
    """A pod that runs there."""
    container = {
        "name": "trainer",
        "image": "vesta.test/trainer:1",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"nodeName": node, "securityContext": security, "containers": [container]}
    namespace.put([{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one-0"}, "spec": spec}])
    running = {
        "name": "trainer",
        "ready": True,
        "restartCount": 0,
        "image": "i",
        "imageID": "i",
        "state": {"running": {}},
    }
    conditions = [
        {"type": kind, "status": "True"} for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    ]
    status_of(namespace, "pod", "one-0", {"phase": "Running", "conditions": conditions, "containerStatuses": [running]})
    return "one-0"


def test_a_run_says_that_its_node_does_not_answer(namespace: Kube, node: str, pod: str) -> None:
    def seen() -> Seen:
        return Seen(JOB, [namespace.get("pod", pod)])

    assert observed(seen()).state is State.RUNNING
    assert until(
        lambda: observed(seen()).state is State.PENDING, seconds=90
    )  # 50 s is what Kubernetes waits for a kubelet
    assert observed(seen()).waiting_reason == f"{pod} is lost: its node {node} does not respond"
