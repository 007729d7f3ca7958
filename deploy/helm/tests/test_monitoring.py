"""What the chart gives a Prometheus operator, Grafana and a collector of traces, where the values say that they are there."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import chart
import pytest
import yaml

FILES = chart.CHART / "files"
FIXED = yaml.safe_load((FILES / "services.yaml").read_text())
ALERTS = yaml.safe_load((FILES / "alerts.yaml").read_text())
ALERT_TESTS = Path(__file__).parent / "alerts_test.yaml"
PAGE = chart.FOLDER.parents[1] / "docs" / "observability.md"
DASHBOARDS = {"loop", "serving", "ingest", "queues", "training", "cluster"}
ON = [
    part
    for value in (
        "monitoring.serviceMonitors.enabled=true",
        "monitoring.serviceMonitors.labels.release=kube-prometheus-stack",
        "monitoring.rules.enabled=true",
        "monitoring.dashboards.enabled=true",
        "traces.endpoint=http://collector.observability:4317",
        "traces.sampleRatio=0.1",
    )
    for part in ("--set", value)
]


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    return chart.manifests("small", options=ON)


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {it["metadata"]["name"]: it for it in objects if it["kind"] == kind}


def test_nothing_of_it_is_installed_unless_the_values_say_so() -> None:
    found = chart.manifests("small")
    assert not {"ServiceMonitor", "PrometheusRule"} & {it["kind"] for it in found}
    text = yaml.safe_dump(found)
    assert "OTLP" not in text
    assert "grafana_dashboard" not in text


def test_kubernetes_accepts_what_is_its_own_of_it() -> None:
    text = chart.rendered("small", options=ON)
    assert [fault for version in chart.KUBERNETES_VERSIONS for fault in chart.schema_faults(text, version)] == []


def test_every_service_and_triton_is_scraped_once_under_its_word(objects: list[dict[str, Any]]) -> None:
    monitors = of_kind(objects, "ServiceMonitor")
    assert monitors.keys() == FIXED.keys() | {"inference"}
    services = of_kind(objects, "Service")
    for name, monitor in monitors.items():
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        selected = [it for it in services.values() if wanted <= it["metadata"]["labels"].items()]
        (service,) = [it for it in selected if "metrics" in {port["name"] for port in it["spec"]["ports"]}]
        assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == name
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] == "metrics"
        assert endpoint["relabelings"] == [{"targetLabel": "platform", "replacement": "vesta"}]
        assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_metrics_are_not_on_the_service_of_customers(objects: list[dict[str, Any]]) -> None:
    assert {port["name"] for port in of_kind(objects, "Service")["gateway"]["spec"]["ports"]} == {"grpc", "rest"}


def test_the_rules_are_those_of_the_file(objects: list[dict[str, Any]]) -> None:
    assert of_kind(objects, "PrometheusRule")["vesta"]["spec"] == ALERTS


def test_the_dashboards_are_those_of_the_files(objects: list[dict[str, Any]]) -> None:
    maps = {
        name.removeprefix("dashboard-"): it
        for name, it in of_kind(objects, "ConfigMap").items()
        if it["metadata"]["labels"].get("grafana_dashboard") == "1"
    }
    assert maps.keys() == DASHBOARDS == {path.stem for path in (FILES / "dashboards").glob("*.json")}
    for name, it in maps.items():
        (text,) = it["data"].values()
        assert json.loads(text) == json.loads((FILES / "dashboards" / f"{name}.json").read_text())
        assert len(text) < 1_000_000


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_every_panel_says_what_it_shows_in_which_unit_and_asks_the_chosen_prometheus(name: str) -> None:
    dashboard = json.loads((FILES / "dashboards" / f"{name}.json").read_text())
    assert dashboard["uid"] == f"vesta-{name}"
    assert [it["name"] for it in dashboard["templating"]["list"]] == ["datasource", "namespace"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert "$namespace" in target["expr"], panel["title"]


def test_traces_go_where_the_values_say_and_policies_let_them(objects: list[dict[str, Any]]) -> None:
    deployments = of_kind(objects, "Deployment")
    for name in FIXED:
        (container,) = deployments[name]["spec"]["template"]["spec"]["containers"]
        given = {it["name"]: it["value"] for it in container["env"]}
        assert given[f"VESTA_{name.upper()}_OTLP_ENDPOINT"] == "http://collector.observability:4317"
        assert given[f"VESTA_{name.upper()}_OTLP_SAMPLE_RATIO"] == "0.1"
    policy = of_kind(objects, "NetworkPolicy")["traces"]["spec"]
    (expression,) = policy["podSelector"]["matchExpressions"]
    assert set(expression["values"]) == FIXED.keys()
    assert policy["egress"] == [
        {"to": [{"namespaceSelector": {}}], "ports": [{"port": 4317, "protocol": "TCP"}]},
    ]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("traces.endpoint=collector", "/traces/endpoint"),
        ("traces.sampleRatio=2", "/traces/sampleRatio"),
        ("monitoring.serviceMonitors.interval=often", "/monitoring/serviceMonitors/interval"),
        ("monitoring.dashboard.enabled=true", "dashboard"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(value: str, named: str) -> None:
    with pytest.raises(chart.ChartError, match=named):
        chart.rendered(options=["--set", value])


def rules() -> list[dict[str, Any]]:
    return [rule for group in ALERTS["groups"] for rule in group["rules"]]


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
        assert rule["annotations"].keys() == {"summary", "action"}, rule["alert"]


def test_every_alert_is_tested_and_explained() -> None:
    names = {rule["alert"] for rule in rules()}
    tests = yaml.safe_load(ALERT_TESTS.read_text())["tests"]
    fired = {
        sample["labels"].partition('alertname="')[2].partition('"')[0]
        for test in tests
        for asked in test["promql_expr_test"]
        for sample in asked["exp_samples"]
    }
    assert fired == names
    page = PAGE.read_text()
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_every_alert_fires_when_it_should_and_no_other_does() -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no `promtool` here (Debian's package prometheus): the alert rules were not run")
    command = [program, "test", "rules", str(ALERT_TESTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
