"""Imports and exports come to an end, whatever happens to those who work on them, and answer what they did."""

import os
from datetime import timedelta

import pytest
from datasets_builders import Datasets, Ingest
from vesta_common.errors import Unavailable
from vesta_contracts.datasets.v1 import ImportDatasetResponse
from vesta_datasets.operations import ATTEMPTS_MAX, BATCH_BYTES_MAX, Operations


def photographs(count: int, size_bytes: int = 100) -> dict[str, bytes]:
    return {f"van/{number:03}.jpg": os.urandom(size_bytes) for number in range(count)}


def a_worker(datasets: Datasets, ingest: Ingest) -> Operations:
    return Operations(datasets.store, datasets.objects, ingest)  # type: ignore[arg-type]


def answer_of(datasets: Datasets, operation: str) -> ImportDatasetResponse:
    answer = ImportDatasetResponse()
    found = datasets.operation(operation)
    assert found.response.Unpack(answer), found
    return answer


def test_files_travel_in_messages_that_the_other_end_takes(datasets: Datasets) -> None:
    operation = datasets.begin_import(datasets.a_dataset(), photographs(9, BATCH_BYTES_MAX // 4))
    ingest = Ingest()
    assert a_worker(datasets, ingest).step()
    assert answer_of(datasets, operation).added_count == 9
    assert ingest.calls == 3


@pytest.mark.parametrize(("error", "told"), [(Unavailable("nobody answers"), "nobody answers"), (KeyError("x"), "'x'")])
def test_what_fails_again_and_again_ends_and_says_why(datasets: Datasets, error: Exception, told: str) -> None:
    operation = datasets.begin_import(datasets.a_dataset(), photographs(1))

    def fail(call: int) -> None:
        raise error

    ingest = Ingest(fail)
    worker = a_worker(datasets, ingest)
    for _ in range(ATTEMPTS_MAX + 1):
        assert worker.step()
        assert not worker.step(), "it rests between attempts"
        datasets.store.clock.advance(timedelta(minutes=5))  # type: ignore[attr-defined]
    found = datasets.operation(operation)
    assert ingest.calls == ATTEMPTS_MAX
    assert found.done
    assert f"after {ATTEMPTS_MAX} attempts" in found.error.message
    assert told in found.error.message


def test_one_that_cannot_go_on_holds_up_no_other(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    stuck, other = datasets.begin_import(dataset, photographs(1)), datasets.begin_import(dataset, photographs(2))

    def fail(call: int) -> None:
        if call == 1:
            raise Unavailable("nobody answers")

    worker = a_worker(datasets, Ingest(fail))
    assert worker.step()
    assert worker.step()
    assert (datasets.operation(stuck).done, datasets.operation(other).done) == (False, True)
