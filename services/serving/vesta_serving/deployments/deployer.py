"""Makes what is wanted answer: lays a version down for Triton, loads it, probes it, moves the pointer; and keeps loaded what must be."""

from collections.abc import Iterable
from datetime import timedelta
from functools import partial

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

from vesta_serving.registry import Registry, Version
from vesta_serving.store import DeploymentRow, Store
from vesta_serving.triton.replicas import Replica, Tritons
from vesta_serving.triton.repository import (
    find_configuration,
    is_ours,
    model_configuration,
    remove_model,
    write_configuration,
    write_model,
)

KEEP_INTERVAL = timedelta(seconds=5)
# What another try cannot mend.
_PERMANENT = (InvalidArgument, NotFound, DataLoss, FailedPrecondition)

log = structlog.get_logger()


class Deployer:
    """Works on one deployment at a time. Any number of replicas may: loading twice does no harm.

    Args:
        models: where the registry's ONNX files lie.
        repository: Triton's model repository.
        gpu: whether Triton has GPUs.
        instance_count: of each model.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        triton: Tritons,
        models: ObjectStore,
        repository: ObjectStore,
        clock: Clock,
        *,
        gpu: bool,
        instance_count: int,
    ) -> None:
        self._store = store
        self._registry = registry
        self._triton = triton
        self._models = models
        self._repository = repository
        self._clock = clock
        self._gpu = gpu
        self._instance_count = instance_count
        self._laid_down: set[str] = set()  # by Triton's names: these lie in the repository as our settings want it

    def step(self) -> bool:
        """Brings one deployment to the version it wants; False where none wants another, or all that do wait after a failure."""
        row = self._store.find_unloaded()
        if row is None:
            return False
        begin = self._clock.now()
        try:
            version = self._registry.get(row.wanted)
            self.make_ready(version)
        except _PERMANENT as error:
            log.warning("deployment_failed", deployment=row.name, version=row.wanted, error=str(error))
            self._store.fail(row.name, row.wanted, str(error), lambda found: DeploymentFailed(deployment=found))
            return True
        except Exception as error:  # whatever it is, the other deployments go on
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
            lambda found: DeploymentPromoted(deployment=found),
            embeds=not self._same_space(row, version),
        )
        if promoted:
            log.info("deployment_promoted", deployment=row.name, version=row.wanted)
            self._unload_unneeded()
        return True

    def make_ready(self, version: Version) -> None:
        """Loads a version into every Triton and asks each a real question.

        Raises:
            FailedPrecondition: a Triton refuses the model although it is well itself.
            Unavailable: a Triton does not answer, and has not been given up.
            DataLoss, NotFound: the model's file is not what was registered.
        """
        self._lay_down(version)
        try:
            self._triton.load(version.triton_name)
            self._triton.probe(version.triton_name, classifies=version.classifies)
        except Unavailable as error:
            if self._triton.is_live():
                raise FailedPrecondition(
                    f"Triton refuses {version.model.name}: {error}", reason="MODEL_REFUSED"
                ) from error
            raise

    def _lay_down(self, version: Version) -> bool:
        """Puts a version into the repository as our settings want it; True where it lay there otherwise, or not at all."""
        name, model = version.triton_name, version.model
        wanted = model_configuration(
            name,
            len(model.concepts),
            model.embedding_dimension,
            gpu=self._gpu,
            instance_count=self._instance_count,
        )
        found = find_configuration(self._repository, name)
        if found is None:
            write_model(self._repository, name, self._models.get(model.onnx_key, sha256=model.digest), wanted)
        elif found != wanted:
            write_configuration(self._repository, name, wanted)
        self._laid_down.add(name)
        return found != wanted

    def keep(self) -> bool:
        """Loads again what a Triton has lost, by a restart or because a stub died, what one that joined has not yet, and what other
        settings had laid down; always False: it is done until the next time."""
        live = [replica for replica in self._triton.replicas() if replica.is_live()]
        if not live:
            return False
        needed = list(self._needed())
        for version in needed:
            self._renew(version)
        for replica in live:
            answers = [
                self._is_kept(replica, version) for version in needed
            ]  # each is tried, whatever became of the one before
            replica.is_current = all(answers)
        self._unload_unneeded()
        self._remove_deleted()
        return False

    def _is_kept(self, replica: Replica, version: Version) -> bool:
        """Whether a Triton answers with a version, after it was loaded anew where it did not."""
        try:
            with replica.asked() as triton:
                triton.probe(version.triton_name, classifies=version.classifies)
        except Unavailable as error:
            log.warning("model_lost", version=version.model.name, error=str(error))
            return self._heal(replica, version)
        return True

    def _renew(self, version: Version) -> None:
        """Lets Triton take up settings that have changed since a version was laid down, once; it answers as before meanwhile."""
        if version.triton_name in self._laid_down:
            return
        try:
            if self._lay_down(version):
                self._triton.load(version.triton_name)
        except VestaError as error:
            log.warning("model_not_renewed", version=version.model.name, error=str(error))

    def _heal(self, replica: Replica, version: Version) -> bool:
        """Loads a version anew; one that cannot be is tried again the next time, and keeps no other from it."""
        try:
            self._lay_down(version)
            with replica.asked() as triton:
                triton.unload(version.triton_name)
                triton.load(version.triton_name)
                triton.probe(version.triton_name, classifies=version.classifies)
        except VestaError as error:
            log.warning("model_not_healed", version=version.model.name, error=str(error))
            return False
        return True

    def _needed(self) -> Iterable[Version]:
        """Every version that answers or may be rolled back to, each once."""
        names = {name for row in self._store.list_all() for name in (row.stable, row.previous) if name}
        found: dict[str, Version] = {}
        for name in sorted(names):
            version = self._registry.get(name)
            found.setdefault(version.triton_name, version)
        return found.values()

    def _unload_unneeded(self) -> None:
        """Unloads what no deployment answers with, wants or may return to; nothing while that cannot be told of one of them."""
        try:
            loaded = self._triton.loaded()  # first: what another replica loads from now on is wanted by then
            needed = {version.triton_name for version in self._needed()}
            wanted = {
                self._registry.get(row.wanted).triton_name for row in self._store.list_all() if row.state != "FAILED"
            }
        except VestaError as error:
            log.info("unload_skipped", error=str(error))
            return
        for name in filter(is_ours, loaded - needed - wanted):
            try:
                self._triton.unload(name)
            except VestaError as error:
                log.info("unload_skipped", model=name, error=str(error))

    def _remove_deleted(self) -> None:
        """Removes models of deleted versions from the repository; one that cannot be is tried again the next time."""
        for name in self._store.list_to_remove():

            def is_needed(rows: Iterable[DeploymentRow], name: str = name) -> bool:
                versions = {version for row in rows for version in (row.wanted, row.stable, row.previous) if version}
                return name in {self._registry.get(version).triton_name for version in versions}

            try:
                self._store.remove_model(name, is_needed, partial(remove_model, self._repository, name))
            except VestaError as error:
                log.warning("model_not_removed", model=name, error=str(error))

    def _same_space(self, row: DeploymentRow, version: Version) -> bool:
        """Whether the items bear embeddings of the new version's space already."""
        if not row.stable:
            return False
        return self._registry.get(row.stable).model.embedding_digest == version.model.embedding_digest
