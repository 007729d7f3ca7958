"""The Kubernetes executor with a real API server and its controllers. Without nodes, the tests set the pod status, as a kubelet does."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from executors_contract import WORK, ExecutorContract, an_embedding, end_of, until
from kubernetes import client, config
from training_service import eventually
from vesta_common.errors import FailedPrecondition
from vesta_common.storage.objects import ObjectStore
from vesta_training.executors import State
from vesta_training.executors.job_manifest import QUEUE_LABEL, WORK_LABEL, Pods
from vesta_training.executors.kubernetes import KUEUE, KUEUE_JOB_LABEL, KUEUE_VERSIONS, KubernetesExecutor
from vesta_training.executors.reasons import INDEX_LABEL
from vesta_training.recipes.recipe import builtin_yaml
from vesta_training.runs.job import Job
from vesta_training.runs.work import execute
from vesta_training.settings import Settings

ROLE = [
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get", "list", "delete"]},
    {"apiGroups": [""], "resources": ["pods", "events"], "verbs": ["list"]},
    {"apiGroups": ["kueue.x-k8s.io"], "resources": ["workloads"], "verbs": ["list"]},
]
"""The permissions that docs/training-jobs.md grants to the training service. The executors under test have no others."""


class OneNamespace:
    """A namespace of the cluster. The test acts as its kubelet."""

    def __init__(self, kubeconfig: Path, settings: Settings, pods: Pods) -> None:
        self.api = config.new_client_from_config(str(kubeconfig))
        self.core, self.batch = client.CoreV1Api(self.api), client.BatchV1Api(self.api)
        self.namespace = f"training-{uuid.uuid4().hex[:8]}"
        enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.core.create_namespace({"metadata": {"name": self.namespace, "labels": enforce}})
        self._training = self._service_account()
        self._settings, self._pods = settings, pods
        self.objects = ObjectStore.of(settings)
        self.executor = self.another()

    def _service_account(self) -> client.ApiClient:
        """Returns an API client with the service account of the training service."""
        roles = client.RbacAuthorizationV1Api(self.api)
        named = {"metadata": {"name": "training"}}
        self.core.create_namespaced_service_account(self.namespace, named)
        roles.create_namespaced_role(self.namespace, {**named, "rules": ROLE})
        account = {"kind": "ServiceAccount", "name": "training", "namespace": self.namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "training"}
        roles.create_namespaced_role_binding(self.namespace, {**named, "subjects": [account], "roleRef": role})
        token = self.core.create_namespaced_service_account_token(
            "training", self.namespace, {"spec": {"audiences": []}}
        )
        whose = client.Configuration(host=self.api.configuration.host)
        whose.ssl_ca_cert = self.api.configuration.ssl_ca_cert
        whose.api_key["authorization"] = f"Bearer {token.status.token}"
        return client.ApiClient(whose)

    def another(self) -> KubernetesExecutor:
        return KubernetesExecutor(self._training, self.objects, self.namespace, self._pods)

    def with_pods(self, **fields: Any) -> KubernetesExecutor:
        return KubernetesExecutor(self._training, self.objects, self.namespace, Pods(image="vesta-trainer:1", **fields))

    def job(self, **fields: Any) -> Job:
        return an_embedding(**{"work_folder": self._settings.work_folder, **fields})

    def go_on(self, work: str) -> None:
        """Executes the work of the pod."""
        execute(work, self.objects, {"work_folder": self._settings.work_folder})

    def pod(self, work: str, index: int = 0) -> Any:
        """Waits for the first pod of the work with this index that the scheduler has seen, and returns it. Its condition would otherwise
        replace one that a test sets.
        """
        found: list[Any] = []
        of_index = f"{WORK_LABEL}={work},{INDEX_LABEL}={index}"

        def made(_: object) -> bool:
            pods = self.core.list_namespaced_pod(self.namespace, label_selector=of_index).items
            found[:] = [pod for pod in pods if pod.status.conditions]
            return bool(found)

        until(self.executor, work, made)
        return found[0]

    def count_pods(self, work: str) -> int:
        return len(self.core.list_namespaced_pod(self.namespace, label_selector=f"{WORK_LABEL}={work}").items)

    def kubelet_says(self, work: str, index: int = 0, **status: Any) -> None:
        name = self.pod(work, index).metadata.name
        self.core.patch_namespaced_pod_status(name, self.namespace, {"status": status})

    def put_workload(self, version: str, job_uid: str, status: dict[str, Any]) -> None:
        """Creates a Workload of a Job, as Kueue does."""
        metadata = {"name": "job", "labels": {KUEUE_JOB_LABEL: job_uid}}
        kind = {"apiVersion": f"{KUEUE}/{version}", "kind": "Workload"}
        workload = {**kind, "metadata": metadata, "spec": {"active": True}, "status": status}
        kueue = client.CustomObjectsApi(self.api)
        kueue.create_namespaced_custom_object(KUEUE, version, self.namespace, "workloads", workload)

    def kill(self, work: str) -> None:
        self.batch.delete_namespaced_job(work, self.namespace, propagation_policy="Background")

    def count_started(self, work: str) -> int:
        jobs = self.batch.list_namespaced_job(self.namespace, label_selector=f"{WORK_LABEL}={work}").items
        return sum(job.spec.parallelism for job in jobs)

    def close(self) -> None:
        self.core.delete_namespace(self.namespace)
        self.objects.close()
        self._training.close()
        self.api.close()


@contextmanager
def workloads_of(version: str, api: client.ApiClient) -> Iterator[None]:
    """Makes the API server serve Kueue's Workloads in one version, without Kueue."""
    crds, name = client.ApiextensionsV1Api(api), f"workloads.{KUEUE}"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    served = {"name": version, "served": True, "storage": True, "schema": schema}
    names = {"plural": "workloads", "singular": "workload", "kind": "Workload"}
    spec = {"group": KUEUE, "scope": "Namespaced", "names": names, "versions": [served]}
    approved = {"api-approved.kubernetes.io": "unapproved, a test"}
    if crds.list_custom_resource_definition(field_selector=f"metadata.name={name}").items:
        pytest.skip("Kueue is installed in the cluster of KUBECONFIG")
    crds.create_custom_resource_definition({"metadata": {"name": name, "annotations": approved}, "spec": spec})
    try:
        eventually(lambda: _is_established(crds, name))
        yield
    finally:
        crds.delete_custom_resource_definition(name)
        eventually(lambda: not crds.list_custom_resource_definition(field_selector=f"metadata.name={name}").items)


def _is_established(crds: client.ApiextensionsV1Api, name: str) -> bool:
    conditions = crds.read_custom_resource_definition(name).status.conditions or []
    return ("Established", "True") in {(condition.type, condition.status) for condition in conditions}


@pytest.fixture
def place(
    api_kubeconfig: Path, service_settings: Callable[[str], dict[str, Any]], tmp_path: Path
) -> Iterator[OneNamespace]:
    settings = Settings(
        **service_settings("training"),
        datasets_address="127.0.0.1:1",
        serving_address="127.0.0.1:1",
        work_folder=str(tmp_path),
    )
    made = OneNamespace(api_kubeconfig, settings, Pods(image="vesta-trainer:1"))
    yield made
    made.close()


def a_container(state: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "trainer", "image": "vesta-trainer:1", "imageID": "", "ready": False, "restartCount": 0, "state": state
    }  # fmt: skip


class TestKubernetesExecutor(ExecutorContract):
    def test_an_unschedulable_run_has_the_message_of_the_scheduler(self, place: OneNamespace) -> None:
        place.executor.start(WORK, place.job())
        seen = until(place.executor, WORK, lambda seen: "nodes" in seen.waiting_reason)
        assert seen.state is State.PENDING

    def test_a_missing_image_is_reported_while_the_run_waits(self, place: OneNamespace) -> None:
        place.executor.start(WORK, place.job())
        waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image vesta-trainer:1"}}
        scheduled = [{"type": "PodScheduled", "status": "True"}]
        place.kubelet_says(WORK, conditions=scheduled, containerStatuses=[a_container(waiting)])
        seen = place.executor.observe(WORK)
        assert seen.waiting_reason == "ImagePullBackOff: Back-off pulling image vesta-trainer:1"

    def test_a_run_out_of_memory_fails_immediately_with_its_reason(self, place: OneNamespace) -> None:
        place.executor.start(WORK, place.job())
        killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
        place.kubelet_says(WORK, phase="Failed", containerStatuses=[a_container(killed)])
        assert "OOMKilled" in str(end_of(place.executor, WORK).error)

    def test_an_evicted_pod_is_started_again(self, place: OneNamespace) -> None:
        place.executor.start(WORK, place.job())
        evicted = place.pod(WORK).metadata.name
        disrupted = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
        place.kubelet_says(WORK, phase="Failed", reason="Evicted", conditions=disrupted)
        until(place.executor, WORK, lambda _: place.pod(WORK).metadata.name != evicted or place.count_pods(WORK) > 1)
        assert place.executor.observe(WORK).state is State.PENDING

    def test_a_job_that_was_deleted_from_outside_is_absent(self, place: OneNamespace) -> None:
        place.executor.start(WORK, place.job())
        place.kill(WORK)
        assert end_of(place.executor, WORK).state is State.ABSENT

    def test_a_job_in_a_queue_waits_suspended_and_can_be_cancelled(self, place: OneNamespace) -> None:
        queued = place.with_pods(queue="vesta-{project}")
        queued.start(WORK, place.job(run="projects/acme/trainingRuns/r"))
        job = place.batch.read_namespaced_job(WORK, place.namespace)
        assert (job.metadata.labels[QUEUE_LABEL], job.spec.suspend) == ("vesta-acme", True)
        assert "suspended" in queued.observe(WORK).waiting_reason
        queued.cancel(WORK)
        assert end_of(queued, WORK).state is State.ABSENT

    @pytest.mark.parametrize("version", KUEUE_VERSIONS)
    def test_a_queued_job_has_the_message_of_its_workload(self, version: str, place: OneNamespace) -> None:
        queued = place.with_pods(queue="shared")
        queued.start(WORK, place.job())
        uid = place.batch.read_namespaced_job(WORK, place.namespace).metadata.uid
        with workloads_of(version, place.api):
            message = "couldn't assign flavors to pod set main: insufficient unused quota for cpu"
            condition = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": message}
            place.put_workload(version, uid, {"conditions": [condition]})
            assert queued.observe(WORK).waiting_reason == f"queued by Kueue: {message}"

    def test_a_template_that_the_cluster_rejects_is_reported_with_its_message(self, place: OneNamespace) -> None:
        wrong = place.with_pods(overlay={"spec": {"restartPolicy": "Always"}})
        with pytest.raises(FailedPrecondition) as refused:
            wrong.start(WORK, place.job())
        assert "restartPolicy" in str(refused.value)

    def test_the_service_may_do_nothing_else_in_the_namespace(self, place: OneNamespace) -> None:
        with pytest.raises(client.ApiException) as refused:
            client.CoreV1Api(place._training).list_namespaced_secret(place.namespace)
        assert refused.value.status == 403


RUNS = {"running": {"startedAt": "2026-03-01T00:00:00Z"}}


class TestWorkOfTwoPods:
    @pytest.fixture
    def executor(self, place: OneNamespace) -> KubernetesExecutor:
        """Returns an executor with runs on two pods, of which one has started."""
        executor = place.with_pods(nodes=2)
        executor.start(WORK, place.job(recipe_name="tuned", recipe_yaml=builtin_yaml("classification-finetune")))
        return executor

    def test_pods_have_resolvable_names(self, place: OneNamespace, executor: KubernetesExecutor) -> None:
        assert place.count_started(WORK) == 2
        assert executor.list_work() == [WORK]
        for index in range(2):
            pod = place.pod(WORK, index)
            assert (pod.spec.hostname, pod.spec.subdomain) == (f"{WORK}-{index}", "trainers")
            (container,) = pod.spec.containers
            assert f"--master-addr={WORK}-0.trainers" in container.command
            assert "--node-rank=$(JOB_COMPLETION_INDEX)" in container.command
            assert "JOB_COMPLETION_INDEX" in {one.name for one in container.env}

    def test_the_run_waits_until_both_pods_run_and_names_the_missing_one(
        self, place: OneNamespace, executor: KubernetesExecutor
    ) -> None:
        scheduled = [{"type": "PodScheduled", "status": "True"}]
        place.kubelet_says(WORK, 0, phase="Running", conditions=scheduled, containerStatuses=[a_container(RUNS)])
        assert "nodes" in until(executor, WORK, lambda seen: "nodes" in seen.waiting_reason).waiting_reason
        waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image vesta-trainer:1"}}
        place.kubelet_says(WORK, 1, conditions=scheduled, containerStatuses=[a_container(waiting)])
        seen = executor.observe(WORK)
        assert (seen.state, seen.waiting_reason[:16]) == (State.PENDING, "ImagePullBackOff")
        place.kubelet_says(WORK, 1, phase="Running", containerStatuses=[a_container(RUNS)])
        assert executor.observe(WORK).state is State.RUNNING

    def test_a_pod_out_of_memory_ends_both_and_the_run_names_it(
        self, place: OneNamespace, executor: KubernetesExecutor
    ) -> None:
        lost = {"terminated": {"exitCode": 11, "reason": "Error", "message": "another process of the run is lost"}}
        killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
        place.kubelet_says(WORK, 0, phase="Failed", containerStatuses=[a_container(lost)])
        place.kubelet_says(WORK, 1, phase="Failed", containerStatuses=[a_container(killed)])
        error = end_of(executor, WORK).error
        assert "OOMKilled" in str(error)
        assert f"{WORK}-1" in str(error)

    def test_an_eviction_restarts_both_pods(self, place: OneNamespace, executor: KubernetesExecutor) -> None:
        first, second = (place.pod(WORK, index).metadata.name for index in range(2))
        disrupted = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
        place.kubelet_says(WORK, 1, phase="Failed", reason="Evicted", conditions=disrupted)
        lost = {"terminated": {"exitCode": 11, "reason": "Error"}}
        place.kubelet_says(WORK, 0, phase="Failed", containerStatuses=[a_container(lost)])
        until(executor, WORK, lambda _: place.count_pods(WORK) == 4)
        names = {pod.metadata.name for pod in place.core.list_namespaced_pod(place.namespace).items}
        assert {first, second} < names
        assert executor.observe(WORK).state is State.PENDING

    def test_cancelling_deletes_both_pods(self, place: OneNamespace, executor: KubernetesExecutor) -> None:
        place.pod(WORK, 1)
        executor.cancel(WORK)
        until(executor, WORK, lambda seen: seen.state is State.ABSENT)
        assert place.count_pods(WORK) == 0
