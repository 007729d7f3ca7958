"""Model versions, asked once of the registry and then remembered: they never change."""

from dataclasses import dataclass

from vesta_common.errors import DeadlineExceeded, InvalidArgument, NotFound, Unavailable, Violation
from vesta_contracts.training.v1 import GetModelVersionRequest, ModelServiceStub, ModelVersion

from vesta_serving.labels import Vocabulary
from vesta_serving.store import Store
from vesta_serving.triton.repository import triton_name


@dataclass(frozen=True)
class Version:
    """A version and what follows from it."""

    model: ModelVersion

    @property
    def triton_name(self) -> str:
        """What Triton calls it."""
        return triton_name(self.model.digest)

    @property
    def classifies(self) -> bool:
        """False for a model that only embeds."""
        return bool(self.model.concepts)

    @property
    def vocabulary(self) -> Vocabulary:
        """What its outputs mean."""
        return Vocabulary(self.model.name, tuple(self.model.concepts), tuple(self.model.thresholds))


class Registry:
    """Looks versions up. Safe to share between threads."""

    def __init__(self, store: Store, models: ModelServiceStub) -> None:
        self._store = store
        self._models = models
        self._known: dict[str, Version] = {}

    def get(self, name: str) -> Version:
        """A version.

        Raises:
            InvalidArgument: there is none.
            Unavailable: the registry does not answer and the version is not remembered.
        """
        found = self._known.get(name)
        if found is None:
            model = self._store.find_version(name) or self._ask(name)
            found = self._known[name] = Version(model)
        return found

    def confirm(self, name: str) -> Version:
        """A version that the registry has just now, for a deployment that is to answer with it.

        Where the registry does not answer, what is remembered counts.

        Raises:
            InvalidArgument: there is none, or no more.
            Unavailable: the registry does not answer and the version is not remembered.
        """
        try:
            model = self._ask(name)
        except (Unavailable, DeadlineExceeded):
            return self.get(name)
        found = self._known[name] = Version(model)
        return found

    def _ask(self, name: str) -> ModelVersion:
        try:
            model = self._models.GetModelVersion(GetModelVersionRequest(name=name))
        except NotFound as error:
            raise InvalidArgument(
                f"there is no model version {name}; train one, or name another",
                reason="MODEL_VERSION_NOT_FOUND",
                violations=[Violation("deployment.model_version", "does not exist")],
            ) from error
        self._store.put_version(model)
        return model
