"""Garbage collection of work without an unfinished run, for example work that a worker started after it had lost its lease."""

from vesta_common.storage.objects import ObjectStore

from vesta_training.executors import Executor, work_name
from vesta_training.runs.exchange import Exchange, list_work
from vesta_training.store import Store


class Sweeper:
    """Cancels and removes orphaned work. Safe to run in any number of replicas."""

    def __init__(self, store: Store, objects: ObjectStore, executor: Executor) -> None:
        self._store = store
        self._objects = objects
        self._executor = executor

    def step(self) -> bool:
        """Cancels and removes orphaned work. Always returns False, so that the next call is after the idle interval.

        Unfinished runs are read after the work is listed. Because a run is created before its work, the work of an unfinished run is
        never removed.
        """
        existing = {*self._executor.list_work(), *list_work(self._objects)}
        for work in existing.difference([work_name(run) for run in self._store.runs.list_unfinished()]):
            self._executor.cancel(work)
            Exchange(self._objects, work).remove()
        return False
