"""`python -m vesta_training.runs.trainer WORK`: the process in the pod of a training Job. It accesses only the object store.

If torchrun starts several processes, the first one does the work, and the others take part in fine-tuning.
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
from vesta_training.runs.exit_codes import REFUSED_EXIT_CODE, TRANSIENT_EXIT_CODE
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
    torchrun = TorchrunSettings()
    objects = ObjectStore.of(settings)
    place: dict[str, str | int] = {
        "work_folder": settings.work_folder,
        "threads": settings.threads or max(1, usable_cores() // torchrun.local_world_size),
    }
    try:
        result = Exchange(objects, work).find_result()
        if result is not None:  # an earlier pod has stored the result, but its exit code was lost
            return _exit_code(result)
        if torchrun.world_size > 1:
            return _one_of_several(work, objects, place, torchrun, timedelta(seconds=settings.silence_seconds))
        from vesta_training.runs.work import finish  # imports torch

        log.info("work_started", work=work, loaded_seconds=round(time.monotonic() - began, 2))
        return 0 if finish(work, objects, place) else REFUSED_EXIT_CODE
    except Exception as error:
        if not is_transient(error):
            raise
        log.warning("work_interrupted", work=work, error=str(error))
        sys.stderr.write(f"{error}\n")
        return TRANSIENT_EXIT_CODE


def _one_of_several(
    work: str, objects: ObjectStore, place: dict[str, str | int], torchrun: TorchrunSettings, silence: timedelta
) -> int:
    """Runs as the first process or as another process of a distributed run."""
    from vesta_training.runs.processes import FirstProcess, follow
    from vesta_training.runs.work import assist, finish

    log.info("process_started", work=work, rank=torchrun.rank, world_size=torchrun.world_size)
    if torchrun.rank == 0:
        first = FirstProcess(torchrun, silence)
        succeeded = finish(work, objects, place, helpers=first)
        first.end()
        return 0 if succeeded else REFUSED_EXIT_CODE
    try:
        follow(torchrun, silence, lambda group, lesson: assist(work, objects, place, lesson, group))
    except Exception as error:
        if is_transient(error):
            raise
        foreseen = isinstance(error, VestaError)
        log.warning("training_rejected", work=work, rank=torchrun.rank, error=str(error), exc_info=not foreseen)
        sys.stderr.write(f"{error}\n")
        return REFUSED_EXIT_CODE
    return _exit_code(Exchange(objects, work).find_result())


def _exit_code(result: object) -> int:
    return REFUSED_EXIT_CODE if isinstance(result, Exception) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
