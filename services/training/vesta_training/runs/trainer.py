"""Entry point of the pod of a training Job: `python -m vesta_training.runs.trainer WORK`. It accesses only the object store.

WORK is the name of the Job (`executors.work_name`). If torchrun starts several processes, the first one (rank 0) trains, and the other
ranks take part in fine-tuning.
"""

import sys
import time
from datetime import timedelta

import structlog
from vesta_common.errors import VestaError, is_transient
from vesta_common.log import start_logging
from vesta_common.settings import load_settings
from vesta_common.storage.objects import ObjectStore

from vesta_training.hardware import usable_cores
from vesta_training.runs.exchange import Exchange
from vesta_training.runs.exit_codes import PERMANENT_EXIT_CODE, TRANSIENT_EXIT_CODE
from vesta_training.runs.memory import keep_freed_memory
from vesta_training.runs.trainer_settings import TorchrunSettings, TrainerSettings

EXIT_USAGE = 2

log = structlog.get_logger()


def main(arguments: list[str]) -> int:
    """Executes the work of a run. Returns the exit code for the pod failure policy of the Job."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m vesta_training.runs.trainer WORK\n")
        return EXIT_USAGE
    (work,) = arguments
    began = time.monotonic()
    settings = load_settings(TrainerSettings)
    start_logging("trainer", settings.log_level, settings.log_format)
    keep_freed_memory()
    torchrun = TorchrunSettings()
    objects = ObjectStore.of(settings)
    machine: dict[str, str | int] = {
        "work_folder": settings.work_folder,
        "threads": settings.threads or max(1, usable_cores() // torchrun.local_world_size),
    }
    try:
        result = Exchange(objects, work).find_result()
        if result is not None:  # an earlier pod has stored the result, but its exit code was lost
            return _exit_code(result)
        if torchrun.world_size > 1:
            return _execute_distributed(
                work, objects, machine, torchrun, timedelta(seconds=settings.heartbeat_timeout_seconds)
            )
        from vesta_training.runs.work import execute  # imports torch

        log.info("work_started", work=work, loaded_seconds=round(time.monotonic() - began, 2))
        return 0 if execute(work, objects, machine) else PERMANENT_EXIT_CODE
    except Exception as error:
        if not is_transient(error):
            raise
        log.warning("work_interrupted", work=work, error=str(error))
        sys.stderr.write(f"{error}\n")
        return TRANSIENT_EXIT_CODE


def _execute_distributed(
    work: str, objects: ObjectStore, machine: dict[str, str | int], torchrun: TorchrunSettings, timeout: timedelta
) -> int:
    """Executes a distributed run as its first process (rank 0) or as another rank."""
    from vesta_training.runs.processes import FirstProcess, run_other_rank
    from vesta_training.runs.work import execute, execute_other_rank

    log.info("process_started", work=work, rank=torchrun.rank, world_size=torchrun.world_size)
    if torchrun.rank == 0:
        first = FirstProcess(torchrun, timeout)
        succeeded = execute(work, objects, machine, other_ranks=first)
        first.end()
        return 0 if succeeded else PERMANENT_EXIT_CODE
    try:
        run_other_rank(
            torchrun, timeout, lambda group, inputs: execute_other_rank(work, objects, machine, inputs, group)
        )
    except Exception as error:
        if is_transient(error):
            raise
        is_expected = isinstance(error, VestaError)
        log.warning("training_rejected", work=work, rank=torchrun.rank, error=str(error), exc_info=not is_expected)
        sys.stderr.write(f"{error}\n")
        return PERMANENT_EXIT_CODE
    return _exit_code(Exchange(objects, work).find_result())


def _exit_code(result: object) -> int:
    return PERMANENT_EXIT_CODE if isinstance(result, Exception) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
