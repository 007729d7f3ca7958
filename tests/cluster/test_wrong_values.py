"""What the chart's schema cannot know, a real API server refuses, and its message names the value."""

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
    ({"postgres": {"resources": {"requests": {"cpu": "1.5cores"}}}}, "/postgres/resources/requests/cpu"),
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
    ({"networkPolicy": {"clients": [{"nonesuch": {}}]}}, "from[0].nonesuch"),
    ({"networkPolicy": {"metrics": [{"nonesuch": {}}]}}, "nonesuch"),
    ({"networkPolicy": {"dns": [{"nonesuch": {}}]}}, "to[0].nonesuch"),
    ({"networkPolicy": {"sources": [{"nonesuch": []}]}}, "nonesuch"),
    ({"networkPolicy": {"apiServer": {"cidrs": ["300.0.0.0/8"]}}}, "300.0.0.0/8"),
    ({"traces": {"endpoint": "http://otel:4317", "collector": [{"nonesuch": {}}]}}, "nonesuch"),
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


def objects_with(values: dict[str, Any], folder: Any) -> list[dict[str, Any]]:
    path = folder / "wrong.yaml"
    path.write_text(yaml.safe_dump(values))
    return chart.manifests("small", options=["--values", str(path)])


def id_of(case: Any) -> str:
    return yaml.safe_dump(case, default_flow_style=True).strip() if isinstance(case, dict) else ""


@pytest.mark.parametrize(("values", "named"), WRONG_OBJECTS, ids=id_of)
def test_a_value_that_cannot_be_is_refused(values: dict[str, Any], named: str, namespace: Kube, tmp_path: Any) -> None:
    with pytest.raises((Refused, chart.ChartError)) as refused:
        namespace.try_out(it for it in of(objects_with(values, tmp_path), namespace) if is_told_apart(it))
    assert named in str(refused.value)


@pytest.mark.parametrize(("values", "named"), WRONG_PODS, ids=id_of)
def test_a_class_that_does_not_exist_is_refused_to_the_pod(
    values: dict[str, Any], named: str, namespace: Kube, tmp_path: Any
) -> None:
    objects = of(objects_with(values, tmp_path), namespace)
    namespace.put([it for it in objects if it["kind"] == "ServiceAccount"])
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
        for name, spec in chart.pod_specs(objects)
        if name == "Deployment/gateway"
    ]
    with pytest.raises(Refused) as refused:
        namespace.try_out(pods)
    assert named in str(refused.value)


def is_told_apart(it: dict[str, Any]) -> bool:
    """Whether an object is one of the few that have every kind of wrong value."""
    names = {"Deployment": {"gateway"}, "Service": {"gateway"}, "NetworkPolicy": {"gateway", "connection", "training"}}
    return it["metadata"]["name"] in names.get(it["kind"], {"gateway", "a"})


def of(objects: list[dict[str, Any]], namespace: Kube) -> list[dict[str, Any]]:
    """The objects in the namespace of the test."""
    text = yaml.safe_dump_all(objects).replace("namespace: vesta\n", f"namespace: {namespace.namespace}\n")
    return list(yaml.safe_load_all(text))


def test_a_port_of_the_node_that_is_taken_is_refused(namespace: Kube, tmp_path: Any) -> None:
    taken = {"port": 80, "nodePort": 30080, "protocol": "TCP"}
    namespace.put(
        [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "other"},
                "spec": {"type": "NodePort", "ports": [taken]},
            }
        ]
    )
    with pytest.raises(Refused, match="30080: provided port is already allocated"):
        namespace.try_out(it for it in of(objects_with({}, tmp_path), namespace) if is_told_apart(it))
