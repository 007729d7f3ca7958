"""What the chart makes for KEDA and for the Gateway API."""

import chart
import pytest
import yaml

FIXED = yaml.safe_load((chart.CHART / "files" / "services.yaml").read_text())
ROUTE = "gateway.route.enabled=true,gateway.route.parentRefs[0].name=edge,gateway.route.hostnames={vesta.example.com}"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ("services.pipelining.autoscaling.lag=0", "HorizontalPodAutoscaler"),
        ("services.pipelining.autoscaling.lag=500", "ScaledObject"),
        ("kafka.bundled=true", "HorizontalPodAutoscaler"),  # KEDA cannot call it from its own namespace
    ],
)
def test_keda_takes_the_place_of_an_autoscaler_where_it_is_there_and_a_lag_is_set(values: str, kind: str) -> None:
    objects = chart.manifests("ha", options=["--api-versions", "keda.sh/v1alpha1", "--set", values])

    scalers = [it for it in objects if it["kind"] in {"ScaledObject", "HorizontalPodAutoscaler"}]
    (own,) = (it for it in scalers if it["metadata"]["name"] == "pipelining")
    assert own["kind"] == kind
    # an upgrade from one to the other creates the ScaledObject while the HorizontalPodAutoscaler still exists
    (checked,) = {
        it["metadata"]["annotations"]["validations.keda.sh/hpa-ownership"]
        for it in scalers
        if it["kind"] == "HorizontalPodAutoscaler"
    }
    assert checked == "false"


def test_keda_counts_the_events_of_each_group_from_where_its_service_starts_to_read() -> None:
    objects = chart.manifests("ha", options=["--api-versions", "keda.sh/v1alpha1"])
    triggers = [
        trigger["metadata"]
        for it in objects
        if it["kind"] == "ScaledObject"
        for trigger in it["spec"]["triggers"]
        if trigger["type"] == "kafka"
    ]

    counted = {(trigger["consumerGroup"], trigger["topic"]) for trigger in triggers}
    scaled = ("datasets", "serving", "pipelining")
    assert counted == {(g, t) for name in scaled for g, topics in FIXED[name]["groups"].items() for t in topics}
    assert {trigger["offsetResetPolicy"] for trigger in triggers} == {"earliest"}


@pytest.mark.parametrize(
    ("grpc", "routes"),
    [
        ("", {"HTTPRoute": (8080, "", "vesta.example.com")}),
        (
            "hostnames={grpc.example.com}",
            {"HTTPRoute": (8080, "", "vesta.example.com"), "GRPCRoute": (9000, "", "grpc.example.com")},
        ),
        (
            "parentRefs[0].name=edge,gateway.route.grpc.parentRefs[0].sectionName=grpc",
            {"HTTPRoute": (8080, "", "vesta.example.com"), "GRPCRoute": (9000, "grpc", "")},
        ),
    ],
)
def test_routes_of_the_gateway_api_lead_to_both_doors(grpc: str, routes: dict[str, tuple[int, str, str]]) -> None:
    values = f"{ROUTE},gateway.route.grpc.{grpc}" if grpc else ROUTE

    found = {}
    for it in chart.manifests("small", options=["--set", values]):
        if it["kind"].endswith("Route"):
            (parent,), (rule,) = it["spec"]["parentRefs"], it["spec"]["rules"]
            (backend,), names = rule["backendRefs"], it["spec"].get("hostnames", [""])
            found[it["kind"]] = (backend["port"], parent.get("sectionName", ""), *names)
    assert found == routes


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ("gateway.route.enabled=true", r"gateway\.route\.parentRefs"),
        (f"{ROUTE},gateway.route.grpc.hostnames={{vesta.example.com}}", r"gateway\.route\.grpc\.hostnames"),
        (f"{ROUTE},gateway.route.grpc.parentRefs[0].name=edge", r"gateway\.route\.grpc\.hostnames"),
    ],
)
def test_routes_that_a_gateway_would_not_accept_are_refused(values: str, named: str) -> None:
    with pytest.raises(chart.ChartError, match=named):
        chart.rendered(options=["--set", values])
