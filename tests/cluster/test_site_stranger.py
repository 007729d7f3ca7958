"""A foreign pod in the release's namespace: the network keeps it away, and where it gets through, no forged header or token lets it in."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kube import RESTRICTED, Kube, Refused, until
from site_on_node import Site
from vesta_admin.authority import issue, new_authority
from vesta_common.identity import CredentialFiles, Identity
from vesta_common.identity.callers import PEERS

pytestmark = pytest.mark.timeout(300)

CALLS = """
import json, sys, grpc
authority, methods, metadata = (json.loads(one) for one in sys.argv[1:])
told = {}
for service, method in methods.items():
    with grpc.secure_channel(f"{service}:9000", grpc.ssl_channel_credentials(authority.encode())) as channel:
        try:
            channel.unary_unary(method)(b"", timeout=10, metadata=[tuple(one) for one in metadata[service]])
            told[service] = "OK"
        except grpc.RpcError as error:
            told[service] = error.code().name
print(json.dumps(told))
"""
"""What the pod runs: one method of each service, with metadata of its own."""
METHODS = {
    "connection": "/vesta.connection.v1.SourceService/ListSources",
    "datasets": "/vesta.datasets.v1.DatasetService/ListDatasets",
    "annotation": "/vesta.annotation.v1.CampaignService/ListCampaigns",
    "training": "/vesta.training.v1.ModelService/ListModels",
    "serving": "/vesta.serving.v1.DeploymentService/ListDeployments",
    "pipelining": "/vesta.pipelining.v1.PipelineService/ListPipelines",
    "conductor": "/vesta.conductor.v1.LoopService/ListLoops",
}
OWNER = [("x-vesta-caller", "platform/owner"), ("x-vesta-role", "owner"), ("x-vesta-service", "gateway")]
AUTHORITY = "import os; print(open(os.environ['VESTA_GATEWAY_IDENTITY_CA_FILE']).read())"
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 9000), 3)"


@dataclass(frozen=True)
class Stranger:
    """A pod that has our libraries, and no certificate of the platform's."""

    kube: Kube
    name: str

    def run(self, script: str, *arguments: str) -> str:
        """What a script prints in it. Raises Refused."""
        return self.kube("exec", self.name, "--", "python", "-c", script, *arguments)

    def reaches(self, service: str) -> bool:
        """Whether the network lets it connect."""
        try:
            self.run(CONNECT, service)
        except Refused:
            return False
        return True

    def call(self, authority: str, metadata: dict[str, Any]) -> dict[str, str]:
        """The status of a call of each service, by service."""
        told: dict[str, str] = json.loads(
            self.run(CALLS, json.dumps(authority), json.dumps(METHODS), json.dumps(metadata))
        )
        return told


@pytest.fixture(scope="module")
def stranger(site: Site) -> Iterator[Stranger]:
    image = site.pods("gateway")[0]["spec"]["containers"][0]["image"]
    container = {
        "name": "stranger",
        "image": image,
        "command": ["python", "-c", "import time; time.sleep(3600)"],
        "securityContext": RESTRICTED,
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        # It is never ready: no Service sends it calls, whatever its labels are.
        "readinessProbe": {"exec": {"command": ["python", "-c", "raise SystemExit(1)"]}, "periodSeconds": 3600},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stranger"},
        "spec": {
            "containers": [container],
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
        },
    }
    site.kube.put([pod])
    try:
        site.kube("wait", "pod/stranger", "--for=jsonpath={.status.phase}=Running", "--timeout=60s")
        yield Stranger(site.kube, "stranger")
    finally:
        site.kube("delete", "pod", "stranger", "--force", "--grace-period=0")


def test_the_network_keeps_a_foreign_pod_away(stranger: Stranger) -> None:
    assert METHODS.keys() == {callee for callees in PEERS.values() for callee in callees}
    assert until(lambda: not any(stranger.reaches(service) for service in METHODS), seconds=20)


def test_a_foreign_pod_that_is_labelled_like_the_gateway_gets_no_further_with_forged_headers(
    site: Site, stranger: Stranger, tmp_path: Path
) -> None:
    labels = site.pods("gateway")[0]["metadata"]["labels"]
    ours = [f"{name}={value}" for name, value in labels.items() if name.startswith("app.kubernetes.io/")]
    site.kube("label", "pod", "stranger", *ours)
    assert until(lambda: all(stranger.reaches(service) for service in METHODS), seconds=60)
    authority = site.run_in("gateway", AUTHORITY)

    refused = dict.fromkeys(METHODS, "UNAUTHENTICATED")
    assert stranger.call(authority, {service: [] for service in METHODS}) == refused
    assert stranger.call(authority, dict.fromkeys(METHODS, OWNER)) == refused
    forged = {service: [*OWNER, token] for service, token in _tokens(tmp_path).items()}
    assert stranger.call(authority, forged) == refused


def _tokens(folder: Path) -> dict[str, tuple[str, str]]:
    """Tokens of a gateway by whose word the owner calls, under an authority that is not the platform's."""
    now = datetime.now(UTC)
    authority = new_authority(now)
    certificate = issue(authority, "gateway", ["gateway"], now)
    contents = {"tls.crt": certificate.certificate, "tls.key": certificate.key, "ca.crt": authority.certificate}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    identity = Identity(CredentialFiles(*(folder / name for name in contents)))
    return {service: identity.metadata(service, "platform/owner", "owner") for service in METHODS}
