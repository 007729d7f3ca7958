"""Time and memory of snapshots of a large dataset, and of their comparison."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from figures import Figure
from scale_rows import CONCEPTS, name_of
from vesta_common.storage.postgres import Connection
from vesta_local.platform import Platform

CREATE_GOAL_SECONDS, MEMORY_GOAL_MIB = 60.0, 300.0
CREATE_AGAIN_GOAL_SECONDS, DIFF_GOAL_SECONDS = 1.0, 5.0
MIDDLE = 500_001
_RELABEL_HALF = b"""
UPDATE items SET labels = ARRAY[%(label)s], accepted = (SELECT accepted FROM items WHERE name = %(labelled)s)
WHERE dataset = %(dataset)s AND hashtext(name) %% 2 = 0
"""
_RESET_PEAK = "5"  # see clear_refs in proc(5)


def measure(platform: Platform, client: httpx.Client, connection: Connection, dataset: str) -> Iterator[Figure]:
    """Yields `scale_snapshot_seconds`, `…_mib`, `scale_snapshot_after_one_change_seconds`, `scale_diff_seconds` and
    `scale_diff_of_half_seconds`.

    Args:
        dataset: of more than `MIDDLE` items, without a snapshot. One item is labelled, and then half of them.
    """
    pid = platform.supervisor.pid("datasets")
    Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)
    first, create_seconds = _timed(client, "POST", f"{dataset}/snapshots")
    yield Figure("scale_snapshot_seconds", create_seconds, CREATE_GOAL_SECONDS, lower=True)
    label = {"concept": CONCEPTS[0], "imageLabel": {}}
    annotations = [{"item": name_of(dataset, MIDDLE), "annotations": [label]}]
    _timed(client, "POST", f"{dataset}/items:batchAnnotate", {"items": annotations})
    later, again_seconds = _timed(client, "POST", f"{dataset}/snapshots")
    yield Figure("scale_snapshot_after_one_change_seconds", again_seconds, CREATE_AGAIN_GOAL_SECONDS, lower=True)
    found, diff_seconds = _timed(client, "GET", f"{later['name']}:diff?base={first['name']}")
    assert int(found["relabelledCount"]) == 1, found
    yield Figure("scale_diff_seconds", diff_seconds, DIFF_GOAL_SECONDS, lower=True)
    connection.execute(_RELABEL_HALF, {"dataset": dataset, "labelled": name_of(dataset, MIDDLE), "label": CONCEPTS[-1]})
    connection.commit()
    half, half_seconds = _timed(client, "POST", f"{dataset}/snapshots")
    found, diff_seconds = _timed(client, "GET", f"{half['name']}:diff?base={first['name']}")
    details = {"relabelled": float(found["relabelledCount"]), "snapshot_seconds": half_seconds}
    yield Figure("scale_diff_of_half_seconds", diff_seconds, DIFF_GOAL_SECONDS, lower=True, details=details)
    yield Figure("scale_snapshot_mib", _peak_mib(pid), MEMORY_GOAL_MIB, lower=True)


def _timed(client: httpx.Client, method: str, path: str, body: Any = None) -> tuple[Any, float]:
    """Returns the response of a call, and its time in seconds."""
    began = time.perf_counter()
    response = client.request(method, f"/v1/{path}", json=({} if body is None else body) if method == "POST" else None)
    return response.raise_for_status().json(), time.perf_counter() - began


def _peak_mib(pid: int) -> float:
    """Returns the peak of the resident memory of a process."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024
