"""The process of training pods, with access to the object store only."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from executors_contract import OTHER_WEIGHTS, WORK, an_embedding
from vesta_common.storage.objects import ObjectStore
from vesta_training.runs.exchange import Exchange
from vesta_training.runs.job import RunResult
from vesta_training.settings import Settings


@pytest.fixture
def settings(service_settings: Callable[[str], dict[str, Any]], tmp_path: Path) -> Settings:
    return Settings(
        **service_settings("training"),
        datasets_address="127.0.0.1:1",
        serving_address="127.0.0.1:1",
        work_folder=str(tmp_path),
    )


@pytest.fixture
def objects(settings: Settings) -> Iterator[ObjectStore]:
    objects = ObjectStore.of(settings)
    yield objects
    objects.close()


@pytest.fixture
def exchange(objects: ObjectStore) -> Exchange:
    return Exchange(objects, WORK)


def exit_code(settings: Settings, **changed: str) -> int:
    """Runs the command of the pod with the environment of the Job, and returns the exit code."""
    environment = {
        "PATH": os.environ["PATH"],
        "VESTA_TRAINER_S3_ENDPOINT_URL": settings.s3_endpoint_url,
        "VESTA_TRAINER_S3_REGION": settings.s3_region,
        "VESTA_TRAINER_S3_BUCKET": settings.s3_bucket,
        "VESTA_TRAINER_S3_PREFIX": settings.s3_prefix,
        "VESTA_TRAINER_S3_ACCESS_KEY": settings.s3_access_key,
        "VESTA_TRAINER_S3_SECRET_KEY": settings.s3_secret_key.get_secret_value(),
        "VESTA_TRAINER_WORK_FOLDER": settings.work_folder,
        **changed,
    }
    command = [sys.executable, "-m", "vesta_training.runs.trainer", WORK]
    return subprocess.run(command, env=environment, check=False, timeout=120).returncode


def test_a_pod_stores_its_result_and_progress(settings: Settings, exchange: Exchange) -> None:
    exchange.put_job(an_embedding("elsewhere"))
    assert exit_code(settings) == 0
    assert isinstance(exchange.find_result(), RunResult)
    assert exchange.find_progress() is not None
    assert exit_code(settings) == 0  # a second pod of the same work does not train


@pytest.mark.parametrize("is_random", [False, True])
def test_a_job_of_the_previous_version_is_read(exchange: Exchange, objects: ObjectStore, is_random: bool) -> None:
    job = replace(an_embedding("elsewhere"), test_split_is_random=is_random)
    content = asdict(job)
    content["test_dealt"] = content.pop("test_split_is_random")
    objects.put_named(f"runs/{WORK}/description.json", json.dumps(content).encode())
    assert exchange.get_job() == job


def test_a_pod_with_a_permanent_error_stores_the_reason_and_is_not_retried(
    settings: Settings, exchange: Exchange
) -> None:
    exchange.put_job(an_embedding("elsewhere", recipe_yaml=OTHER_WEIGHTS))
    assert exit_code(settings) == 10
    assert "a" * 64 in str(exchange.find_result())


def test_a_pod_without_an_object_store_is_retried(settings: Settings) -> None:
    assert exit_code(settings, VESTA_TRAINER_S3_ENDPOINT_URL="http://127.0.0.1:1") == 11
