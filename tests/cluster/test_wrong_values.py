"""What the chart's schema cannot know, a real API server refuses, and its message names the value."""

from pathlib import Path
from typing import Any

import chart
import pytest
import yaml
from kube import Kube, Refused

WRONG_OBJECTS: list[tuple[dict[str, Any], str]] = [
    (
        {"services": {"gateway": {"resources": {"requests": {"memory": "2Gi"}}}}},
        'requests: Invalid value: "2Gi": must be less than or equal',
    ),
    ({"defaults": {"affinity": {"nodeAffinity": {"nonesuch": {}}}}}, "affinity.nodeAffinity.nonesuch"),
    ({"defaults": {"affinity": {"podAffinity": {"nonesuch": {}}}}}, "affinity.podAffinity.nonesuch"),
    ({"defaults": {"affinity": {"podAntiAffinity": {"nonesuch": {}}}}}, "affinity.podAntiAffinity.nonesuch"),
    (
        {
            "defaults": {
                "tolerations": [{"key": "a", "effect": "NoSchedule", "operator": "Exists", "tolerationSeconds": 5}]
            }
        },
        "must be 'NoExecute' when `tolerationSeconds` is set",
    ),
    (
        {"defaults": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
        "value must be empty when `operator` is 'Exists'",
    ),
    ({"defaults": {"extraVolumeMounts": [{"name": "none", "mountPath": "/x"}]}}, 'Not found: "none"'),
    ({"defaults": {"extraVolumes": [{"name": "own", "nonesuch": {}}]}}, "volumes[0].nonesuch"),
    ({"defaults": {"extraEnv": [{"name": "A", "valueFrom": {"nonesuch": {}}}]}}, "valueFrom.nonesuch"),
    ({"defaults": {"hostAliases": [{"ip": "1.2.3", "hostnames": ["a"]}]}}, "hostAliases[0].ip"),
    ({"networkPolicy": {"clients": [{"noClients": {}}]}}, "noClients"),
    ({"networkPolicy": {"metrics": [{"noMetrics": {}}]}}, "noMetrics"),
    ({"networkPolicy": {"dns": [{"noNames": {}}]}}, "noNames"),
    ({"networkPolicy": {"sources": [{"noSources": []}]}}, "noSources"),
    ({"networkPolicy": {"apiServer": {"cidrs": ["300.0.0.0/8"]}}}, "300.0.0.0/8"),
    ({"traces": {"endpoint": "http://otel:4317", "collector": [{"noCollector": {}}]}}, "noCollector"),
    (
        {"extraObjects": [{"apiVersion": "v1", "kind": "Nonesuch", "metadata": {"name": "a"}}]},
        'no matches for kind "Nonesuch"',
    ),
    ({"gateway": {"ingress": {"enabled": True, "host": "a..b"}}}, "spec.rules[0].host"),
]
WRONG_PODS: list[tuple[dict[str, Any], str]] = [
    ({"defaults": {"priorityClassName": "none"}}, "no PriorityClass with name none was found"),
    ({"defaults": {"runtimeClassName": "none"}}, 'RuntimeClass "none" not found'),
    ({"podSecurityContext": {"runAsUser": None, "supplementalGroups": [2**40]}}, "supplementalGroups[0]"),
]
"""What is found only when a pod is made: then the event of its ReplicaSet says so, which `kubectl describe` shows."""


def objects_with(values: dict[str, Any], namespace: Kube, folder: Path) -> list[dict[str, Any]]:
    """What the values make, in the namespace of the test."""
    path = folder / "wrong.yaml"
    path.write_text(yaml.safe_dump(values))
    text = chart.rendered("small", options=["--values", str(path)])
    text = text.replace("namespace: vesta\n", f"namespace: {namespace.namespace}\n")
    return [it for it in yaml.load_all(text, yaml.CSafeLoader) if it]


def is_tried(it: dict[str, Any]) -> bool:
    """Whether an object is sent to the server: of pods one is enough, for the values of all are alike."""
    return it["kind"] != "Secret" and (
        not {"template", "jobTemplate"} & it.get("spec", {}).keys() or it["metadata"]["name"] == "gateway"
    )


def test_values_that_cannot_be_are_refused_each_by_its_name(namespace: Kube, tmp_path: Path) -> None:
    taken = {"port": 80, "nodePort": 30080, "protocol": "TCP"}
    service = {"type": "NodePort", "ports": [taken]}
    namespace.put([{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "other"}, "spec": service}])
    fine = [it for it in objects_with({}, namespace, tmp_path) if is_tried(it)]
    broken = [it for values, _ in WRONG_OBJECTS for it in objects_with(values, namespace, tmp_path) if is_tried(it)]

    with pytest.raises(Refused) as refused:
        namespace.try_out(it for it in broken if it not in fine)

    said = str(refused.value)
    assert [named for _, named in WRONG_OBJECTS if named not in said] == []


def test_a_class_that_does_not_exist_is_refused_to_the_pod(namespace: Kube, tmp_path: Path) -> None:
    pods = []
    for number, (values, _) in enumerate(WRONG_PODS):
        objects = objects_with(values, namespace, tmp_path)
        namespace.put([it for it in objects if (it["kind"], it["metadata"]["name"]) == ("ServiceAccount", "gateway")])
        spec = dict(chart.pod_specs(objects))["Deployment/gateway"]
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"}, "spec": spec})

    with pytest.raises(Refused) as refused:
        namespace.try_out(pods)

    assert [named for _, named in WRONG_PODS if named not in str(refused.value)] == []
