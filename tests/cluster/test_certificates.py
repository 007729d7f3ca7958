"""`vesta-admin certificates` against a real API server, with the rights that the chart gives it and no others."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import chart
import pytest
import yaml
from kube import Kube, Refused
from kubernetes import client
from vesta_admin.certificates import AUTHORITY, Secrets, renew, secret_of
from vesta_common.identity import PEERS, CredentialFiles, Identity

KINDS = {"Role", "RoleBinding", "ServiceAccount"}
LABELS = {"app.kubernetes.io/component": "identity"}


@pytest.fixture(scope="module")
def own(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kube, Kube]]:
    """A namespace, and the account that renews certificates in it."""
    with kube.own_namespace() as namespace:
        objects = [
            it for it in chart.manifests("small") if it["kind"] in KINDS and it["metadata"]["name"] == "certificates"
        ]
        assert {it["kind"] for it in objects} == KINDS
        text = yaml.safe_dump_all(objects).replace("namespace: vesta\n", f"namespace: {namespace.namespace}\n")
        namespace.put(yaml.safe_load_all(text))
        yield namespace, namespace.as_account("certificates", tmp_path_factory.mktemp("account"))


@pytest.fixture
def secrets(own: tuple[Kube, Kube], tmp_path: Path) -> Secrets:
    namespace, account = own
    token, server = (option.partition("=")[2] for option in account.options)
    (cluster,) = yaml.safe_load(account.kubeconfig.read_text())["clusters"]
    authorities = tmp_path / "cluster-ca.crt"
    authorities.write_bytes(base64.b64decode(cluster["cluster"]["certificate-authority-data"]))
    settings = client.Configuration(server, {"authorization": f"Bearer {token}"})
    settings.ssl_ca_cert = str(authorities)
    return Secrets(client.CoreV1Api(client.ApiClient(settings)), namespace.namespace, LABELS)


def identity(secrets: Secrets, service: str, folder: Path) -> Identity:
    """The identity of a service, from its Secret as a pod has it mounted."""
    for key, value in secrets.find(secret_of(service)).items():
        (folder / f"{service}-{key}").write_bytes(value)
    return Identity(CredentialFiles(*(folder / f"{service}-{key}" for key in ("tls.crt", "tls.key", "ca.crt"))))


def test_certificates_are_made_once_renewed_in_time_and_know_each_other(secrets: Secrets, tmp_path: Path) -> None:
    now, services = datetime.now(UTC) - timedelta(days=31), list(PEERS)

    assert len(renew(secrets, services, "vesta", now)) == 1 + len(services)
    assert renew(secrets, services, "vesta", now + timedelta(days=29)) == []
    before = secrets.find(secret_of("datasets"))
    assert len(renew(secrets, services, "vesta", now + timedelta(days=31))) == len(services)

    after = secrets.find(secret_of("datasets"))
    assert before["tls.crt"] != after["tls.crt"]
    assert before["ca.crt"] == after["ca.crt"]
    metadata = dict([identity(secrets, "gateway", tmp_path).metadata("datasets")])
    assert identity(secrets, "datasets", tmp_path).verify(metadata, "datasets").service == "gateway"


def test_a_new_authority_brings_every_service_a_new_certificate(own: tuple[Kube, Kube], secrets: Secrets) -> None:
    namespace, _ = own
    now, services = datetime.now(UTC), ["datasets", "gateway"]
    renew(secrets, services, "vesta", now)  # what the test before left, or all of it
    first = secrets.find(secret_of("datasets"))["ca.crt"]

    namespace("delete", "secret", AUTHORITY)

    assert len(renew(secrets, services, "vesta", now)) == 3
    assert secrets.find(secret_of("datasets"))["ca.crt"] == secrets.find(secret_of("gateway"))["ca.crt"] != first


@pytest.mark.parametrize(
    "forbidden",
    [("get", "secret", "vesta-secrets"), ("get", "secrets"), ("delete", "secret", AUTHORITY), ("get", "pods")],
    ids=" ".join,
)
def test_what_certificates_do_not_need_is_forbidden(forbidden: tuple[str, ...], own: tuple[Kube, Kube]) -> None:
    with pytest.raises(Refused, match=r"(?i)forbidden"):
        own[1](*forbidden)
