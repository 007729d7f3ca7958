"""What dashboards and alerts ask Prometheus, held against what the services export, and asked of a real Prometheus where there is one."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families
from vesta.waiting import wait_until

FILES = Path(__file__).parents[2] / "deploy" / "helm" / "vesta" / "files"
NAMESPACE = "local"
EXTERNAL = ("kube_", "kubelet_", "container_", "nv_")
"""Of kube-state-metrics, of the kubelet, and of NVIDIA's Triton."""
TARGET_LABELS = frozenset({"platform", "namespace", "job", "instance", "pod"})
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)?\{([^}]*)\}")
_MATCHER = re.compile(r'([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"([^"]*)"')


@dataclass(frozen=True)
class Question:
    """A query of a panel or of an alert.

    Attributes:
        where: names it, `queues.json: Dead letters`.
    """

    where: str
    text: str
    is_alert: bool

    @property
    def is_external(self) -> bool:
        """Whether it needs series that no process of ours exports."""
        return any(name in self.text for name in EXTERNAL)


def questions() -> list[Question]:
    """Of every dashboard and every alert."""
    found = [
        Question(f"{path.name}: {panel['title']}", target["expr"].replace("$namespace", NAMESPACE), is_alert=False)
        for path in sorted((FILES / "dashboards").glob("*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    ]
    groups = yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"]
    return found + [
        Question(f"alert {rule['alert']}", rule["expr"], is_alert=True) for group in groups for rule in group["rules"]
    ]


def exported(pages: Mapping[str, str]) -> dict[str, set[str]]:
    """The labels of each series' name, of the text of metrics pages. Names that wait for a first event have none."""
    found: dict[str, set[str]] = {"up": set()}
    for page in pages.values():
        for family in text_string_to_metric_families(page):
            names = [family.name] if family.type in {"gauge", "unknown"} else []
            if family.type == "counter":
                names = [f"{family.name}_total"]
            if family.type == "histogram":
                names = [f"{family.name}_{part}" for part in ("bucket", "count", "sum")]
            for name in names:
                found.setdefault(name, set())
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def faults(question: Question, known: Mapping[str, set[str]]) -> Iterator[str]:
    """What a query asks for that nobody exports: series and labels."""
    for name, inside in _SELECTOR.findall(question.text):
        if name.startswith(EXTERNAL):
            continue
        matchers = _MATCHER.findall(inside)
        pattern = name or next((value for label, _, value in matchers if label == "__name__"), "")
        named = [series for series in known if re.fullmatch(pattern, series)]
        if not named:
            yield f"{question.where}: nothing exports {pattern}"
        labels = TARGET_LABELS.union({"__name__"}, *(known[series] for series in named))
        if all(known[series] for series in named):
            yield from (
                f"{question.where}: {pattern} has no label {label}" for label, _, _ in matchers if label not in labels
            )


@contextmanager
def real_prometheus(program: str, targets: Mapping[str, str], folder: Path) -> Iterator[httpx.Client]:
    """A Prometheus that scrapes each second, with our alerts as its rules.

    Args:
        targets: HOST:PORT of metrics, by job.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    labels = {"platform": "vesta", "namespace": NAMESPACE}
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(FILES / "alerts.yaml")],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [address], "labels": {**labels, "pod": f"{job}-1"}}]}
            for job, address in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with subprocess.Popen(command) as process, httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1") as client:
        try:
            wait_until(
                lambda: _scraped(client), lambda count: count >= 3 * len(targets), deadline=timedelta(seconds=60)
            )
            yield client
        finally:
            process.kill()


def asked(client: httpx.Client, text: str) -> list[dict[str, Any]]:
    """The series that answer a query.

    Raises:
        AssertionError: Prometheus refuses it; says why.
    """
    answer = client.get("/query", params={"query": text}).json()
    assert answer["status"] == "success", f"{text}: {answer.get('error')}"
    return list(answer["data"]["result"])


def _scraped(client: httpx.Client) -> float:
    """How many scrapes have succeeded within the last minute."""
    try:
        found = asked(client, "sum(sum_over_time(up[1m]))")
    except (httpx.HTTPError, ValueError):
        return 0
    return float(found[0]["value"][1]) if found else 0
