"""The objects that the chart makes for operators, against the CRDs of these operators in a real API server."""

from collections.abc import Iterator
from typing import Any

import chart
import pytest
import yaml
from kube import Kube, Refused
from vesta_cluster import operators
from vesta_cluster.errors import Unavailable

CRD = "customresourcedefinition.apiextensions.k8s.io"
USED = (
    *("certificates.cert-manager.io", "issuers.cert-manager.io"),
    *("grpcroutes.gateway.networking.k8s.io", "httproutes.gateway.networking.k8s.io"),
    *("prometheusrules.monitoring.coreos.com", "servicemonitors.monitoring.coreos.com"),
    *("scaledobjects.keda.sh", "triggerauthentications.keda.sh"),
)
KAFKA = "kafka.external.securityProtocol"
CASES: dict[str, tuple[set[str], list[str]]] = {
    "cert-manager": ({"Certificate", "Issuer"}, ["identity.certManager=true"]),
    "prometheus-operator": (
        {"ServiceMonitor", "PrometheusRule"},
        [
            "monitoring.serviceMonitors.enabled=true",
            "monitoring.serviceMonitors.labels.release=prometheus",
            "monitoring.rules.enabled=true",
        ],
    ),
    "gateway-api": (
        {"HTTPRoute", "GRPCRoute"},
        [
            "gateway.route.enabled=true",
            "gateway.route.parentRefs[0].name=edge",
            "gateway.route.hostnames={vesta.example.com}",
            "gateway.route.grpc.hostnames={grpc.example.com}",
        ],
    ),
    "keda-sasl": ({"ScaledObject", "TriggerAuthentication"}, []),
    "keda-mutual-tls": (
        {"ScaledObject", "TriggerAuthentication"},
        [f"{KAFKA}=SSL", "kafka.external.existingSecret=", "kafka.external.clientCertificateSecret=vesta-kafka-client"],
    ),
    "keda-plaintext": (
        {"ScaledObject", "TriggerAuthentication"},
        [f"{KAFKA}=PLAINTEXT", "kafka.external.existingSecret=", "kafka.external.caSecret="],
    ),
}
"""The kinds that values make, by operator. KEDA needs no value, because the profile `ha` sets a lag."""


@pytest.fixture(scope="module")
def with_operators(namespace: Kube) -> Iterator[Kube]:
    """A namespace of a server with the CRDs of the operators; those that were not there before are removed."""
    try:
        files = operators.crds()
    except Unavailable as error:
        pytest.skip(str(error))
    there = namespace("get", "customresourcedefinitions", "--output=name").split()
    added = {name: files[name] for name in USED if f"{CRD}/{name}" not in there}
    try:
        if added:
            namespace("apply", "--server-side", *(f"--filename={path}" for path in added.values()))
            namespace("wait", "--for=condition=Established", "--timeout=60s", *(f"{CRD}/{name}" for name in added))
        yield namespace
    finally:
        if added:
            namespace("delete", "--ignore-not-found", "--wait=false", *(f"{CRD}/{name}" for name in added))


@pytest.fixture(scope="module", params=CASES)
def objects(request: pytest.FixtureRequest, with_operators: Kube) -> list[dict[str, Any]]:
    """The objects of the kinds of a case, which helm makes for this server, whose kinds it looks up."""
    kinds, values = CASES[request.param]
    text = chart.helm(
        *("template", "vesta", str(chart.CHART), f"--namespace={with_operators.namespace}", "--dry-run=server"),
        *(f"--kubeconfig={with_operators.kubeconfig}", *chart.profile_options("ha")),
        *(part for value in values for part in ("--set", value)),
    )
    found = [it for it in yaml.load_all(text, yaml.CSafeLoader) if it and it["kind"] in kinds]
    assert {it["kind"] for it in found} == kinds
    return found


def test_the_objects_of_an_operator_are_accepted_strictly(objects: list[dict[str, Any]], with_operators: Kube) -> None:
    said = with_operators.try_out(objects)

    assert said.count("(server dry run)") == len(objects)


def test_misspelt_fields_in_the_objects_of_an_operator_are_refused(
    objects: list[dict[str, Any]], with_operators: Kube
) -> None:
    misspelt = [{**it, "spec": {**it["spec"], "nonesuch": 1}} for it in objects]

    with pytest.raises(Refused) as refused:
        with_operators.try_out(misspelt)

    assert str(refused.value).count('unknown field "spec.nonesuch"') == len(objects)
