"""What holds for every pod, policy and value of the chart."""

from importlib import import_module
from typing import Any

import chart
import pytest
import yaml
from vesta_common.rpc.health import READY
from vesta_common.rpc.server import LIVE
from vesta_common.settings import environment_name
from vesta_local.services import SERVICES
from vesta_training.executors.job_manifest import Pods, job_manifest

CATALOGUE = chart.FOLDER.parents[1] / "protos" / "topics"
FIXED = yaml.safe_load((chart.CHART / "files" / "services.yaml").read_text())
MEMORY_UNITS = {"Mi": 2**20, "Gi": 2**30}
NODE_BYTES = 16 * 2**30
_KINDS = {"Deployment", "StatefulSet"}


@pytest.fixture(scope="module", params=chart.PROFILES)
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Everything that a profile installs, and the hooks of its upgrade."""
    installed = chart.manifests(request.param)
    there = {(it["kind"], it["metadata"]["name"]) for it in installed}
    upgraded = chart.manifests(request.param, options=["--is-upgrade"])
    return installed + [it for it in upgraded if (it["kind"], it["metadata"]["name"]) not in there]


def test_every_pod_meets_the_restricted_standard(objects: list[dict[str, Any]]) -> None:
    for name, spec in chart.pod_specs(objects):
        security = spec["securityContext"]
        assert security["runAsNonRoot"], name
        assert security["runAsUser"] == 10001, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert not any("hostPath" in volume for volume in spec["volumes"]), name
        for container in chart.containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name


def test_no_pod_gets_service_links_and_few_get_a_token(objects: list[dict[str, Any]]) -> None:
    with_token = set()
    for name, spec in chart.pod_specs(objects):
        assert spec["enableServiceLinks"] is False, name
        if spec["automountServiceAccountToken"]:
            with_token.add(name)
    assert with_token <= {"Job/migrate-post", "Deployment/training", "Job/certificates", "CronJob/certificates"}


def test_every_pod_can_write_to_a_bounded_temporary_folder(objects: list[dict[str, Any]]) -> None:
    for name, spec in chart.pod_specs(objects):
        empty = {volume["name"]: volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume}
        assert all("sizeLimit" in volume for volume in empty.values()), name
        for container in chart.containers(spec):
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], name
            assert {mount["name"] for mount in container["volumeMounts"]} <= {
                *(volume["name"] for volume in spec["volumes"]),
                "data",
            }, name


def test_every_container_states_what_it_requests_and_its_memory_limit(objects: list[dict[str, Any]]) -> None:
    for name, spec in chart.pod_specs(objects):
        for container in chart.containers(spec):
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), name
            assert "memory" in resources["limits"], name


def test_describing_a_pod_shows_the_last_words_of_a_container_that_failed(objects: list[dict[str, Any]]) -> None:
    for name, spec in chart.pod_specs(objects):
        for container in chart.containers(spec):
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError", name


def test_everything_that_runs_on_is_probed(objects: list[dict[str, Any]]) -> None:
    for it in objects:
        if it["kind"] in _KINDS:
            for container in it["spec"]["template"]["spec"]["containers"]:
                probes = {"startupProbe", "readinessProbe", "livenessProbe"}
                assert probes <= container.keys(), it["metadata"]["name"]


def test_an_engine_that_is_away_makes_a_service_unready_and_neither_restarts_nor_hides_it(
    objects: list[dict[str, Any]],
) -> None:
    for name in FIXED:
        (pod,) = (it for it in objects if (it["kind"], it["metadata"]["name"]) == ("Deployment", name))
        (container,) = pod["spec"]["template"]["spec"]["containers"]
        assert container["readinessProbe"]["grpc"] == {"port": 9001, "service": READY}  # its message says what helps
        given = {variable["name"]: variable["value"] for variable in container["env"]}
        assert given[f"VESTA_{name.upper()}_HEALTH_ADDRESS"] == "0.0.0.0:9001"  # Kubernetes' probes know no TLS
        if name == "gateway":
            assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
            continue
        asked = {probe: container[f"{probe}Probe"]["grpc"]["service"] for probe in ("startup", "liveness")}
        assert asked == {"startup": LIVE, "liveness": LIVE}
        assert {container[f"{probe}Probe"]["grpc"]["port"] for probe in asked} == {9001}
        (service,) = (it for it in objects if (it["kind"], it["metadata"]["name"]) == ("Service", name))
        assert service["spec"]["publishNotReadyAddresses"] is True


def test_no_password_is_in_a_variable(objects: list[dict[str, Any]]) -> None:
    data = {value for it in objects if it["kind"] == "Secret" for value in it.get("data", {}).values()}
    text = yaml.safe_dump([it for it in objects if it["kind"] != "Secret"])
    assert not any(value in text for value in data)


def test_every_selector_meets_pods_of_its_own(objects: list[dict[str, Any]]) -> None:
    labels = [it["spec"]["template"]["metadata"]["labels"] for it in objects if it["kind"] in _KINDS]
    for it in objects:
        if it["kind"] == "Service":
            if it["metadata"]["name"] == "trainers":  # the pods of Jobs that training makes
                continue
            assert any(it["spec"]["selector"].items() <= pod.items() for pod in labels), it["metadata"]["name"]


def test_the_chart_calls_whom_the_platform_calls() -> None:
    assert {name: set(it["peers"]) for name, it in FIXED.items()} == {it.name: set(it.peers) for it in SERVICES}


def test_the_chart_scales_by_the_consumer_groups_of_the_catalogue() -> None:
    found: dict[str, dict[str, set[str]]] = {}
    for path in CATALOGUE.glob("*.yaml"):
        topic = yaml.safe_load(path.read_text())
        for consumer in topic.get("consumers") or ():
            if "group" in consumer:
                groups = found.setdefault(consumer["service"], {})
                groups.setdefault(consumer["group"], set()).add(topic["topic"])
    groups = {
        name: {group: set(topics) for group, topics in it["groups"].items()}
        for name, it in FIXED.items()
        if "groups" in it
    }
    assert groups == found


def allowed_calls(policies: dict[str, dict[str, Any]], direction: str) -> set[tuple[str, str]]:
    """Pairs of a caller and whom it may call on gRPC's port, by the policies of one side."""
    found = set()
    side = "from" if direction == "ingress" else "to"
    for name, policy in policies.items():
        for rule in policy["spec"].get(direction) or ():
            if {"port": 9000, "protocol": "TCP"} in rule.get("ports", ()):
                for peer in rule.get(side, ()):
                    for other in peer["podSelector"]["matchExpressions"][0]["values"]:
                        found.add((other, name) if direction == "ingress" else (name, other))
    return found


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_policies_allow_the_calls_of_the_platform_and_no_other(direction: str) -> None:
    policies = {it["metadata"]["name"]: it for it in chart.manifests("small") if it["kind"] == "NetworkPolicy"}
    assert policies["deny-all"]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    wanted = {(service.name, peer) for service in SERVICES for peer in service.peers}
    assert allowed_calls(policies, direction) - {("test", "gateway")} == wanted


def test_the_small_profile_fits_a_node_of_16_gb() -> None:
    total = 0
    for it in chart.manifests("small"):
        if it["kind"] in _KINDS:
            for container in it["spec"]["template"]["spec"]["containers"]:
                limit = container["resources"]["limits"]["memory"]
                total += int(limit[:-2]) * MEMORY_UNITS[limit[-2:]]
    assert total < NODE_BYTES


def test_an_airgapped_site_pulls_from_its_own_registry_alone() -> None:
    assert all(image.startswith("registry.internal:5000/") for image in chart.images("airgapped"))


def test_the_gpu_profile_asks_for_the_resource_that_it_is_told() -> None:
    found = chart.manifests("gpu", options=["--set", "inference.gpu.resource=nvidia.com/mig-1g.10gb"])
    (triton,) = (it for it in found if it["kind"] == "Deployment" and it["metadata"]["name"] == "inference")
    spec = triton["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == 1
    assert spec["tolerations"]


@pytest.mark.parametrize("cert_manager", ["false", "true"])
def test_every_service_has_an_identity_of_its_own_and_only_who_issues_them_reads_the_authority(
    cert_manager: str,
) -> None:
    found = chart.manifests("small", options=["--set", f"identity.certManager={cert_manager}"])
    for it in found:
        if it["kind"] == "Deployment" and it["metadata"]["name"] in FIXED:
            mounted = {
                volume["secret"]["secretName"]
                for volume in it["spec"]["template"]["spec"]["volumes"]
                if "identity" in volume.get("secret", {}).get("secretName", "")
            }
            assert mounted == {f"identity-{it['metadata']['name']}"}
            (container,) = it["spec"]["template"]["spec"]["containers"]
            tls = {variable["value"] for variable in container["env"] if variable["name"].endswith("_PEER_TLS")}
            assert tls == {"true"}
    made = {it["spec"]["secretName"] for it in found if it["kind"] == "Certificate"}
    permitted = {
        name
        for it in found
        if it["kind"] == "Role" and it["metadata"]["name"] == "certificates"
        for rule in it["rules"]
        for name in rule.get("resourceNames", ())
    }
    assert (made or permitted) == {"identity-authority", *(f"identity-{name}" for name in FIXED)}
    assert bool(made) is (cert_manager == "true")


OF_A_SITE: dict[str, Any] = {
    "commonLabels": {"team": "vision"},
    "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ours"}}],
    "defaults": {
        "podLabels": {"zone": "a"},
        "podAnnotations": {"note": "x"},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "ours", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "runtimeClassName": "gvisor",
        "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["db.plant.example"]}],
        "revisionHistoryLimit": 2,
        "serviceAccountAnnotations": {"role": "reader"},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "extraVolumes": [{"name": "trust", "configMap": {"name": "trust"}}],
        "extraVolumeMounts": [{"name": "trust", "mountPath": "/etc/ssl/certs"}],
    },
    "services": {"gateway": {"nodeSelector": {"disk": "none"}, "podLabels": {"zone": "b"}}},
    "inference": {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
}


@pytest.fixture(scope="module")
def of_a_site(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the values of a site with rules of its own make."""
    path = tmp_path_factory.mktemp("site") / "values.yaml"
    path.write_text(yaml.safe_dump(OF_A_SITE))
    options = ["--values", str(path)]
    return chart.manifests("small", options=options) + chart.manifests("small", options=[*options, "--is-upgrade"])


def test_every_pod_gets_what_a_site_demands_of_all_pods(of_a_site: list[dict[str, Any]]) -> None:
    demanded = {
        name: OF_A_SITE["defaults"][name]
        for name in ("affinity", "priorityClassName", "runtimeClassName", "hostAliases")
    }
    for name, spec in chart.pod_specs(of_a_site):
        assert demanded.items() <= spec.items(), name
        assert spec["nodeSelector"] == {"disk": "none" if name == "Deployment/gateway" else "fast"}, name
        assert [it["key"] for it in spec["tolerations"]] == ["gpu" if name == "Deployment/inference" else "ours"], name
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & spec["securityContext"].keys(), name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
    for it in of_a_site:
        name = it["metadata"]["name"]
        assert name == "ours" or it["metadata"]["labels"]["team"] == "vision", name
        template = it.get("spec", {}).get("jobTemplate", it).get("spec", {}).get("template")
        if template:
            assert template["metadata"]["labels"]["team"] == "vision", name
            assert template["metadata"]["labels"]["zone"] == ("b" if name == "gateway" else "a"), name
            assert template["metadata"]["annotations"]["note"] == "x", name
            assert "team" not in str(it["spec"].get("selector")), name


def test_every_service_gets_variables_volumes_and_an_annotated_account_of_a_site(
    of_a_site: list[dict[str, Any]],
) -> None:
    made = {(it["kind"], it["metadata"]["name"]): it for it in of_a_site}
    assert ("ConfigMap", "ours") in made
    given = OF_A_SITE["defaults"]
    for name in FIXED:
        deployment = made["Deployment", name]["spec"]
        (container,) = deployment["template"]["spec"]["containers"]
        assert given["extraEnv"][0] in container["env"]
        assert given["extraVolumeMounts"][0] in container["volumeMounts"]
        assert given["extraVolumes"][0] in deployment["template"]["spec"]["volumes"]
        assert deployment["revisionHistoryLimit"] == 2
        assert made["ServiceAccount", name]["metadata"]["annotations"] == {"role": "reader"}


def test_migrations_run_before_and_after_an_upgrade() -> None:
    jobs = {it["metadata"]["name"]: it for it in chart.manifests("ha", options=["--is-upgrade"]) if it["kind"] == "Job"}
    events = {name: it["metadata"]["annotations"]["helm.sh/hook"] for name, it in jobs.items()}
    before_both = "pre-install,pre-upgrade"
    assert events == {"certificates": before_both, "setup": before_both, "migrate-post": "post-upgrade"}
    before = jobs["setup"]["spec"]["template"]["spec"]
    after = jobs["migrate-post"]["spec"]["template"]["spec"]
    assert [it["args"] for it in chart.containers(before)] == [["setup"], ["migrate", "pre"]]
    assert after["containers"][0]["args"] == ["migrate", "post"]


WRONG_VALUES = [
    ("services.datasets.replicas=two", "/services/datasets/replicas"),
    ("services.datasets.replicas=0", "/services/datasets/replicas"),
    ("services.dataset.replicas=2", "dataset"),
    ("image.registy=x", "registy"),
    ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
    ("identity.certManager=maybe", "/identity/certManager"),
    ("log.level=loud", "/log/level"),
    ("postgres.storage.size=10GB", "/postgres/storage/size"),
    ("postgres.external.url=mysql://x", "/postgres/external/url"),
    ("postgres.external.url=postgresql://vesta:secret@db/vesta", "/postgres/external/url"),
    ("postgres.bundled=false", "postgres.external.url"),
    ("s3.bundled=false", "s3.external.endpoint"),
    ("s3.bucket=Vesta", "/s3/bucket"),
    ("kafka.bundled=false", "kafka.external.bootstrap"),
    ("kafka.external.securityProtocol=TLS", "/kafka/external/securityProtocol"),
    ("kafka.producers.nodePort=80", "/kafka/producers/nodePort"),
    ("kafka.producers.enabled=true", "kafka.producers.host"),
    ("inference.gpu.resource=gpu", "/inference/gpu/resource"),
    ("gateway.service.type=Foo", "/gateway/service/type"),
    ("gateway.ingress.enabled=true", "gateway.ingress.host"),
    ("networkPolicy.apiServer.cidrs={here}", "/networkPolicy/apiServer/cidrs"),
    ("services.serving.resources.limits.memory=1 GB", "/services/serving/resources/limits/memory"),
]


@pytest.mark.parametrize(("value", "named"), WRONG_VALUES, ids=[value for value, _ in WRONG_VALUES])
def test_a_wrong_value_is_refused_by_its_name(value: str, named: str) -> None:
    with pytest.raises(chart.ChartError, match=named.replace(".", r"\.")):
        chart.rendered(options=["--set", value])


def test_a_misspelt_field_of_a_manifest_is_found() -> None:
    text = chart.rendered("small").replace("periodSeconds:", "periodSecond:")
    assert any("periodSecond" in fault for fault in chart.schema_faults(text, chart.KUBERNETES_VERSIONS[0]))


def test_every_variable_of_a_service_is_one_of_its_settings() -> None:
    for it in chart.manifests("small", options=["--set", "training.jobs.enabled=false"]):
        name = it["metadata"]["name"]
        if it["kind"] == "Deployment" and name in FIXED:
            kind = import_module(f"vesta_{name}.settings").Settings
            known = {environment_name(kind, field) for field in kind.model_fields}
            (container,) = it["spec"]["template"]["spec"]["containers"]
            given = {variable["name"] for variable in container["env"]}
            assert {
                variable for variable in given if not {variable, variable.removesuffix("_FILE")} & known
            } == set(), name
            required = {environment_name(kind, field) for field, of in kind.model_fields.items() if of.is_required()}
            assert required <= given | {variable.removesuffix("_FILE") for variable in given}, name


@pytest.fixture(scope="module")
def spread() -> tuple[dict[tuple[str, str], dict[str, Any]], dict[str, Any]]:
    """What is installed for runs on two pods, by kind and name, and the Job of such a run."""
    installed = chart.manifests("small", options=["--set", "training.jobs.nodes=2"])
    objects = {(it["kind"], it["metadata"]["name"]): it for it in installed}
    (container,) = objects["Deployment", "training"]["spec"]["template"]["spec"]["containers"]
    jobs = "VESTA_TRAINING_JOBS_"
    told = {one["name"].removeprefix(jobs): one["value"] for one in container["env"] if one["name"].startswith(jobs)}
    pods = Pods(
        image=told["IMAGE"],
        service=told["SERVICE"],
        nodes=int(told["NODES"]),
        overlay=yaml.safe_load(told["POD_TEMPLATE"]),
    )
    return objects, job_manifest("train-r", "projects/p/trainingRuns/r", pods=pods, finetunes=True, deadline_seconds=60)


def test_the_pods_of_a_run_find_each_other_by_the_name_of_a_service(spread: Any) -> None:
    objects, job = spread
    pod = job["spec"]["template"]
    service = objects["Service", pod["spec"]["subdomain"]]["spec"]
    assert job["spec"]["parallelism"] == 2
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    address = f"train-r-0.{objects['Service', 'trainers']['metadata']['name']}"
    assert f"--master-addr={address}" in pod["spec"]["containers"][0]["command"]


def test_pods_of_runs_talk_to_each_other_and_to_the_object_store_alone(spread: Any) -> None:
    objects, job = spread
    labels = job["spec"]["template"]["metadata"]["labels"]
    policies = [it["spec"] for (kind, _), it in objects.items() if kind == "NetworkPolicy"]
    mine = [it for it in policies if it["podSelector"]["matchLabels"].items() <= labels.items()]
    assert len(mine) == 2  # what holds for all pods of the release, and what holds for these
    asked = [rule for it in mine for rule in it.get("egress", ())]
    (answered,) = [rule for it in mine for rule in it.get("ingress", ())]
    ports = [{one["port"] for one in rule.get("ports", ())} for rule in asked]
    assert sorted(ports, key=len) == [set(), {53}, {8333}]  # any port among them, names, the object store
    for rule in (answered, asked[ports.index(set())]):
        (peer,) = rule.get("from", []) or rule["to"]
        assert peer["podSelector"]["matchExpressions"][0]["values"] == ["trainer"]


def test_a_new_tag_restarts_every_service_but_no_engine() -> None:
    def pods(*options: str) -> dict[str, Any]:
        found = chart.manifests("small", options=["--set", "existingSecret=mine", *options])
        return {it["metadata"]["name"]: it["spec"]["template"] for it in found if it["kind"] in _KINDS}

    before, after = pods("--set-string", "image.tag=1"), pods("--set-string", "image.tag=2")

    assert {name for name in before if before[name] == after[name]} == {"postgres", "objects", "kafka"}


def test_several_tritons_are_found_by_one_name_and_end_one_at_a_time() -> None:
    found = {(it["kind"], it["metadata"]["name"]): it["spec"] for it in chart.manifests("ha") if "spec" in it}
    assert found["Deployment", "inference"]["replicas"] == 2
    assert (
        found["Service", "inference"]["clusterIP"] == "None"
    )  # serving loads every model into each address that it resolves
    assert found["PodDisruptionBudget", "inference"]["maxUnavailable"] == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"maxUnavailable": 0, "maxSurge": 1}),
        (["--set", "inference.gpu.enabled=true"], {"maxUnavailable": 1, "maxSurge": 0}),
    ],
)
def test_a_triton_ends_after_its_successor_has_the_models_unless_that_needs_another_gpu(
    options: list[str], expected: dict[str, int]
) -> None:
    found = {
        (it["kind"], it["metadata"]["name"]): it["spec"]
        for it in chart.manifests("small", options=options)
        if "spec" in it
    }
    assert found["Deployment", "inference"]["strategy"] == {"type": "RollingUpdate", "rollingUpdate": expected}
    assert found["Deployment", "inference"]["minReadySeconds"] >= 30


def test_the_gateway_knows_its_clients_addresses() -> None:
    (service,) = (
        it for it in chart.manifests("small") if (it["kind"], it["metadata"]["name"]) == ("Service", "gateway")
    )
    assert service["spec"]["externalTrafficPolicy"] == "Local"

    behind = chart.manifests("ha", options=["--set", "gateway.trustedProxies={10.0.0.0/8,192.0.2.1}"])
    (gateway,) = (it for it in behind if (it["kind"], it["metadata"]["name"]) == ("Deployment", "gateway"))
    (container,) = gateway["spec"]["template"]["spec"]["containers"]
    assert {"name": "VESTA_GATEWAY_TRUSTED_PROXIES", "value": "10.0.0.0/8,192.0.2.1"} in container["env"]
