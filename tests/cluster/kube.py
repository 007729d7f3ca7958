"""What the tests know of a cluster: kubectl as somebody, in a namespace of their own."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

POLL_SECONDS = 0.5
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""The security context of a container that meets the restricted standard."""


def until(holds: Callable[[], bool], seconds: float = 60) -> bool:
    """Waits until it holds; whether it does."""
    end = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    return held


class Refused(Exception):
    """kubectl did not get what it asked for; the message is the server's."""


@dataclass(frozen=True)
class Kube:
    """kubectl on a cluster.

    Attributes:
        options: put before every command, such as `--token`; they say who calls.
    """

    kubectl: Path
    kubeconfig: Path
    namespace: str = "default"
    options: tuple[str, ...] = ()

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """What kubectl prints. Raises Refused."""
        named = any(one.startswith("--namespace") for one in arguments)
        where = () if named else (f"--namespace={self.namespace}",)
        command = [str(self.kubectl), *self.options, *where, *arguments]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise Refused(done.stderr.strip())
        return done.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """Objects, as `kubectl get` tells them."""
        found: dict[str, Any] = json.loads(self("get", *arguments, "--output=json"))
        return found

    def try_out(self, objects: Iterable[dict[str, Any]]) -> str:
        """What the server says to the creation of objects, strictly, though none is created. Raises Refused."""
        return self(
            "create", "--dry-run=server", "--validate=strict", "--filename=-", stdin=yaml.safe_dump_all(objects)
        )

    def put(self, objects: Iterable[dict[str, Any]]) -> None:
        """Creates objects, or makes them what these are."""
        self("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=yaml.safe_dump_all(objects))

    def as_account(self, name: str, folder: Path) -> "Kube":
        """The same, as a service account of the namespace, with a token of its own and a kubeconfig in a folder."""
        token = self("create", "token", name).strip()
        server = self("config", "view", "--raw", "--output=jsonpath={.clusters[0].cluster.server}")
        nobody = folder / "nobody.kubeconfig"
        content = yaml.safe_load(self.kubeconfig.read_text())
        nobody.write_text(yaml.safe_dump({**content, "users": [{"name": one["name"]} for one in content["users"]]}))
        return replace(self, kubeconfig=nobody, options=(f"--token={token}", f"--server={server}"))

    @contextmanager
    def own_namespace(self) -> Iterator["Kube"]:
        """A namespace that holds its pods to the restricted standard, deleted afterwards."""
        name = f"vesta-{uuid4().hex[:8]}"
        self("create", "namespace", name)
        try:
            self("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
            self("wait", "serviceaccount/default", "--for=create", "--timeout=60s", f"--namespace={name}")
            yield replace(self, namespace=name)
        finally:
            self("delete", "namespace", name, "--wait=false")
