"""`python -m vesta_training.runs.torchrun OPTION... -m vesta_training.runs.trainer WORK`: torchrun, whose exit code says why it ended.

torchrun itself ends with 1 whatever happened. This one ends as the first of its processes that failed, so that the failure policy of the
Job tells a refusal, a killed process and a lost one apart. Work whose result is there already ends at once, without waiting for the
other pods, of which some may have ended for good.
"""

import logging
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run
from vesta_common.log import start_logging
from vesta_common.settings import load_settings
from vesta_common.storage.objects import ObjectStore

from vesta_training.runs.exchange import Exchange
from vesta_training.runs.exit_codes import REFUSED_EXIT_CODE, TRANSIENT_EXIT_CODE
from vesta_training.runs.trainer_settings import TrainerSettings

OF_SIGNALS = 128


def main(arguments: list[str]) -> int:
    """Runs torchrun with its own options; the last argument is the work. Answers the exit code."""
    settings = load_settings(TrainerSettings)
    start_logging("trainer", settings.log_level, settings.log_format)
    objects = ObjectStore.of(settings)
    told = Exchange(objects, arguments[-1]).find_result()
    objects.close()
    if told is not None:
        return REFUSED_EXIT_CODE if isinstance(told, Exception) else 0
    logging.getLogger("torch.distributed.elastic").setLevel(
        logging.CRITICAL
    )  # the last lines are to be the process's own
    try:
        run(parse_args(arguments))  # type: ignore[no-untyped-call]
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        return first.exitcode if first.exitcode >= 0 else OF_SIGNALS - first.exitcode
    except SignalException as stopped:
        return OF_SIGNALS + stopped.sigval
    except RuntimeError as error:
        sys.stderr.write(f"the pods of the run do not find each other: {error}\n")
        return TRANSIENT_EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
