"""What a real API server says to the chart: its objects, its pods' security, and what its training service may do."""

from typing import Any

import chart
import pytest
import yaml
from kube import Kube, Refused

ROOT_POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "root"},
    "spec": {"containers": [{"name": "one", "image": "vesta.test/agnhost:1"}]},
}
BROKEN = [
    ("apps/v1", "Deployment", "spec.template.spec.containers.0.imagePulPolicy", "Never", "unknown field"),
    ("apps/v1", "Deployment", "spec.template.spec.containers.0.image", "", "image: Required value"),
    ("apps/v1", "Deployment", "spec.template.spec.containers.0.imagePullPolicy", "Sometimes", "Unsupported value"),
    ("apps/v1", "Deployment", "spec.template.spec.containers.0.ports.0.containerPort", 99999, "between 1 and 65535"),
    (
        "apps/v1",
        "Deployment",
        "spec.template.spec.containers.0.resources.limits.memory",
        "1Mi",
        "less than or equal to memory",
    ),
    ("apps/v1", "Deployment", "spec.template.spec.volumes", [], "volumeMounts[0].name: Not found"),
    ("apps/v1", "Deployment", "spec.selector.matchLabels.other", "one", "selector"),
    ("apps/v1", "Deployment", "metadata.name", "Two Words", "lowercase RFC 1123"),
    ("batch/v1", "Job", "spec.template.spec.restartPolicy", "Always", "restartPolicy"),
    ("v1", "Service", "spec.type", "Foo", "Unsupported value"),
]
"""Mistakes in an object of the chart, most of which its schema does not find: what is set to what, and what the server says."""


def named(objects: list[dict[str, Any]], namespace: str) -> list[dict[str, Any]]:
    """The objects, in another namespace than the one that they were rendered for."""
    text = yaml.safe_dump_all(objects).replace("namespace: vesta\n", f"namespace: {namespace}\n")
    return list(yaml.safe_load_all(text))


def with_value(it: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of an object in which one field is another."""
    copied: dict[str, Any] = yaml.safe_load(yaml.safe_dump(it))
    *folders, last = path.split(".")
    here: Any = copied
    for part in folders:
        here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
    here[last] = value
    return copied


@pytest.mark.parametrize("profile", chart.PROFILES)
def test_a_real_server_accepts_every_object_of_a_profile(profile: str, namespace: Kube) -> None:
    objects = named(chart.manifests(profile), namespace.namespace)

    said = namespace.try_out(objects)

    assert said.count("(server dry run)") == len(objects)


@pytest.mark.parametrize("profile", chart.PROFILES)
def test_the_restricted_standard_accepts_every_pod_of_a_profile(profile: str, namespace: Kube) -> None:
    objects = chart.manifests(profile)
    accounts = [it for it in named(objects, namespace.namespace) if it["kind"] == "ServiceAccount"]
    namespace.put(accounts)
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"}, "spec": _of_a_pod(spec)}
        for number, (_, spec) in enumerate(chart.pod_specs(objects))
    ]

    said = namespace.try_out(pods)

    assert said.count("(server dry run)") == len(pods) > 10


def _of_a_pod(spec: dict[str, Any]) -> dict[str, Any]:
    """What a StatefulSet claims for its pods is a volume of the pod by then."""
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    claimed = {mount["name"] for one in chart.containers(spec) for mount in one["volumeMounts"]} - volumes
    return {
        **spec,
        "volumes": [*spec.get("volumes", []), *({"name": name, "emptyDir": {}} for name in sorted(claimed))],
    }


def test_the_restricted_standard_refuses_a_pod_that_may_run_as_root(namespace: Kube) -> None:
    with pytest.raises(Refused, match='violates PodSecurity "restricted'):
        namespace.try_out([ROOT_POD])


@pytest.mark.parametrize(("version", "kind", "path", "value", "reason"), BROKEN)
def test_a_mistake_in_an_object_is_refused(
    version: str, kind: str, path: str, value: object, reason: str, namespace: Kube
) -> None:
    objects = named(chart.manifests("small"), namespace.namespace)
    it = next(it for it in objects if (it["apiVersion"], it["kind"]) == (version, kind))
    namespace.try_out([it])

    with pytest.raises(Refused) as refused:
        namespace.try_out([with_value(it, path, value)])

    assert reason in str(refused.value)


@pytest.fixture(scope="module")
def training(namespace: Kube, tmp_path_factory: pytest.TempPathFactory) -> Kube:
    """The training service, with the Role that the chart gives it."""
    kinds = {"Role", "RoleBinding", "ServiceAccount"}
    objects = [
        it
        for it in chart.manifests("small", options=["--set", "training.jobs.enabled=true"])
        if it["kind"] in kinds and it["metadata"]["name"] == "training"
    ]
    assert {it["kind"] for it in objects} == kinds
    namespace.put(named(objects, namespace.namespace))
    return namespace.as_account("training", tmp_path_factory.mktemp("account"))


@pytest.mark.parametrize("resource", ["jobs", "pods", "events"])
def test_the_training_service_may_read_what_tells_of_its_jobs(resource: str, training: Kube) -> None:
    assert training.get(resource)["items"] == []


def test_the_training_service_may_create_and_delete_a_job(training: Kube) -> None:
    training("create", "job", "one", "--image=vesta.test/agnhost:1")
    training("delete", "job", "one")

    assert training.get("jobs")["items"] == []


@pytest.mark.parametrize(
    "forbidden",
    [
        ("get", "secrets"),
        ("get", "configmaps"),
        ("get", "deployments"),
        ("get", "serviceaccounts"),
        ("get", "jobs", "--namespace=default"),
        ("get", "pods", "--all-namespaces"),
        ("get", "nodes"),
        ("delete", "pod", "any"),
        ("create", "secret", "generic", "any"),
        ("create", "deployment", "any", "--image=vesta.test/agnhost:1"),
        ("create", "token", "training"),
        ("create", "role", "any", "--verb=get", "--resource=secrets"),
    ],
    ids=" ".join,
)
def test_what_the_training_service_does_not_need_is_forbidden(forbidden: tuple[str, ...], training: Kube) -> None:
    with pytest.raises(Refused, match=r"(?i)forbidden"):
        training(*forbidden)


def test_a_wrong_token_is_no_identity(training: Kube) -> None:
    stranger = Kube(training.kubectl, training.kubeconfig, training.namespace, ("--token=wrong", training.options[1]))

    with pytest.raises(Refused, match=r"Unauthorized|must be logged in"):
        stranger.get("jobs")
