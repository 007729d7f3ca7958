"""Vesta, installed by Helm into a namespace of its own and reached as from outside of the cluster."""

import base64
import json
import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import chart
import yaml
from kube import Kube, Refused
from vesta import Vesta

RELEASE = "vesta"
CHART = str(chart.CHART)
INSTALL_SECONDS = 300
ANY_PORTS = "--set=gateway.service.restNodePort=0,gateway.service.grpcNodePort=0"
"""NodePorts that are free."""
_OF_JOBS = {"trainer", "admin", "test"}


class HelmFailed(Exception):
    """Helm ended with an error; the message is Helm's, with what the pods say."""


@dataclass(frozen=True)
class Site:
    """A release of the chart in a namespace.

    Attributes:
        options: Helm's options that say with which values.
        chart: the folder of the chart.
    """

    kube: Kube
    options: tuple[str, ...]
    chart: str = CHART

    def helm(self, *arguments: str) -> str:
        """What Helm prints. Raises HelmFailed."""
        command = [str(self.kube.kubectl.parent / "helm"), *arguments, f"--namespace={self.kube.namespace}"]
        environment = {**os.environ, "KUBECONFIG": str(self.kube.kubeconfig)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise HelmFailed(f"{done.stderr.strip()}\n{self.kube('get', 'pods,events')}")
        return done.stdout

    def install(self) -> None:
        """Installs it and waits until it is ready."""
        self.helm("install", RELEASE, self.chart, *self.options, "--wait", f"--timeout={INSTALL_SECONDS}s")

    def upgrade(self, *options: str) -> None:
        """Upgrades it to other values, and waits until the new pods are ready."""
        self.helm("upgrade", RELEASE, self.chart, *self.options, *options, "--wait", f"--timeout={INSTALL_SECONDS}s")

    @property
    def grpc(self) -> str:
        """The gateway, HOST:PORT."""
        return self._address("grpc")

    @property
    def rest(self) -> str:
        """Likewise, for REST."""
        return self._address("rest")

    @property
    def owner_key(self) -> str:
        """The platform owner's."""
        secret = self.kube.get("secret", "vesta-secrets")
        return base64.b64decode(secret["data"]["owner-key"]).decode()

    def age(self) -> float:
        """Seconds since it was installed."""
        first = self.helm("history", RELEASE, "--output=json", "--max=1000")
        begun = datetime.fromisoformat(json.loads(first)[0]["updated"])
        return (datetime.now(UTC) - begun).total_seconds()

    def run_in(self, component: str, script: str, *arguments: str) -> str:
        """What a Python script prints in a pod of a component. Raises Refused."""
        pod = self.pods(component)[0]["metadata"]["name"]
        return self.kube("exec", pod, "--", "python", "-c", script, *arguments)

    def owner(self) -> Vesta:
        """The platform's owner at the gateway."""
        return Vesta(self.grpc, self.owner_key)

    def pods(self, component: str = "") -> list[dict[str, Any]]:
        """The pods of the release that run or are to run, or those of one component."""
        wanted = f"app.kubernetes.io/part-of=vesta{f',app.kubernetes.io/component={component}' if component else ''}"
        found = self.kube.get("pods", f"--selector={wanted}")["items"]
        return [pod for pod in found if pod["status"]["phase"] in ("Pending", "Running")]

    def are_ready(self) -> bool:
        """Whether every pod that is to serve does, and none is on its way out."""
        pods = self.serving()
        return bool(pods) and all(is_ready(pod) and "deletionTimestamp" not in pod["metadata"] for pod in pods)

    def serving(self) -> list[dict[str, Any]]:
        """The pods of services and engines: not those of Jobs, whose failed ones are left to be looked at."""
        return [pod for pod in self.pods() if pod["metadata"]["labels"]["app.kubernetes.io/component"] not in _OF_JOBS]

    def memory(self) -> dict[str, float]:
        """MiB of each pod that the metrics server knows."""
        return self._usage("memory", 2**20)

    def processor(self) -> dict[str, float]:
        """Likewise, the cores that it uses."""
        return self._usage("cpu", 1)

    def _usage(self, resource: str, unit: float) -> dict[str, float]:
        try:
            told = self.kube("get", "--raw", f"/apis/metrics.k8s.io/v1beta1/namespaces/{self.kube.namespace}/pods")
        except Refused:  # none is known yet
            return {}
        items = yaml.safe_load(told)["items"]
        return {
            one["metadata"]["name"]: sum(quantity(it["usage"][resource]) for it in one["containers"]) / unit
            for one in items
        }

    def _address(self, port: str) -> str:
        service = self.kube.get("service", "gateway")
        node_port = next(one["nodePort"] for one in service["spec"]["ports"] if one["name"] == port)
        node = self.kube.get("nodes")["items"][0]
        ip = next(one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP")
        return f"{ip}:{node_port}"


def quantity(text: str) -> float:
    """What a quantity of Kubernetes says: bytes, or cores."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9}
    unit = next((one for one in units if text.endswith(one)), "")
    return float(text.removesuffix(unit)) * units.get(unit, 1)


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether a pod is ready."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))
