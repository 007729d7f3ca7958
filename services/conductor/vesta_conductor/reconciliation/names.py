"""Names of the resources that a Loop creates. They derive from the Loop's name, so that observation finds them without a record."""

import hashlib
import re
from dataclasses import dataclass

from vesta_common.resources.names import project_of

ID_LENGTH_MAX = 63  # of the last segment of a resource name (AIP-122)


@dataclass(frozen=True)
class LoopNames:
    """All names that derive from a Loop's name.

    Attributes:
        loop: `projects/{project}/loops/{loop}`.
        dataset: the policy's dataset, the parent of its snapshots.
    """

    loop: str
    dataset: str

    @property
    def project(self) -> str:
        return project_of(self.loop)

    @property
    def loop_id(self) -> str:
        return last_segment(self.loop)

    @property
    def campaign(self) -> str:
        return f"{self.project}/campaigns/{self.loop_id}"

    @property
    def deployment(self) -> str:
        return f"{self.project}/deployments/{self.loop_id}"

    @property
    def model(self) -> str:
        """The model of the Loop's classifiers. The embedding model is separate, so that version numbers count trainings on labels."""
        return f"{self.project}/models/{self.loop_id}"

    @property
    def embedding_model(self) -> str:
        return f"{self.project}/models/{self._id('embedding')}"

    @property
    def embedding_recipe(self) -> str:
        return self.recipe("embedding")

    def recipe(self, recipe_id: str) -> str:
        """Returns the name of a recipe of the project."""
        return f"{self.project}/recipes/{recipe_id}"

    def embedding_run(self, attempt: int) -> str:
        """Returns the name of an embedding run; attempts count from 1."""
        return f"{self.project}/trainingRuns/{self._id(_attempt('embedding', attempt))}"

    def snapshot(self, round_number: int) -> str:
        return f"{self.dataset}/snapshots/{self._id(f'r{round_number}')}"

    def run(self, round_number: int, attempt: int) -> str:
        """Returns the name of a training run; rounds and attempts count from 1."""
        return f"{self.project}/trainingRuns/{self._id(_attempt(f'r{round_number}', attempt))}"

    def _id(self, suffix: str) -> str:
        """Returns `{loop}-{suffix}`; shortens a long loop id and adds a hash of it."""
        full_id = f"{self.loop_id}-{suffix}"
        if len(full_id) <= ID_LENGTH_MAX:
            return full_id
        digest = hashlib.sha256(self.loop_id.encode()).hexdigest()[:8]
        prefix = self.loop_id[: ID_LENGTH_MAX - len(suffix) - len(digest) - 2].rstrip("-")
        return f"{prefix}-{digest}-{suffix}"


def last_segment(name: str) -> str:
    """Returns the last segment of a resource name."""
    return name.rsplit("/", 1)[-1]


def attempt_of(run: str) -> int:
    """Returns the attempt number of one of the Loop's runs, from its name; attempts count from 1."""
    retry = re.search(r"-retry(\d+)$", run)
    return int(retry[1]) + 1 if retry else 1


def version_in_words(name: str) -> str:
    """Returns `version 3` for `projects/acme/models/vans/versions/3`."""
    return f"version {last_segment(name)}"


def _attempt(suffix: str, attempt: int) -> str:
    return suffix if attempt == 1 else f"{suffix}-retry{attempt - 1}"
