"""What a Loop calls the things it makes, so that whoever looks at the world finds them again without a record."""

import hashlib
import re
from dataclasses import dataclass

from vesta_common.resources.names import project_of

ID_LENGTH_MAX = 63  # of the last part of a resource name (AIP-122)


@dataclass(frozen=True)
class LoopNames:
    """Every name that follows from a Loop's own.

    Attributes:
        loop: `projects/{project}/loops/{loop}`.
        dataset: the policy's dataset; its snapshots lie below it.
    """

    loop: str
    dataset: str

    @property
    def project(self) -> str:
        return project_of(self.loop)

    @property
    def loop_id(self) -> str:
        return last_part(self.loop)

    @property
    def campaign(self) -> str:
        return f"{self.project}/campaigns/{self.loop_id}"

    @property
    def deployment(self) -> str:
        return f"{self.project}/deployments/{self.loop_id}"

    @property
    def model(self) -> str:
        """The classifiers of this Loop; the embedding model is another one, so that versions count what was learnt."""
        return f"{self.project}/models/{self.loop_id}"

    @property
    def embedding_model(self) -> str:
        return f"{self.project}/models/{self._id('embedding')}"

    @property
    def embedding_recipe(self) -> str:
        return f"{self.project}/recipes/embedding"

    def recipe(self, *, multi_label: bool) -> str:
        """The recipe that is trained with where the policy names none."""
        return f"{self.project}/recipes/{'multilabel' if multi_label else 'classification'}"

    def embedding_run(self, attempt: int) -> str:
        """The run of that attempt, which counts from 1."""
        return f"{self.project}/trainingRuns/{self._id(_attempt('embedding', attempt))}"

    def snapshot(self, round_number: int) -> str:
        return f"{self.dataset}/snapshots/{self._id(f'r{round_number}')}"

    def run(self, round_number: int, attempt: int) -> str:
        """The run of that attempt at a round; both count from 1."""
        return f"{self.project}/trainingRuns/{self._id(_attempt(f'r{round_number}', attempt))}"

    def _id(self, suffix: str) -> str:
        """`{loop}-{suffix}`; where that is too long the loop's id is cut and told apart by its hash."""
        whole = f"{self.loop_id}-{suffix}"
        if len(whole) <= ID_LENGTH_MAX:
            return whole
        digest = hashlib.sha256(self.loop_id.encode()).hexdigest()[:8]
        kept = self.loop_id[: ID_LENGTH_MAX - len(suffix) - len(digest) - 2].rstrip("-")
        return f"{kept}-{digest}-{suffix}"


def last_part(name: str) -> str:
    """The id at the end of a resource name."""
    return name.rsplit("/", 1)[-1]


def attempt_of(run: str) -> int:
    """Which attempt a run of ours is, from its name; they count from 1."""
    retry = re.search(r"-retry(\d+)$", run)
    return int(retry[1]) + 1 if retry else 1


def version_in_words(name: str) -> str:
    """`version 3` for `projects/acme/models/vans/versions/3`."""
    return f"version {last_part(name)}"


def _attempt(suffix: str, attempt: int) -> str:
    return suffix if attempt == 1 else f"{suffix}-retry{attempt - 1}"
