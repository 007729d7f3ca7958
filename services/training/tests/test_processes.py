"""Distributed runs, started with torchrun as in the pods of a Job: the result equals that of a single process."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from job_site import (
    HEARTBEAT_TIMEOUT_SECONDS,
    WAIT_SECONDS,
    WORK,
    Site,
    a_free_port,
    children_of,
    ends_of,
    numbers_of,
    seen_until,
)
from PIL import Image
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.training.v1 import TrainingProgress
from vesta_training.recipes.recipe import builtin_yaml
from vesta_training.runs.exit_codes import KILLED_EXIT_CODE, PERMANENT_EXIT_CODE, TRANSIENT_EXIT_CODE
from vesta_training.runs.job import Job, RunResult, run_job
from vesta_training.runs.processes import ProcessLostError, process_group, run_other_rank
from vesta_training.runs.trainer_settings import TorchrunSettings
from vesta_training.settings import Settings

TAUGHT, HELD, TESTED = range(11), range(11, 16), range(16, 22)  # batches of 6 and 5: an odd batch is divided unequally
SIDES = {"TRAIN": TAUGHT, "VALIDATION": HELD, "TEST": TESTED}
CHOICES = {
    "value: 32\n": "value: 6\n",  # of a batch
    "value: 0.03\n": "value: 100\n",  # strong regularisation: the head learns little, and fine-tuning is better
    "value: 0.001\n": "value: 0.01\n",  # of the head
}


def a_recipe(epochs: int = 2) -> str:
    """Returns the YAML of a fine-tuning recipe with two steps per epoch."""
    text = builtin_yaml("classification-finetune")
    for choice, ours in {**CHOICES, "value: 8\n": f"value: {epochs}\n"}.items():
        assert choice in text
        text = text.replace(choice, ours)
    return text


@pytest.fixture
def site(service_settings: Callable[[str], dict[str, Any]], digits: Any, tmp_path: Path) -> Iterator[Site]:
    settings = Settings(
        **service_settings("training"),
        datasets_address="127.0.0.1:1",
        serving_address="127.0.0.1:1",
        work_folder=str(tmp_path),
    )
    objects = ObjectStore.of(settings)
    rows = []
    for side, numbers in SIDES.items():
        for number in numbers:
            picture = io.BytesIO()
            Image.fromarray(digits.pixels(digits.sha256s[number])).save(picture, "PNG")
            rows.append(
                {
                    "name": f"items/{number}",
                    "sha256": objects.put("media", picture.getvalue()).sha256,
                    "split": side,
                    "labels": [digits.labels[number]],
                    "control": False,
                    "accept_time": None,
                }
            )
    manifest = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), manifest)
    job = Job(
        run="projects/acme/trainingRuns/r",
        recipe_name="classification-finetune",
        recipe_yaml=a_recipe(),
        concepts=digits.concepts,
        snapshot="projects/acme/datasets/digits/snapshots/1",
        snapshot_digest="d" * 64,
        manifest_key=objects.put("manifests", manifest.getvalue()).key,
        champion="",
        champion_key="",
        champion_digest="",
        seed=0,
        work_folder="elsewhere",
    )
    made = Site(settings, objects, job, tmp_path, [row["sha256"] for row in rows])
    yield made
    for pod in made.started:
        pod.terminate()
        pod.communicate()
    objects.close()


def test_two_pods_train_the_same_model_as_one_process_and_only_the_first_writes(
    site: Site, backbone_path: Path
) -> None:
    told: list[TrainingProgress] = []
    alone = run_job(replace(site.job, work_folder=str(site.folder / "alone")), site.objects, told.append)
    site.exchange.put_job(site.job)
    pods = site.pods(nodes=2)
    tuning = seen_until(site.exchange, pods, lambda now: now.phase == "finetune" and now.step_count > 0)
    assert tuning.step_count == next(one.step_count for one in told if one.phase == "finetune" and one.step) == 4
    ends = ends_of(pods)
    assert [code for code, _ in ends] == [0, 0], ends
    (one, expected), (two, found) = site.model(alone), site.model(site.exchange.find_result())
    assert two.metrics.accuracy.value == one.metrics.accuracy.value
    before = numbers_of(onnx.load(backbone_path))
    tuned = [name for name in expected if name.startswith("conv") and name in before]
    way = sum(float(np.square(expected[name] - before[name]).sum()) for name in tuned) ** 0.5
    apart = sum(float(np.square(found[name] - expected[name]).sum()) for name in tuned) ** 0.5
    assert 0 < apart < 0.01 * way  # due to the summation order
    assert [one for one in (site.folder / f"{WORK}-1").rglob("*") if one.is_file()] == []


def test_a_killed_pod_ends_the_others_immediately_and_all_resume_from_the_checkpoint(site: Site) -> None:
    exchange = site.exchange
    exchange.put_job(replace(site.job, recipe_yaml=a_recipe(epochs=6)))
    pods = site.pods(nodes=2)
    seen_until(exchange, pods, lambda now: now.phase == "finetune" and now.step > 4)
    (process,) = children_of(pods[1].pid)
    os.kill(process, signal.SIGKILL)
    begun = time.monotonic()
    (other, words), (killed, _) = ends_of(pods)
    assert (other, killed) == (TRANSIENT_EXIT_CODE, KILLED_EXIT_CODE), words
    assert time.monotonic() - begun < HEARTBEAT_TIMEOUT_SECONDS
    assert "another process of the run is lost" in words
    assert exchange.find_result() is None

    (checkpoint,) = (site.folder / f"{WORK}-0").rglob("finetune.checkpoint")
    epoch = torch.load(checkpoint, weights_only=True)["epoch"]
    exchange.put_checkpoint(checkpoint)  # as every minute
    for index in range(2):
        shutil.rmtree(site.folder / f"{WORK}-{index}")  # the next pods do not have it
    pods = site.pods(nodes=2)
    first = seen_until(exchange, pods, lambda now: now.phase == "finetune" and now.step > 0)
    assert first.step > epoch * 2  # of two batches
    assert [code for code, _ in ends_of(pods)] == [0, 0]
    assert isinstance(exchange.find_result(), RunResult)


def test_a_permanent_error_of_one_pod_ends_all_with_its_reason(site: Site) -> None:
    frozen = replace(site.job, recipe_name="classification", recipe_yaml=builtin_yaml("classification"))
    run_job(replace(frozen, work_folder=str(site.folder / "before")), site.objects, lambda _: None)
    order = torch.randperm(len(TAUGHT), generator=torch.Generator().manual_seed(0))
    missing = site.sha256s[TAUGHT[int(order[1])]]  # of the first batch the second pod has the second image
    site.objects.delete(f"media/{missing}")

    exchange = site.exchange
    exchange.put_job(site.job)
    ends = ends_of(site.pods(nodes=2))
    assert [code for code, _ in ends] == [PERMANENT_EXIT_CODE, PERMANENT_EXIT_CODE], ends
    assert missing in str(exchange.find_result())
    assert "training_rejected" in ends[1][1]

    late = site.pods(nodes=2, indexes=[1])  # the other pod has completed
    assert [code for code, _ in ends_of(late)] == [PERMANENT_EXIT_CODE]


def test_a_first_process_without_heartbeats_counts_as_lost() -> None:
    port = a_free_port()
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    store.set("vesta/command", "0")
    store.set("vesta/heartbeat", "1")
    torchrun = TorchrunSettings(rank=1, world_size=2, master_addr="127.0.0.1", master_port=port)
    with pytest.raises(ProcessLostError, match="sent no heartbeat"):
        run_other_rank(torchrun, timedelta(seconds=1), lambda group, inputs: None)


STANDS_STILL = """
import os, signal, sys
from datetime import timedelta
from torch.distributed import TCPStore
from vesta_training.runs.processes import process_group
from vesta_training.runs.trainer_settings import TorchrunSettings
TCPStore("127.0.0.1", int(sys.argv[1]), is_master=False, wait_for_workers=False).set("loaded", "")
torchrun = TorchrunSettings(rank=1, world_size=2, master_addr="127.0.0.1", master_port=int(sys.argv[1]))
with process_group(torchrun, 1, timedelta(minutes=1)):
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_suspended_process_counts_as_lost_after_a_bounded_time() -> None:
    port, timeout = a_free_port(), timedelta(seconds=5)
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=WAIT_SECONDS))
    torchrun = TorchrunSettings(rank=0, world_size=2, master_addr="127.0.0.1", master_port=port)
    with subprocess.Popen([sys.executable, "-c", STANDS_STILL, str(port)]) as other:
        try:
            store.wait(["loaded"])
            with process_group(torchrun, 1, timeout) as group:
                begun = time.monotonic()
                with pytest.raises(ProcessLostError):
                    group.sum([torch.ones(1)])
                assert time.monotonic() - begun < 4 * timeout.total_seconds()
        finally:
            other.kill()
