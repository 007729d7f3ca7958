"""`python -m vesta_training.runs.torchrun OPTION... -m vesta_training.runs.trainer WORK`: torchrun with specific exit codes.

The exit code of torchrun is 1 for every error. This wrapper exits with the code of the first failed process, so that the pod failure
policy of the Job can distinguish permanent errors, killed processes and lost processes. If the result of the work is already stored, the
wrapper exits immediately and does not wait for the other pods, which may have completed.
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
from vesta_training.runs.exit_codes import PERMANENT_EXIT_CODE, TRANSIENT_EXIT_CODE
from vesta_training.runs.trainer_settings import TrainerSettings

SIGNAL_EXIT_CODE = 128


def main(arguments: list[str]) -> int:
    """Runs torchrun with its own options; the last argument is the work. Returns the exit code."""
    settings = load_settings(TrainerSettings)
    start_logging("trainer", settings.log_level, settings.log_format)
    objects = ObjectStore.of(settings)
    result = Exchange(objects, arguments[-1]).find_result()
    objects.close()
    if result is not None:
        return PERMANENT_EXIT_CODE if isinstance(result, Exception) else 0
    # The last lines of the log, which Kubernetes shows as termination message, must be those of the training process.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run(parse_args(arguments))  # type: ignore[no-untyped-call]
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        return first.exitcode if first.exitcode >= 0 else SIGNAL_EXIT_CODE - first.exitcode
    except SignalException as stopped:
        return SIGNAL_EXIT_CODE + stopped.sigval
    except RuntimeError as error:
        sys.stderr.write(f"the pods of the run cannot connect to each other: {error}\n")
        return TRANSIENT_EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
