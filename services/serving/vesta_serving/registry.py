"""A cache of model versions, which are immutable, in front of the training service's model registry."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from vesta_common.errors import DeadlineExceeded, InvalidArgument, NotFound, Unavailable, Violation
from vesta_common.media.model_input import InputFormat
from vesta_common.media.model_signatures import input_format, model_outputs
from vesta_contracts.training.v1 import GetModelVersionRequest, ModelOutput, ModelServiceStub, ModelVersion

from vesta_serving.store import Store
from vesta_serving.task_types import ServingTask, Vocabulary, task_type_of


@dataclass(frozen=True)
class Version:
    """A model version and values derived from it."""

    model: ModelVersion

    @cached_property
    def task(self) -> ServingTask:
        return task_type_of(self.model)

    @cached_property
    def input(self) -> InputFormat:
        return input_format(self.model)

    @property
    def outputs(self) -> Sequence[ModelOutput]:
        return model_outputs(self.model)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(
            self.model.name,
            tuple(self.model.concepts),
            tuple(self.model.thresholds),
            self.model.signature.object_selection.objects_max,
        )


class Registry:
    """Returns model versions from the cache, the database or the training service. Thread-safe."""

    def __init__(self, store: Store, models: ModelServiceStub) -> None:
        self._store = store
        self._models = models
        self._known: dict[str, Version] = {}

    def get(self, name: str) -> Version:
        """Returns a version.

        Raises:
            InvalidArgument: the version does not exist.
            Unavailable: the model registry is unavailable and the version is not stored.
        """
        version = self.find(name)
        if version is None:
            version = self._known[name] = Version(self._ask(name))
        return version

    def find(self, name: str) -> Version | None:
        """Returns a version that is in the cache or the database; None if it is not."""
        version = self._known.get(name)
        if version is None and name and (model := self._store.find_version(name)):
            version = self._known[name] = Version(model)
        return version

    def confirm(self, name: str) -> Version:
        """Returns a version after checking that it still exists, for a deployment that is to serve it.

        Returns the stored version if the model registry is unavailable.

        Raises:
            InvalidArgument: the version does not exist or was deleted.
            Unavailable: the model registry is unavailable and the version is not stored.
        """
        try:
            model = self._ask(name)
        except (Unavailable, DeadlineExceeded):
            return self.get(name)
        version = self._known[name] = Version(model)
        return version

    def _ask(self, name: str) -> ModelVersion:
        try:
            model = self._models.GetModelVersion(GetModelVersionRequest(name=name))
        except NotFound as error:
            raise InvalidArgument(
                f"the model version {name} does not exist; choose another, or train one",
                reason="MODEL_VERSION_NOT_FOUND",
                violations=[Violation("deployment.model_version", "does not exist")],
            ) from error
        self._store.put_version(model)
        return model
