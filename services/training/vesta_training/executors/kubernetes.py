"""Trains runs in Kubernetes Jobs. The cluster, or Kueue if installed, is responsible for order, quotas and priorities."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import structlog
import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.config import load_incluster_config
from vesta_common.errors import FailedPrecondition, Unavailable
from vesta_common.storage.objects import ObjectStore

from vesta_training.executors import Observation, State, stored_result
from vesta_training.executors.job_manifest import OWNER_LABEL, WORK_LABEL, Pods, job_manifest
from vesta_training.executors.reasons import Seen, observed
from vesta_training.recipes.recipe import read_recipe
from vesta_training.runs.exchange import Exchange
from vesta_training.runs.job import Job

TIMEOUT_SECONDS = 10
INTERVAL = timedelta(seconds=1)
"""Polling interval of the same work."""
KUEUE = "kueue.x-k8s.io"
KUEUE_VERSIONS = ("v1beta2", "v1beta1")
"""Versions of Kueue's API, newest first: 0.15 introduced v1beta2, and v1beta1 is deprecated."""
KUEUE_JOB_LABEL = "kueue.x-k8s.io/job-uid"
_CONFLICT, _NOT_FOUND, _FORBIDDEN = 409, 404, 403
_REJECTED = {400, 403, 404, 422}
"""401 is not permanent: the token of a pod becomes invalid when the pod is deleted, and the next pod adopts the runs."""

log = structlog.get_logger()


class KubernetesExecutor:
    """Trains runs in Jobs, which continue when this service stops, and are adopted by its next process.

    Any number of workers can share an instance.

    Args:
        api: client of the cluster's API server; see `in_cluster`.
    """

    outlives_service = True

    def __init__(self, api: client.ApiClient, objects: ObjectStore, namespace: str, pods: Pods) -> None:
        self._batch, self._core = client.BatchV1Api(api), client.CoreV1Api(api)
        self._custom = client.CustomObjectsApi(api)
        self._objects = objects
        self._namespace = namespace
        self._pods = pods
        self._closing = threading.Event()

    def start(self, work: str, job: Job) -> None:
        """Creates the Job, unless it exists."""
        if self._find(work) is not None:
            return
        Exchange(self._objects, work).put_job(job)
        finetunes = read_recipe(job.recipe_name, job.recipe_yaml).finetunes
        manifest = job_manifest(
            work, job.run, pods=self._pods, finetunes=finetunes, deadline_seconds=job.deadline_seconds
        )
        try:
            self._call(self._batch.create_namespaced_job, self._namespace, manifest)
        except ApiException as error:
            if error.status != _CONFLICT:
                raise self._converted(error) from error

    def observe(self, work: str, timeout: timedelta = timedelta()) -> Observation:
        """Returns the stored result of the work, or else the state of its Job."""
        if timeout:
            self._closing.wait(INTERVAL.total_seconds())
        exchange = Exchange(self._objects, work)
        stored = stored_result(exchange)
        if stored.state is not State.ABSENT:
            return stored
        job = self._find(work)
        if job is None:
            return stored
        seen = observed(self._read_objects(job))
        if seen.state is State.RUNNING:
            return Observation(State.RUNNING, exchange.find_progress())
        if seen.state is State.FAILED:
            stored = stored_result(exchange)  # the result may have been stored just before the Job failed
            return stored if stored.state is not State.ABSENT else seen
        return seen

    def cancel(self, work: str) -> None:
        """Deletes the Job in the foreground: it exists until its pods are deleted."""
        try:
            self._call(self._batch.delete_namespaced_job, work, self._namespace, propagation_policy="Foreground")
        except ApiException as error:
            if error.status != _NOT_FOUND:
                raise self._converted(error) from error

    def list_work(self) -> list[str]:
        """Lists the Jobs of this service."""
        jobs = self._list(self._batch.list_namespaced_job, f"{OWNER_LABEL}={self._pods.owner}")
        return [job["metadata"]["name"] for job in jobs if not job["metadata"].get("deletionTimestamp")]

    def rest(self) -> None:
        """Does nothing: there are no idle resources."""

    def close(self) -> None:
        """Stops waiting. The Jobs continue."""
        self._closing.set()

    def _read_objects(self, job: Any) -> Seen:
        name = job["metadata"]["name"]
        pods = sorted(
            self._list(self._core.list_namespaced_pod, f"{WORK_LABEL}={name}"),
            key=lambda pod: str(pod["metadata"]["creationTimestamp"]),
        )
        seen = Seen(job, pods)
        if observed(seen).state is not State.PENDING:
            return seen
        about = {name, *(pod["metadata"]["name"] for pod in pods)}
        events = [event for event in self._events() if event["involvedObject"].get("name") in about]
        workload = self._workload(job["metadata"]["uid"]) if job["spec"].get("suspend") else None
        return Seen(job, pods, sorted(events, key=_last_time), workload)

    def _events(self) -> list[Any]:
        warnings = {"field_selector": "type=Warning"}
        try:
            return list(self._call(self._core.list_namespaced_event, self._namespace, **warnings)["items"])
        except ApiException as error:
            raise self._converted(error) from error

    def _workload(self, job_uid: str) -> Any:
        """Returns the Kueue Workload of a Job; None if it does not exist or Kueue is not installed."""
        for version in KUEUE_VERSIONS:
            try:
                workloads = self._custom.list_namespaced_custom_object(
                    KUEUE,
                    version,
                    self._namespace,
                    "workloads",
                    label_selector=f"{KUEUE_JOB_LABEL}={job_uid}",
                    _request_timeout=TIMEOUT_SECONDS,
                )
            except ApiException as error:
                if error.status not in {_NOT_FOUND, _FORBIDDEN}:
                    raise self._converted(error) from error
            else:
                return next(iter(workloads["items"]), None)
        return None

    def _find(self, work: str) -> Any:
        try:
            return self._call(self._batch.read_namespaced_job, work, self._namespace)
        except ApiException as error:
            if error.status == _NOT_FOUND:
                return None
            raise self._converted(error) from error

    def _list(self, call: Callable[..., Any], selector: str) -> list[Any]:
        try:
            return list(self._call(call, self._namespace, label_selector=selector)["items"])
        except ApiException as error:
            raise self._converted(error) from error

    def _call(self, call: Callable[..., Any], *arguments: Any, **fields: Any) -> Any:
        """Calls the API server and returns the response as JSON.

        Raises:
            ApiException: the API server rejects the request.
            Unavailable: the API server does not respond.
        """
        try:
            answer = call(*arguments, **fields, _preload_content=False, _request_timeout=TIMEOUT_SECONDS)
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f"the Kubernetes API server does not respond: {error}") from error
        return json.loads(answer.data)

    def _converted(self, error: ApiException) -> Exception:
        """Converts an error of the API server, with its message."""
        try:
            message = json.loads(error.body)["message"]
        except (TypeError, ValueError, KeyError):
            message = str(error.reason)
        if error.status in _REJECTED:
            return FailedPrecondition(
                f"the cluster rejects the training Job: {message}; change the values training.jobs, "
                f"or the Role of this service in the namespace {self._namespace}",
                reason="TRAINING_JOB_REJECTED",
            )
        return Unavailable(f"the Kubernetes API server cannot process the request now: {message}")


def in_cluster() -> client.ApiClient:
    """Returns an API client for the cluster of this pod, with its service account."""
    load_incluster_config()
    return client.ApiClient()


def _last_time(event: Any) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
