"""Reads the distribution of load over replicas: the calls of each replica from its metrics, and the models of each Triton."""

import http.client
import json
import urllib.request
from contextlib import closing

from prometheus_client.parser import text_string_to_metric_families

from vesta_local import services
from vesta_local.home import Home

_TIMEOUT_SECONDS = 10


def calls_per_replica(home: Home) -> dict[str, list[int]]:
    """Returns the number of RPCs that each replica has served since its start, by service, in the order of the replicas."""
    return {name: [_call_count(home, name, replica) for replica in home.replicas_of(name)] for name in services.NAMES}


def _call_count(home: Home, name: str, replica: str) -> int:
    url = f"http://{home.address(f'{replica}_metrics')}/metrics"
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
        text = response.read().decode()
    metric = f"vesta_{name}_rpc_seconds_count"
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return int(sum(sample.value for sample in samples if sample.name == metric))


def models_per_triton(home: Home) -> list[set[str]]:
    """Returns the models that each Triton has loaded."""
    return [_loaded_models(home.address(f"{replica}_http")) for replica in home.replicas_of("inference")]


def _loaded_models(address: str) -> set[str]:
    with closing(http.client.HTTPConnection(address, timeout=_TIMEOUT_SECONDS)) as connection:
        connection.request("POST", "/v2/repository/index", body=b"{}")
        return {model["name"] for model in json.load(connection.getresponse()) if model.get("state") == "READY"}
