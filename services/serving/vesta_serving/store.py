"""Stores deployments, scoring passes, backoffs and the prediction log in PostgreSQL."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vesta_common import trace
from vesta_common.clock import Clock
from vesta_common.errors import NotFound
from vesta_common.events import outbox
from vesta_common.events.cloudevents import new_event
from vesta_common.leases import Lease, Leases, Row
from vesta_common.resources.etags import with_etag
from vesta_common.resources.filters import Where
from vesta_common.storage.postgres import Connection, Postgres, load_queries
from vesta_contracts.serving.v1 import Deployment, Prediction
from vesta_contracts.training.v1 import ModelVersion

from vesta_serving.backoff import backoff_delay
from vesta_serving.labels import named_labels

SERVICE = "serving"

LEASE_DURATION = timedelta(seconds=60)

queries = load_queries("vesta_serving")
_PASS_LEASES = Leases(
    "passes",
    LEASE_DURATION,
    key=("deployment", "dataset"),
    unfinished="NOT done",
    claimable="""
        EXISTS (SELECT FROM deployments WHERE deployments.name = passes.deployment AND stable <> '')
        AND NOT EXISTS (
            SELECT FROM backoffs
            WHERE backoffs.deployment = passes.deployment AND backoffs.dataset = passes.dataset AND retry_time > %(now)s)""",
    order="deployment, dataset",
)
_ARRIVAL_LEASES = Leases(
    "arrivals",
    LEASE_DURATION,
    key=("deployment", "item"),
    claimable="""
        (deployment, dataset) = (
            SELECT first.deployment, first.dataset FROM arrivals AS first JOIN deployments ON deployments.name = first.deployment
            WHERE stable <> '' AND (first.lease_expire_time IS NULL OR first.lease_expire_time <= %(now)s)
              AND NOT EXISTS (
                  SELECT FROM backoffs
                  WHERE backoffs.deployment = first.deployment AND backoffs.dataset = first.dataset AND retry_time > %(now)s)
            ORDER BY first.deployment, first.dataset LIMIT 1)""",
    order="item",
)
"""A batch has items of one deployment and one dataset: of the first that has claimable items and is not in backoff."""


@dataclass(frozen=True)
class DeploymentRow:
    """A stored deployment.

    Attributes:
        asked: the user's fields: display name, policy, datasets.
        generation: increases with every change of what the deployment serves. Never reused by a later deployment of the same name.
    """

    name: str
    asked: Deployment
    wanted: str
    stable: str
    previous: str
    state: str
    error: str
    generation: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True)
class Pass:
    """One scoring pass over a dataset by one generation of a deployment."""

    deployment: str
    dataset: str
    generation: int
    embeds: bool
    page_token: str
    scored_count: int
    item_count: int
    done: bool


@dataclass(frozen=True, kw_only=True)
class ClaimedPass(Pass):
    """A scoring pass whose next page this worker has claimed."""

    lease: Lease


@dataclass(frozen=True)
class Arrival:
    """A new item to score.

    Attributes:
        traceparent: of the trace that added the item; empty if there is none.
    """

    deployment: str
    item: str
    object_key: str
    sha256: str
    traceparent: str = ""


@dataclass(frozen=True, kw_only=True)
class ClaimedArrival(Arrival):
    """A new item that this worker has claimed."""

    lease: Lease


class Store:
    """Reads and writes the service's tables."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self.postgres = postgres
        self._clock = clock

    def count_arrivals(self, connection: Connection) -> list[dict[str, Any]]:
        """Counts new items by whether a worker is scoring them."""
        return list(queries.count_arrivals(connection))

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
        policy_changed = updated.uncertainty != current.asked.uncertainty
        if policy_changed or list(updated.datasets) != list(current.asked.datasets):
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
                self.publish(connection, name, payload_of(self.message(connection, _row(row, name))))

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
            passes[entry["deployment"]].append(_pass(entry))
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

    def schedule_removal(self, connection: Connection, triton_name: str, version: str) -> None:
        """Records a deleted version whose model is to be removed from Triton's repository."""
        queries.put_deleted_model(connection, triton_name=triton_name, model_version=version)

    def lock_removal(self, connection: Connection, triton_name: str) -> None:
        """Waits for a running removal of the model, and prevents a new one until the transaction ends."""
        list(queries.lock_deleted_model(connection, triton_name=triton_name))

    def list_to_remove(self) -> list[str]:
        """Returns the models to remove, by Triton's names."""
        with self.postgres.transaction() as connection:
            return [str(row["triton_name"]) for row in queries.list_deleted_models(connection)]

    def remove_model(
        self, triton_name: str, is_needed: Callable[[Sequence[DeploymentRow]], bool], remove: Callable[[], None]
    ) -> None:
        """Removes a model unless a deployment needs it. A deployment that is created meanwhile waits until the removal ends."""
        with self.postgres.transaction() as connection:
            versions = [row["model_version"] for row in queries.lock_deleted_model(connection, triton_name=triton_name)]
            if versions and not is_needed([_row(row, "") for row in queries.list_all_deployments(connection)]):
                remove()
                for version in versions:
                    queries.drop_version(connection, name=version)
                queries.drop_deleted_model(connection, triton_name=triton_name)

    def claim_pass(self) -> ClaimedPass | None:
        """Claims a pass that has no lease, whose deployment has a stable version, and that is not in backoff."""
        with self.postgres.transaction() as connection:
            lease = _PASS_LEASES.claim(connection, self._clock.now())
        return ClaimedPass(**vars(_pass(lease.row)), lease=lease) if lease else None

    def advance_pass(
        self,
        connection: Connection,
        claimed: ClaimedPass,
        page_token: str,
        scored_count: int,
        item_count: int,
        *,
        done: bool,
    ) -> bool:
        """Records a page of a pass and releases the pass.

        The end of a pass locks the deployment until the transaction ends. When passes end at the same time, the last one therefore
        sees that all others are done, in any replica.

        Returns:
            Whether this page completes all passes of the deployment; true for exactly one page.

        Raises:
            LeaseLost: a newer generation has restarted the pass, another worker has claimed it, or the deployment was deleted.
        """
        if done:
            queries.lock_deployment(connection, name=claimed.deployment)
        _PASS_LEASES.verify(connection, claimed.lease)
        queries.advance_pass(
            connection,
            deployment=claimed.deployment,
            dataset=claimed.dataset,
            page_token=page_token,
            scored_count=scored_count,
            item_count=item_count,
            done=done,
        )
        return done and not queries.count_unfinished_passes(connection, deployment=claimed.deployment)

    def release_pass(self, claimed: ClaimedPass) -> None:
        """Releases the lease of a pass."""
        with self.postgres.transaction() as connection:
            _PASS_LEASES.release(connection, claimed.lease)

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

    def add_arrival(self, connection: Connection, dataset: str, item: str, object_key: str, sha256: str) -> None:
        """Queues a new item, with the current trace, for every deployment that scores its dataset."""
        traceparent = trace.carrier().get("traceparent", "")
        for row in list(queries.list_deployments_of_dataset(connection, dataset=dataset)):
            queries.put_arrival(
                connection,
                deployment=row["deployment"],
                item=item,
                object_key=object_key,
                sha256=sha256,
                traceparent=traceparent,
            )

    def claim_arrivals(self, limit: int) -> list[ClaimedArrival]:
        """Claims new items of one deployment and dataset that have no lease and are not in backoff."""
        with self.postgres.transaction() as connection:
            leases = _ARRIVAL_LEASES.claim_many(connection, self._clock.now(), limit)
        fields = ("deployment", "item", "object_key", "sha256", "traceparent")
        return [ClaimedArrival(**{field: lease.row[field] for field in fields}, lease=lease) for lease in leases]

    def delete_arrivals(self, connection: Connection, arrivals: Sequence[ClaimedArrival]) -> None:
        """Deletes new items of one deployment.

        Raises:
            LeaseLost: another worker has claimed one of them, or the deployment was deleted.
        """
        _ARRIVAL_LEASES.verify(connection, *(arrival.lease for arrival in arrivals))
        items = [arrival.item for arrival in arrivals]
        queries.delete_arrivals(connection, deployment=arrivals[0].deployment, items=items)

    def release_arrivals(self, arrivals: Sequence[ClaimedArrival]) -> None:
        """Releases the leases of new items."""
        with self.postgres.transaction() as connection:
            _ARRIVAL_LEASES.release(connection, *(arrival.lease for arrival in arrivals))

    def get_prediction(self, connection: Connection, name: str) -> Prediction:
        """Returns an entry of the prediction log.

        Raises:
            NotFound: it does not exist, or its retention has passed.
        """
        row = queries.find_prediction(connection, name=name)
        if row is None:
            raise NotFound(f"there is no {name}", reason="RESOURCE_NOT_FOUND", metadata={"name": name})
        return _prediction(row)

    def list_predictions(
        self, connection: Connection, deployment: DeploymentRow, where: Where, before: str, limit: int
    ) -> Sequence[Prediction]:
        """Returns entries with a name less than `before`, newest first, without those of an earlier deployment of the same name."""
        statement = (  # the filter consists of our own column names and placeholders
            "SELECT * FROM predictions WHERE deployment = %(deployment)s AND (%(before)s = '' OR name < %(before)s) "
            f"AND create_time >= %(since)s AND {where.sql} ORDER BY name DESC LIMIT %(limit)s"
        )
        values = {
            "deployment": deployment.name,
            "since": deployment.create_time,
            "before": before,
            "limit": limit,
            **where.parameters,
        }
        return [_prediction(row) for row in connection.execute(statement.encode(), values)]

    def log_predictions(self, predictions: Sequence[tuple[str, Prediction]]) -> None:
        """Adds entries to the prediction log."""
        with (
            self.postgres.transaction() as connection,
            connection.cursor() as cursor,
            cursor.copy(
                "COPY predictions"
                " (name, deployment, item, sha256, model_version, label, labels, score, uncertain, scores, create_time) FROM STDIN"
            ) as copy,
        ):
            for deployment, entry in predictions:
                best = entry.scores.scores[0] if entry.scores.scores else None
                copy.write_row(
                    (
                        entry.name,
                        deployment,
                        entry.item,
                        entry.sha256,
                        entry.scores.model_version,
                        best.concept if best else "",
                        named_labels(entry.scores),
                        best.score if best else 0.0,
                        entry.scores.uncertain,
                        entry.scores.SerializeToString(),
                        self._clock.now(),
                    )
                )

    def prune_predictions(self, before: datetime, limit: int) -> int:
        """Deletes entries of the prediction log that are older than `before`, oldest first; returns their number."""
        with self.postgres.transaction() as connection:
            return int(queries.prune_predictions(connection, before=before, limit=limit))

    def _moved(
        self, connection: Connection, row: dict[str, Any] | None, payload_of: Any, *, embeds: bool
    ) -> DeploymentRow | None:
        if row is None:
            return None
        moved = _row(row, "")
        self._begin_passes(connection, moved.name, moved.generation, moved.asked.datasets, embeds=embeds)
        self.publish(connection, moved.name, payload_of(self.message(connection, moved)))
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
    asked = Deployment(
        display_name=deployment.display_name, uncertainty=deployment.uncertainty, datasets=deployment.datasets
    )
    if not deployment.HasField("uncertainty"):
        asked.ClearField("uncertainty")
    return asked.SerializeToString(deterministic=True)


def _message(row: DeploymentRow, passes: Sequence[Pass]) -> Deployment:
    found = Deployment()
    found.CopyFrom(row.asked)
    found.name, found.model_version = row.name, row.wanted
    found.stable_version, found.previous_version = row.stable, row.previous
    found.state, found.error = Deployment.State.Value(row.state), row.error
    found.create_time.FromDatetime(row.create_time)
    with_etag(found)  # without the fields set below, which change by themselves
    found.update_time.FromDatetime(row.update_time)
    if row.stable and passes:
        found.scoring.model_version = row.stable
        found.scoring.scored_count = sum(entry.scored_count for entry in passes if entry.generation == row.generation)
        found.scoring.item_count = sum(entry.item_count for entry in passes)
    return found


def _row(row: dict[str, Any] | None, name: str) -> DeploymentRow:
    if row is None:
        raise NotFound(f"there is no {name}", reason="RESOURCE_NOT_FOUND", metadata={"name": name})
    fields = ("name", "wanted", "stable", "previous", "state", "error", "generation", "create_time", "update_time")
    return DeploymentRow(asked=Deployment.FromString(bytes(row["body"])), **{field: row[field] for field in fields})


def _pass(row: Row) -> Pass:
    fields = ("deployment", "dataset", "generation", "embeds", "page_token", "scored_count", "item_count", "done")
    return Pass(**{field: row[field] for field in fields})


def _prediction(row: dict[str, Any]) -> Prediction:
    found = Prediction(name=row["name"], item=row["item"], sha256=row["sha256"])
    found.scores.ParseFromString(bytes(row["scores"]))
    found.create_time.FromDatetime(row["create_time"])
    return found
