"""The learning curve of a run is measured after its version is registered, and nothing that happens to it harms the version."""

import json
from datetime import timedelta

import pytest
from training_service import Training
from vesta_common.errors import Unavailable
from vesta_contracts.training.v1 import CancelTrainingRunRequest, DeleteTrainingRunRequest, TrainingRun
from vesta_training import errors
from vesta_training.executors import work_name
from vesta_training.runs.exchange import Exchange
from vesta_training.runs.job import CurveResult, RunResult
from vesta_training.store.run_queue import LEASE_DURATION
from vesta_training.sweeper import Sweeper
from vesta_training.worker import DEATHS_MAX


def a_trained_run(training: Training, run_id: str = "r") -> TrainingRun:
    """Returns a run whose version is registered and whose curve is pending."""
    run = training.a_run(run_id, control_curve=True)
    training.worker.step()
    return training.get(run)


def test_the_version_is_registered_before_the_curve_is_measured(training: Training) -> None:
    run = a_trained_run(training)
    assert (run.state, run.control_curve_pending) == (TrainingRun.SUCCEEDED, True)
    assert run.model_version
    assert not run.HasField("random_labels")

    training.worker.step()

    measured = training.get(run)
    assert (measured.state, measured.control_curve_pending) == (TrainingRun.SUCCEEDED, False)
    assert [point.label_count for point in measured.control_curve_points] == [10]
    assert measured.random_labels.labels.value == 120
    assert (measured.model_version, measured.end_time) == (run.model_version, run.end_time)
    assert measured.attempt_count == 1
    assert training.event_types() == ["started", "progressed", "succeeded", "registered", "progressed", "measured"]
    assert training.executor.jobs[-1].measured_digest
    assert not training.worker.step()


def test_a_run_without_a_requested_curve_is_not_measured(training: Training) -> None:
    run = training.a_run()
    training.worker.step()
    assert not training.get(run).control_curve_pending
    assert not training.worker.step()


def test_trainings_come_before_curves_that_are_younger_than_ten_minutes(training: Training) -> None:
    measured = a_trained_run(training)
    urgent = training.a_run("urgent")
    training.worker.step()
    assert training.get(urgent).state == TrainingRun.SUCCEEDED
    assert training.get(measured).control_curve_pending

    training.clock.advance(timedelta(minutes=11))
    patient = training.a_run("patient")
    training.worker.step()
    assert not training.get(measured).control_curve_pending
    assert training.get(patient).state == TrainingRun.QUEUED


def test_a_training_interrupts_a_measurement_that_continues_afterwards(training: Training) -> None:
    measured = a_trained_run(training)
    training.executor.under_way = 1
    urgent: list[TrainingRun] = []

    def create_once() -> None:
        if not urgent:
            urgent.append(training.a_run("urgent"))

    training.executor.before_observing = create_once
    training.worker.step()

    assert training.executor.cancelled == [work_name(measured)]
    assert training.get(measured).control_curve_pending
    assert training.get(urgent[0]).state == TrainingRun.QUEUED
    training.worker.step()
    assert training.get(urgent[0]).state == TrainingRun.SUCCEEDED
    training.worker.step()
    assert training.get(measured).random_labels.labels.value == 120


def test_a_measurement_that_has_waited_for_ten_minutes_is_not_interrupted(training: Training) -> None:
    measured = a_trained_run(training)
    training.clock.advance(timedelta(minutes=11))
    training.a_run("urgent")
    training.executor.under_way = 1
    training.worker.step()
    assert training.executor.cancelled == []
    assert not training.get(measured).control_curve_pending


def test_a_worker_that_is_killed_during_the_measurement_is_replaced(training: Training) -> None:
    run = a_trained_run(training)
    assert training.store.run_queue.claim() is not None  # by a worker that is killed
    assert not training.worker.step()
    training.clock.advance(LEASE_DURATION + timedelta(seconds=1))
    training.worker.step()
    measured = training.get(run)
    assert (measured.state, measured.model_version) == (TrainingRun.SUCCEEDED, run.model_version)
    assert measured.random_labels.labels.value == 120


def test_measurements_that_die_again_and_again_end_with_a_reason_and_keep_the_version(training: Training) -> None:
    run = a_trained_run(training)
    for _ in range(DEATHS_MAX):
        training.executor.fails.append(Unavailable("it died", reason="TRAINING_PROCESS_DIED"))
        with pytest.raises(Unavailable):
            training.worker.step()
        assert training.get(run).state == TrainingRun.SUCCEEDED
    training.worker.step()
    ended = training.get(run)
    assert (ended.state, ended.error, ended.control_curve_pending) == (TrainingRun.SUCCEEDED, "", False)
    assert "could not be measured" in ended.random_labels.reason
    assert "it died" in ended.random_labels.reason


def test_deaths_of_the_training_do_not_count_against_the_measurement(training: Training) -> None:
    run = training.a_run(control_curve=True)
    for step in range(2 * (DEATHS_MAX - 1)):
        training.executor.fails.append(Unavailable("it died", reason="TRAINING_PROCESS_DIED"))
        with pytest.raises(Unavailable):
            training.worker.step()
        if step == DEATHS_MAX - 2:
            training.worker.step()
    training.worker.step()
    assert training.get(run).random_labels.labels.value == 120


def test_an_error_of_the_measurement_is_its_reason(training: Training) -> None:
    run = a_trained_run(training)
    training.executor.fails.append(errors.LearningError("the curve is crooked"))
    training.worker.step()
    ended = training.get(run)
    assert (ended.state, ended.error) == (TrainingRun.SUCCEEDED, "")
    assert ended.random_labels.reason == "the learning curve could not be measured: the curve is crooked"
    assert training.event_types()[-1] == "measured"


def test_a_version_that_was_deleted_is_not_measured(training: Training) -> None:
    run = a_trained_run(training)
    with training.store.postgres.transaction() as connection:
        connection.execute("DELETE FROM model_versions")
    training.worker.step()
    assert run.model_version in training.get(run).random_labels.reason


def test_a_cancellation_after_the_success_ends_only_the_measurement(training: Training) -> None:
    run = a_trained_run(training)
    asked = training.runs.CancelTrainingRun(CancelTrainingRunRequest(name=run.name))
    assert (asked.state, asked.control_curve_pending) == (TrainingRun.SUCCEEDED, True)
    training.worker.step()
    ended = training.get(run)
    assert (ended.state, ended.control_curve_pending) == (TrainingRun.SUCCEEDED, False)
    assert "cancelled" in ended.random_labels.reason
    assert training.event_types()[-1] == "measured"


def test_a_run_can_be_deleted_while_its_curve_is_pending(training: Training) -> None:
    training.runs.DeleteTrainingRun(DeleteTrainingRunRequest(name=a_trained_run(training).name))
    assert not training.worker.step()


def test_the_work_of_a_measurement_is_kept_and_that_of_the_training_removed(training: Training) -> None:
    run = a_trained_run(training)
    job = training.executor.jobs[-1]
    training.executor.work = {
        work_name(run): job,
        work_name(TrainingRun(name=run.name, create_time=run.create_time)): job,
    }
    assert len(training.executor.work) == 2
    Sweeper(training.store, training.objects, training.executor).step()
    assert list(training.executor.work) == [work_name(run)]


def test_results_are_read_back_also_those_of_the_previous_version(training: Training) -> None:
    exchange = Exchange(training.objects, "curve-r")
    curve = CurveResult((b"1", b"2"), b"labels")
    exchange.succeed(curve)
    assert exchange.find_result() == curve

    of_before = {
        "version": "AQ==",
        "comparison": "",
        "curve": ["AQ=="],
        "random_labels": None,
        "held_out_accuracy": None,
    }
    training.objects.put_named("runs/train-r/result.json", json.dumps({"outcome": of_before}).encode())
    assert Exchange(training.objects, "train-r").find_result() == RunResult(b"\x01")
