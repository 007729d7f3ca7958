"""The database layer: PostgreSQL. This module stores deployments, versions and backoffs; no other package contains SQL."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from vesta_common.clock import Clock
from vesta_common.errors import NotFound
from vesta_common.events import outbox
from vesta_common.events.cloudevents import new_event
from vesta_common.events.summaries import summarised
from vesta_common.resources.etags import with_etag
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.serving.v1 import Deployment
from vesta_contracts.training.v1 import ModelVersion

from vesta_serving.backoff import backoff_delay
from vesta_serving.store.logged_predictions import LoggedPredictions
from vesta_serving.store.rows import DeploymentRow, Pass, StoredParts, pass_of
from vesta_serving.store.scoring import Scoring
from vesta_serving.store.statements import queries

SERVICE = "serving"
USE_INTERVAL = timedelta(minutes=1)


class Store:
    """Reads and writes the service's tables."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self.postgres = postgres
        self._clock = clock
        self.scoring = Scoring(postgres, clock)
        self.logged_predictions = LoggedPredictions(postgres, clock)

    def insert(self, connection: Connection, deployment: Deployment) -> None:
        """Inserts a deployment whose version is to be loaded.

        Raises:
            psycopg.errors.UniqueViolation: the name is taken.
        """
        generation = queries.insert_deployment(
            connection,
            name=deployment.name,
            parent="/".join(deployment.name.split("/")[:2]),
            body=_body(deployment),
            wanted=deployment.model_version,
            now=self._clock.now(),
        )
        self._begin_passes(connection, deployment.name, generation, deployment.datasets, embeds=True)

    def get(self, connection: Connection, name: str) -> DeploymentRow:
        """Returns a deployment.

        Raises:
            NotFound: it does not exist.
        """
        return _row(queries.find_deployment(connection, name=name), name)

    def lock(self, connection: Connection, name: str) -> DeploymentRow:
        """Returns a deployment and locks its row until the transaction ends.

        Raises:
            NotFound: it does not exist.
        """
        return _row(queries.lock_deployment(connection, name=name), name)

    def list_page(self, connection: Connection, parent: str, after: str, limit: int) -> list[DeploymentRow]:
        """Returns a project's deployments with a name greater than `after`, ordered by name."""
        return [_row(row, "") for row in queries.list_deployments(connection, parent=parent, after=after, limit=limit)]

    def list_all(self) -> list[DeploymentRow]:
        """Returns all deployments."""
        with self.postgres.transaction() as connection:
            return [_row(row, "") for row in queries.list_all_deployments(connection)]

    def update(self, connection: Connection, current: DeploymentRow, updated: Deployment) -> None:
        """Updates a deployment.

        Loads a new version, retries a failed one, and scores the datasets again after a change of policy or datasets.
        """
        moves = updated.model_version != current.wanted or current.state == "FAILED"
        queries.update_deployment(
            connection,
            name=current.name,
            body=_body(updated),
            wanted=updated.model_version,
            state=("LOADING" if not current.stable else "READY") if moves else current.state,
            error="" if moves else current.error,
            now=self._clock.now(),
        )
        if moves:
            self.end_backoff(connection, current.name)
        policy_changed = updated.uncertainty != current.spec.uncertainty
        if policy_changed or list(updated.datasets) != list(current.spec.datasets):
            row = queries.next_generation(connection, name=current.name, now=self._clock.now())
            queries.drop_other_passes(connection, deployment=current.name, datasets=list(updated.datasets))
            self._begin_passes(connection, current.name, row["generation"], updated.datasets, embeds=True)

    def delete(self, connection: Connection, name: str) -> None:
        """Deletes a deployment with its predictions."""
        queries.delete_predictions(connection, deployment=name)
        queries.delete_deployment(connection, name=name)

    def find_unloaded(self) -> DeploymentRow | None:
        """Returns a deployment whose wanted version is to be loaded and that is not in backoff; None if there is none."""
        with self.postgres.transaction() as connection:
            row = queries.find_unloaded(connection, now=self._clock.now())
        return _row(row, "") if row else None

    def promote(self, name: str, version: str, payload_of: Any, *, embeds: bool) -> DeploymentRow | None:
        """Makes a loaded version stable, begins scoring and publishes it; returns None if another version is wanted by now."""
        with self.postgres.transaction() as connection:
            row = queries.promote(connection, name=name, version=version, now=self._clock.now())
            return self._moved(connection, row, payload_of, embeds=embeds)

    def roll_back(self, connection: Connection, name: str, payload_of: Any, *, embeds: bool) -> DeploymentRow | None:
        """Makes the previous version stable, begins scoring and publishes it; returns None if there is no previous version."""
        row = queries.roll_back(connection, name=name, now=self._clock.now())
        return self._moved(connection, row, payload_of, embeds=embeds)

    def fail(self, name: str, version: str, error: str, payload_of: Any) -> None:
        """Records the error of a version that cannot be loaded, and publishes it."""
        with self.postgres.transaction() as connection:
            row = queries.fail(connection, name=name, version=version, error=error, now=self._clock.now())
            if row:
                self.publish(connection, name, summarised(payload_of(self.message(connection, _row(row, name)))))

    def publish(self, connection: Connection, subject: str, payload: Any) -> None:
        """Publishes an event in the caller's transaction."""
        outbox.publish(connection, new_event(SERVICE, subject, payload, self._clock.now()))

    def message(self, connection: Connection, row: DeploymentRow) -> Deployment:
        """Returns the deployment as the API message."""
        return self.messages(connection, [row])[0]

    def messages(self, connection: Connection, rows: Sequence[DeploymentRow]) -> list[Deployment]:
        """Returns deployments as API messages, in the same order."""
        passes: dict[str, list[Pass]] = {row.name: [] for row in rows}
        for entry in queries.list_passes(connection, deployments=list(passes)):
            passes[entry["deployment"]].append(pass_of(entry))
        return [_message(row, passes[row.name]) for row in rows]

    @staticmethod
    def etag_part(deployment: Deployment) -> Deployment:
        """Returns the part of a deployment that its etag covers."""
        part = Deployment()
        part.CopyFrom(deployment)
        part.ClearField("update_time")
        part.ClearField("scoring")
        return part

    def put_version(self, version: ModelVersion) -> None:
        """Stores a model version."""
        with self.postgres.transaction() as connection:
            queries.put_version(connection, name=version.name, body=version.SerializeToString())

    def find_version(self, name: str) -> ModelVersion | None:
        """Returns a stored model version; None if it is not stored."""
        with self.postgres.transaction() as connection:
            row = queries.find_version(connection, name=name)
        return ModelVersion.FromString(bytes(row["body"])) if row else None

    def find_parts(self, version: str) -> StoredParts | None:
        """Returns how Triton serves a version; None if its file has not been divided."""
        with self.postgres.transaction() as connection:
            row = queries.find_parts(connection, name=version)
        return StoredParts(row["triton_name"], row["head"]) if row else None

    def put_parts(self, version: str, parts: StoredParts) -> None:
        """Stores how Triton serves a version."""
        with self.postgres.transaction() as connection:
            queries.put_parts(connection, name=version, triton_name=parts.triton_name, head=parts.head)

    def record_use(self, connection: Connection, row: DeploymentRow) -> None:
        """Records that a deployment predicts, at most once a minute."""
        now = self._clock.now()
        if now - row.use_time >= USE_INTERVAL:
            queries.set_use_time(connection, name=row.name, now=now)

    def schedule_removal(self, connection: Connection, version: str, whole_name: str) -> None:
        """Records a deleted version whose model is to be removed from Triton's repository.

        Args:
            whole_name: the name of its complete model, which an earlier version of this service may have written.
        """
        row = queries.find_parts(connection, name=version)
        for triton_name in {whole_name, row["triton_name"] if row else whole_name}:
            queries.put_deleted_model(connection, triton_name=triton_name, model_version=version)

    def list_to_remove(self) -> list[str]:
        """Returns the models to remove, by Triton's names."""
        with self.postgres.transaction() as connection:
            return [str(row["triton_name"]) for row in queries.list_deleted_models(connection)]

    def remove_model(
        self, triton_name: str, is_needed: Callable[[Sequence[DeploymentRow]], bool], remove: Callable[[], None]
    ) -> None:
        """Removes a model unless a deployment needs it. A deployment that needs it meanwhile writes it again."""
        with self.postgres.transaction() as connection:
            versions = [row["model_version"] for row in queries.lock_deleted_model(connection, triton_name=triton_name)]
            if versions and not is_needed([_row(row, "") for row in queries.list_all_deployments(connection)]):
                remove()
                for version in versions:
                    queries.drop_version(connection, name=version)
                queries.drop_deleted_model(connection, triton_name=triton_name)

    def back_off(self, deployment: str, spent: timedelta, dataset: str = "") -> None:
        """Puts a deployment's work into exponential backoff after a failure, for all replicas.

        Args:
            spent: how long the attempt took.
            dataset: the dataset whose items could not be scored; empty if a version could not be loaded.
        """
        now = self._clock.now()
        with self.postgres.transaction() as connection:
            failures = queries.count_failure(connection, deployment=deployment, dataset=dataset, now=now)
            if failures:
                retry_time = now + backoff_delay(failures, spent)
                queries.set_retry_time(connection, deployment=deployment, dataset=dataset, retry_time=retry_time)

    def end_backoff(self, connection: Connection, deployment: str, dataset: str = "") -> None:
        """Ends the backoff of a deployment's work after a success."""
        queries.delete_backoff(connection, deployment=deployment, dataset=dataset)

    def _moved(
        self, connection: Connection, row: dict[str, Any] | None, payload_of: Any, *, embeds: bool
    ) -> DeploymentRow | None:
        if row is None:
            return None
        moved = _row(row, "")
        self._begin_passes(connection, moved.name, moved.generation, moved.spec.datasets, embeds=embeds)
        self.publish(connection, moved.name, summarised(payload_of(self.message(connection, moved))))
        return moved

    def _begin_passes(
        self, connection: Connection, deployment: str, generation: int, datasets: Sequence[str], *, embeds: bool
    ) -> None:
        queries.delete_backoffs(connection, deployment=deployment)
        done_before = {
            entry["dataset"] for entry in queries.list_passes(connection, deployments=[deployment]) if entry["done"]
        }
        for dataset in datasets:
            queries.put_pass(
                connection,
                deployment=deployment,
                dataset=dataset,
                generation=generation,
                embeds=embeds or dataset not in done_before,
            )


def _body(deployment: Deployment) -> bytes:
    """Serializes the user's fields."""
    spec = Deployment(
        display_name=deployment.display_name, uncertainty=deployment.uncertainty, datasets=deployment.datasets
    )
    if not deployment.HasField("uncertainty"):
        spec.ClearField("uncertainty")
    return spec.SerializeToString(deterministic=True)


def _message(row: DeploymentRow, passes: Sequence[Pass]) -> Deployment:
    deployment = Deployment()
    deployment.CopyFrom(row.spec)
    deployment.name, deployment.model_version = row.name, row.wanted
    deployment.stable_version, deployment.previous_version = row.stable, row.previous
    deployment.state, deployment.error = Deployment.State.Value(row.state), row.error
    deployment.create_time.FromDatetime(row.create_time)
    with_etag(deployment)  # without the fields set below, which change by themselves
    deployment.update_time.FromDatetime(row.update_time)
    if row.stable and passes:
        deployment.scoring.model_version = row.stable
        deployment.scoring.scored_count = sum(
            entry.scored_count for entry in passes if entry.generation == row.generation
        )
        deployment.scoring.item_count = sum(entry.item_count for entry in passes)
    return deployment


def _row(row: dict[str, Any] | None, name: str) -> DeploymentRow:
    if row is None:
        raise NotFound(f"{name} does not exist", reason="RESOURCE_NOT_FOUND", metadata={"name": name})
    fields = (
        "name",
        "wanted",
        "stable",
        "previous",
        "state",
        "error",
        "generation",
        "create_time",
        "update_time",
        "use_time",
    )
    return DeploymentRow(spec=Deployment.FromString(bytes(row["body"])), **{field: row[field] for field in fields})
