"""`python -m vesta_training.trainer WORK`: what a training Job's pod runs. It needs the object store and nothing else."""

import sys
import time

import structlog
from vesta_common.errors import is_transient
from vesta_common.log import start_logging
from vesta_common.objects import ObjectStore
from vesta_common.settings import load_settings

from vesta_training.hardware import usable_cores
from vesta_training.runs.exchange import Exchange
from vesta_training.runs.executors.job_manifest import REFUSED_EXIT_CODE, TRANSIENT_EXIT_CODE
from vesta_training.trainer_settings import TrainerSettings

EXIT_USAGE = 2

log = structlog.get_logger()


def main(arguments: list[str]) -> int:
    """Does one piece of work; answers the exit code, by which the Job's failure policy knows what to do."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m vesta_training.trainer WORK\n")
        return EXIT_USAGE
    (work,) = arguments
    began = time.monotonic()
    settings = load_settings(TrainerSettings)
    start_logging("trainer", settings.log_level, settings.log_format)
    objects = ObjectStore.of(settings)
    from vesta_training.runs.work import finish  # it loads torch

    log.info("work_begins", work=work, loaded_seconds=round(time.monotonic() - began, 2))
    try:
        told = Exchange(objects, work).find_result()
        if told is not None:  # of a pod before, whose Job was told otherwise
            return REFUSED_EXIT_CODE if isinstance(told, Exception) else 0
        place: dict[str, str | int] = {
            "work_folder": settings.work_folder,
            "threads": settings.threads or usable_cores(),
        }
        return 0 if finish(work, objects, place) else REFUSED_EXIT_CODE
    except Exception as error:
        if not is_transient(error):
            raise
        log.warning("work_interrupted", work=work, error=str(error))
        sys.stderr.write(f"{error}\n")
        return TRANSIENT_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
