"""Two pods of each service and two Tritons: each gets its share of the calls and every model; an autoscaler goes by what is measured."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
from kube import until
from node_figures import Figures
from predictions import ended_loop
from site_on_node import Site
from small_loop import SmallLoop
from vesta_common.rpc.server import CONNECTION_AGE_MAX

pytestmark = pytest.mark.timeout(900)

SHARE_MIN = 0.4
ROUNDS = 60  # of one call of each kind
SERVICES = ("gateway", "datasets", "annotation", "training", "serving", "conductor", "connection")
CALLS = """
import sys, urllib.request
text = urllib.request.urlopen("http://127.0.0.1:9090/metrics", timeout=10).read().decode()
print(sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(sys.argv[1])))
"""
"""What a pod runs to tell how many calls it has answered."""
MODELS = """
import json, urllib.request
asked = urllib.request.Request("http://127.0.0.1:8000/v2/repository/index", b"{}", method="POST")
print(json.dumps([one["name"] for one in json.load(urllib.request.urlopen(asked, timeout=10)) if one.get("state") == "READY"]))
"""


@pytest.fixture(scope="module")
def pair(site: Site) -> Iterator[Site]:
    """The site with two pods of each, and an autoscaler that any pod of pipelining is too busy for."""
    autoscaling = {"enabled": "true", "minReplicas": 2, "maxReplicas": 3, "cpuPercent": 2}
    busy = [f"services.pipelining.autoscaling.{name}={value}" for name, value in autoscaling.items()]
    site.upgrade(f"--set={','.join(['defaults.replicas=2', 'inference.replicas=2', *busy])}")
    yield site
    site.upgrade()
    site.upgrade("--force-conflicts")  # the autoscaler may have set the number of pods before it was deleted


@pytest.fixture(scope="module")
def small(pair: Site, tmp_path_factory: pytest.TempPathFactory) -> SmallLoop:
    """A loop that has spent its budget on two pods of each."""
    return ended_loop(pair, tmp_path_factory.mktemp("samples"), seconds=500)


def test_the_second_pod_gets_its_share_of_the_calls(pair: Site, small: SmallLoop, figures: Figures) -> None:
    _await_younger_connections(pair)
    before = {name: _calls(pair, name) for name in SERVICES}
    _call_everybody(pair, small)
    shares = {name: _least_share(before[name], _calls(pair, name)) for name in SERVICES}

    figures.at_least("least share of calls that a second pod gets, of any service", min(shares.values()), SHARE_MIN, "")
    assert {name: share for name, share in shares.items() if share < SHARE_MIN} == {}


def test_every_triton_has_every_model(pair: Site, small: SmallLoop, figures: Figures) -> None:
    first, second = ({*json.loads(_run(pair, pod, MODELS, "python3"))} for pod in _names(pair, "inference"))
    share = len(second) / len(first | second)
    figures.at_least("share of the models that the second Triton has", share, SHARE_MIN, "")
    assert first == second != set()


def test_the_autoscaler_adds_a_pod_where_the_processor_is_busy(pair: Site) -> None:
    assert until(lambda: len(pair.pods("pipelining")) == 3, seconds=120)


def _await_younger_connections(site: Site) -> None:
    """Waits until no connection is older than the newest pod, of which older ones do not know."""
    newest = max(datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) for pod in site.serving())
    known = newest + 1.2 * CONNECTION_AGE_MAX  # gRPC adds up to a tenth
    time.sleep(max(0.0, (known - datetime.now(UTC)).total_seconds()))


def _call_everybody(site: Site, small: SmallLoop) -> None:
    """A connection a call, as many clients have."""
    project = small.project
    paths = [
        small.loop,
        f"{project}/datasets",
        f"{project}/models",
        f"{project}/deployments",
        f"{project}/campaigns",
        f"{project}/sources",
    ]
    headers, png = {"authorization": f"Bearer {site.owner_key}"}, {"content-type": "image/png"}
    deployment, picture = small.status().deployment, small.unused[0].read_bytes()
    one_each = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=f"http://{site.rest}/v1/", headers=headers, timeout=30, limits=one_each) as client:
        for _ in range(ROUNDS):
            for path in paths:
                client.get(path).raise_for_status()
            client.post(f"{deployment}:predict", content=picture, headers=png).raise_for_status()


def _calls(site: Site, name: str) -> dict[str, float]:
    """How many calls each pod of a service has answered."""
    return {
        pod: float(_run(site, pod, CALLS, "python", f"vesta_{name}_rpc_seconds_count"))
        for pod in _names(site, name)[:2]
    }


def _least_share(before: dict[str, float], after: dict[str, float]) -> float:
    more = [after[pod] - before.get(pod, 0) for pod in after]
    assert sum(more) >= ROUNDS, more
    return min(more) / sum(more)


def _names(site: Site, component: str) -> list[str]:
    return sorted(pod["metadata"]["name"] for pod in site.pods(component))


def _run(site: Site, pod: str, script: str, python: str, *arguments: str) -> str:
    return site.kube("exec", pod, "--", python, "-c", script, *arguments)
