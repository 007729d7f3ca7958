"""Garbage collection of the files of deleted versions and pretrained detectors, once nothing uses them. Failures are retried."""

from datetime import timedelta

import structlog
from vesta_common.errors import VestaError
from vesta_common.resources.names import project_of
from vesta_common.storage.objects import ObjectStore

from vesta_training.models.deletion_checks import deployed
from vesta_training.models.deployments import Deployments
from vesta_training.store import Store
from vesta_training.store.deleted_files import DeletedFile

RETRY = timedelta(minutes=1)
FILES_AT_ONCE = 100

log = structlog.get_logger()


class FileRemover:
    """Deletes the files of deleted resources. Safe to run in any number of replicas."""

    def __init__(self, store: Store, objects: ObjectStore, deployments: Deployments) -> None:
        self._store = store
        self._objects = objects
        self._deployments = deployments

    def step(self) -> bool:
        """Deletes the files that are due. Always returns False, so that the next call is after the idle interval."""
        for file in self._store.deleted_files.list_due(FILES_AT_ONCE):
            try:
                if self._is_deployed(file):
                    self._store.deleted_files.postpone(file, RETRY)
                else:
                    self._store.deleted_files.delete(file, self._objects.delete)
            except VestaError as error:  # other files are not affected
                log.warning("model_file_deletion_failed", key=file.object_key, error=str(error))
                self._store.deleted_files.postpone(file, RETRY)
        return False

    def _is_deployed(self, file: DeletedFile) -> bool:
        """Whether one of the versions was deployed just before it was deleted."""
        projects = {project_of(version) for version in file.versions}
        in_use = {version for project in projects for version in deployed(self._deployments.of(project))}
        return not in_use.isdisjoint(file.versions)
