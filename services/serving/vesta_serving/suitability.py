"""Checks that the model version of a deployment has the task type of its datasets, and that of the version that it replaces."""

from collections.abc import Iterable

from vesta_common.errors import InvalidArgument, NotFound, Violation
from vesta_common.media.task_types import check_task_type, in_words, makes_predictions, model_task_type
from vesta_contracts.datasets.v1 import DatasetServiceStub, GetDatasetRequest
from vesta_contracts.training.v1 import ModelVersion

FIELD = "deployment.model_version"


def check_datasets(version: ModelVersion, names: Iterable[str], datasets: DatasetServiceStub) -> None:
    """Checks that datasets have the task type of a model version. A model that only computes embeddings suits all of them.

    Datasets that do not exist are not checked, because scoring ignores them.

    Raises:
        InvalidArgument: TASK_TYPE_MISMATCH.
        Unavailable: the datasets service does not respond.
    """
    if not makes_predictions(version):
        return
    for name in names:
        try:
            dataset = datasets.GetDataset(GetDatasetRequest(name=name))
        except NotFound:
            continue
        check_task_type(model_task_type(version), dataset, FIELD, version.name)


def check_successor(version: ModelVersion, before: ModelVersion) -> None:
    """Checks that a model version has the task type of the version that it replaces, unless one of them only computes embeddings.

    Raises:
        InvalidArgument: TASK_TYPE_MISMATCH.
    """
    task_type, task_type_before = model_task_type(version), model_task_type(before)
    if task_type == task_type_before or not (makes_predictions(version) and makes_predictions(before)):
        return
    what = (
        f"{version.name} is for {in_words(task_type)}, but {before.name} of this deployment is for "
        f"{in_words(task_type_before)}; create another deployment for it"
    )
    raise InvalidArgument(f"{FIELD}: {what}", reason="TASK_TYPE_MISMATCH", violations=[Violation(FIELD, what)])
