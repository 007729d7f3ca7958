"""Loads wanted model versions into Triton, probes and promotes them, and keeps needed versions loaded."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial

import numpy as np
import structlog
from vesta_common.clock import Clock
from vesta_common.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
    VestaError,
    is_transient,
)
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.serving.v1 import DeploymentFailed, DeploymentPromoted

from vesta_serving.model_files import ModelFiles, ServedParts
from vesta_serving.registry import Registry, Version
from vesta_serving.store import Store
from vesta_serving.store.rows import DeploymentRow
from vesta_serving.triton.replicas import Replica, Tritons
from vesta_serving.triton.repository import (
    find_configuration,
    is_ours,
    is_whole,
    remove_model,
    write_configuration,
    write_model,
)

KEEP_INTERVAL = timedelta(seconds=5)
WHOLE_KEPT = timedelta(minutes=10)
"""After the start, complete models stay loaded for this time, because replicas of an earlier version may still serve them."""
# Errors that a retry cannot resolve.
_PERMANENT = (InvalidArgument, NotFound, DataLoss, FailedPrecondition)

log = structlog.get_logger()


class Deployer:
    """Deploys one deployment at a time. Any number of replicas may run: loading a model twice is harmless.

    Args:
        repository: Triton's model repository.
        gpu: whether Triton has GPUs.
        instance_count: instances of each model.
        idle_max: Triton unloads the models of a deployment that has not predicted for this time.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        triton: Tritons,
        files: ModelFiles,
        repository: ObjectStore,
        clock: Clock,
        *,
        gpu: bool,
        instance_count: int,
        idle_max: timedelta,
    ) -> None:
        self._store = store
        self._registry = registry
        self._triton = triton
        self._files = files
        self._repository = repository
        self._clock = clock
        self._gpu = gpu
        self._instance_count = instance_count
        self._idle_max = idle_max
        self._start_time = clock.now()
        self._written: set[str] = set()  # Triton's names of models whose configuration in the repository is current

    def step(self) -> bool:
        """Brings one deployment to its wanted version; returns False if no deployment needs it or all of those are in backoff."""
        row = self._store.find_unloaded()
        if row is None:
            return False
        begin = self._clock.now()
        try:
            version = self._registry.get(row.wanted)
            self.make_ready(version)
        except _PERMANENT as error:
            log.warning("deployment_failed", deployment=row.name, version=row.wanted, error=str(error))
            self._store.fail(
                row.name, row.wanted, str(error), lambda deployment: DeploymentFailed(deployment=deployment)
            )
            return True
        except Exception as error:  # any error: the other deployments must continue
            log.warning(
                "deployment_postponed",
                deployment=row.name,
                version=row.wanted,
                error=str(error),
                exc_info=not is_transient(error),
            )
            self._store.back_off(row.name, self._clock.now() - begin)
            return True
        promoted = self._store.promote(
            row.name,
            row.wanted,
            lambda deployment: DeploymentPromoted(deployment=deployment),
            embeds=not self._same_space(row, version),
        )
        if promoted:
            log.info("deployment_promoted", deployment=row.name, version=row.wanted)
            self._unload_unneeded()
        return True

    def make_ready(self, version: Version) -> None:
        """Loads a version into every Triton and probes it with a real request.

        Raises:
            FailedPrecondition: a healthy Triton rejects the model, or its head computes numbers that are not finite.
            Unavailable: a Triton does not respond, and has not been given up.
            DataLoss, NotFound: the model's file differs from the registered one, or is missing.
        """
        parts = self._files.parts(version)
        _check_head(version, parts)
        self._write(version, parts)
        try:
            self._triton.load(parts.triton.name)
            self._triton.probe(parts.triton)
        except Unavailable as error:
            # A retry writes a model again that was removed for a deleted version meanwhile.
            is_written = find_configuration(self._repository, parts.triton.name) is not None
            if is_written and self._triton.is_live():
                raise FailedPrecondition(
                    f"Triton rejects {version.model.name}: {error}", reason="MODEL_REJECTED"
                ) from error
            raise

    def _write(self, version: Version, parts: ServedParts) -> bool:
        """Writes a version's Triton model and its current configuration to the repository; returns whether anything changed."""
        name = parts.triton.name
        desired = parts.triton.configuration(gpu=self._gpu, instance_count=self._instance_count)
        current = find_configuration(self._repository, name)
        if current is None:
            write_model(self._repository, name, self._files.triton_file(version), desired)
        elif current != desired:
            write_configuration(self._repository, name, desired)
        self._written.add(name)
        return current != desired

    def keep(self) -> bool:
        """Reloads needed models that a Triton does not serve, and unloads the others. Always returns False, so that it runs again after
        the interval.

        A Triton can lose a model in a restart, or because its process died. A new Triton has no models yet. Also reloads models whose
        configuration is outdated.
        """
        live = [replica for replica in self._triton.replicas() if replica.is_live()]
        if not live:
            return False
        needed = self._needed()
        for version in needed:
            self._update_configuration(version)
        for replica in live:
            answers = [
                self._ensure_loaded(replica, version) for version in needed
            ]  # a list, so that a failure does not skip the others
            replica.is_current = all(answers)
        self._unload_unneeded()
        self._remove_deleted()
        return False

    def _ensure_loaded(self, replica: Replica, version: Version) -> bool:
        """Whether a Triton serves a version, possibly after a reload."""
        parts = self._files.parts(version)
        try:
            with replica.call() as triton:
                triton.probe(parts.triton)
        except Unavailable as error:
            log.warning("model_lost", version=version.model.name, error=str(error))
            return self._reload(replica, version)
        return True

    def _update_configuration(self, version: Version) -> None:
        """Updates the configuration of a version once per process. Triton continues to serve the version during the reload."""
        parts = self._files.parts(version)
        if parts.triton.name in self._written:
            return
        try:
            if self._write(version, parts):
                self._triton.load(parts.triton.name)
        except VestaError as error:
            log.warning("model_renewal_failed", version=version.model.name, error=str(error))

    def _reload(self, replica: Replica, version: Version) -> bool:
        """Reloads a version. After a failure, returns False; the next run retries it, and other versions are not affected."""
        parts = self._files.parts(version)
        try:
            self._write(version, parts)
            with replica.call() as triton:
                triton.unload(parts.triton.name)
                triton.load(parts.triton.name)
                triton.probe(parts.triton)
        except VestaError as error:
            log.warning("model_repair_failed", version=version.model.name, error=str(error))
            return False
        return True

    def _needed(self) -> list[Version]:
        """Returns the versions that used deployments predict with or can be rolled back to, one per Triton model."""
        oldest = self._clock.now() - self._idle_max
        used = [row for row in self._store.list_all() if row.use_time > oldest]
        names = {name for row in used for name in (row.stable, row.previous) if name}
        versions = [self._registry.get(name) for name in sorted(names)]
        return list({self._files.parts(version).triton.name: version for version in versions}.values())

    def _unload_unneeded(self) -> None:
        """Unloads models that no deployment needs. Does nothing if it cannot determine the needed models of every deployment."""
        try:
            loaded = (
                self._triton.loaded()
            )  # first: a model that another replica loads after this is already a wanted version below
            needed = {self._files.parts(version).triton.name for version in self._needed()}
            desired = {
                self._files.find_triton_name(self._registry.get(row.wanted))
                for row in self._store.list_all()
                if row.wanted != row.stable and row.state != "FAILED"
            }
        except VestaError as error:
            log.info("unload_skipped", error=str(error))
            return
        is_upgrade = self._clock.now() - self._start_time < WHOLE_KEPT
        for name in filter(is_ours, loaded - needed - desired):
            if is_upgrade and is_whole(name):
                continue
            try:
                self._triton.unload(name)
            except VestaError as error:
                log.info("unload_skipped", model=name, error=str(error))

    def _remove_deleted(self) -> None:
        """Removes the models of deleted versions from the repository. The next run retries failed removals."""
        for name in self._store.list_to_remove():

            def is_needed(rows: Sequence[DeploymentRow], name: str = name) -> bool:
                versions = {version for row in rows for version in (row.wanted, row.stable, row.previous) if version}
                return name in {self._files.find_triton_name(self._registry.get(version)) for version in versions}

            try:
                self._store.remove_model(name, is_needed, partial(remove_model, self._repository, name))
            except VestaError as error:
                log.warning("model_removal_failed", model=name, error=str(error))

    def _same_space(self, row: DeploymentRow, version: Version) -> bool:
        """Whether the items already have embeddings in the new version's embedding space."""
        if not row.stable:
            return False
        return self._registry.get(row.stable).model.embedding_digest == version.model.embedding_digest


def _check_head(version: Version, parts: ServedParts) -> None:
    if parts.head is None:
        return
    dimension = version.model.embedding_dimension
    probe = np.full((1, dimension), dimension**-0.5, np.float32)
    if not np.isfinite(parts.head.probabilities(probe)).all():
        raise FailedPrecondition(
            f"{version.model.name} returns numbers that are not finite; train another version",
            reason="MODEL_OUTPUT_INVALID",
        )
