"""The manifest of training Jobs, and its customisation by operators."""

from typing import Any

import pytest
from vesta_training.executors.job_manifest import Pods, job_manifest, merged

WORK, RUN = "train-r-0123456789ab", "projects/acme/trainingRuns/r"


def a_job(*, finetunes: bool = False, deadline_seconds: int = 60, **fields: Any) -> dict[str, Any]:
    pods = Pods(image="registry/vesta-trainer:1", **fields)
    return job_manifest(WORK, RUN, pods=pods, finetunes=finetunes, deadline_seconds=deadline_seconds)


def test_a_job_has_the_name_of_the_work_and_the_deadline_of_the_run() -> None:
    job = a_job(deadline_seconds=90)
    assert job["metadata"]["name"] == WORK
    assert job["spec"]["activeDeadlineSeconds"] == 90
    assert "activeDeadlineSeconds" not in a_job(deadline_seconds=0)["spec"]


def test_a_pod_meets_the_restricted_standard_and_reaches_no_api_server() -> None:
    pod = a_job()["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not pod["automountServiceAccountToken"]


def test_an_eviction_is_no_failure_and_a_permanent_error_is_not_retried() -> None:
    ignore, fail = a_job()["spec"]["podFailurePolicy"]["rules"]
    assert (ignore["action"], ignore["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (fail["action"], fail["onExitCodes"]["values"]) == ("FailJob", [10, 137])


@pytest.mark.parametrize(
    ("queue", "label"), [("training", "training"), ("vesta-{project}", "vesta-acme")], ids=["shared", "of a project"]
)
def test_a_queue_of_kueue_is_named_on_the_job_which_waits_to_be_resumed(queue: str, label: str) -> None:
    job = a_job(queue=queue)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == label
    assert job["spec"]["suspend"]


def test_without_a_queue_the_cluster_schedules_immediately() -> None:
    job = a_job()
    assert "suspend" not in job["spec"]
    assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]


def test_only_a_run_with_fine_tuning_requests_a_gpu() -> None:
    tuned = a_job(finetunes=True, gpus=1, gpu_resource="nvidia.com/mig-1g.5gb")
    assert tuned["spec"]["template"]["spec"]["containers"][0]["resources"] == {"limits": {"nvidia.com/mig-1g.5gb": "1"}}
    assert "resources" not in a_job(gpus=1)["spec"]["template"]["spec"]["containers"][0]


def test_fine_tuning_runs_on_several_pods_with_torchrun() -> None:
    job = a_job(finetunes=True, nodes=3, gpus=2, service="trainers")
    pod = job["spec"]["template"]["spec"]
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 3, 3)
    assert pod["subdomain"] == "trainers"
    assert pod["containers"][0]["command"] == [
        *("python", "-m", "vesta_training.runs.torchrun"),
        *("--nnodes=3", "--nproc-per-node=2", "--node-rank=$(JOB_COMPLETION_INDEX)"),
        *(f"--master-addr={WORK}-0.trainers", "--master-port=29500", "--rdzv-conf=timeout=60"),
        *("-m", "vesta_training.runs.trainer", WORK),
    ]


def test_other_runs_have_one_pod_and_no_torchrun() -> None:
    job = a_job(nodes=3, gpus=2)
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (1, 1)
    command = ["python", "-m", "vesta_training.runs.trainer", WORK]
    assert job["spec"]["template"]["spec"]["containers"][0]["command"] == command


def test_keys_of_the_object_store_come_from_a_secret_and_never_in_the_job() -> None:
    environment = a_job(secret="vesta-s3")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert [one["valueFrom"]["secretKeyRef"] for one in environment] == [
        {"name": "vesta-s3", "key": "s3-access-key"},
        {"name": "vesta-s3", "key": "s3-secret-key"},
    ]


def test_the_overlay_extends_the_pod_and_keeps_other_fields() -> None:
    overlay = {
        "metadata": {"labels": {"team": "vision", "vesta/work": "stolen"}},
        "spec": {
            "nodeSelector": {"gpu": "a100"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "containers": [{"name": "trainer", "resources": {"limits": {"memory": "8Gi"}}}],
            "volumes": [{"name": "work", "emptyDir": {"sizeLimit": "20Gi"}}],
        },
    }
    template = a_job(overlay=overlay)["spec"]["template"]
    pod = template["spec"]
    assert template["metadata"]["labels"]["team"] == "vision"
    assert template["metadata"]["labels"]["vesta/work"] == WORK
    assert pod["nodeSelector"] == {"gpu": "a100"}
    assert pod["containers"][0]["image"] == "registry/vesta-trainer:1"
    assert pod["containers"][0]["resources"] == {"limits": {"memory": "8Gi"}}
    assert {one["name"] for one in pod["volumes"]} == {"tmp", "work", "shm"}


@pytest.mark.parametrize(
    ("base", "overlay", "both"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"args": ["a"]}, {"args": ["b"]}, {"args": ["b"]}),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "2"}, {"name": "B"}]},
         {"env": [{"name": "A", "value": "2"}, {"name": "B"}]}),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "a"}, {"key": "b"}]}),
    ],
)  # fmt: skip
def test_templates_are_merged_as_the_cluster_merges_them(base: Any, overlay: Any, both: Any) -> None:
    assert merged(base, overlay) == both
