"""Ends work that belongs to no open run, such as one that a worker started after it had lost the run."""

from vesta_common.storage.objects import ObjectStore

from vesta_training.executors import Executor, work_name
from vesta_training.runs.exchange import Exchange, list_work
from vesta_training.store.postgres import Store


class Sweeper:
    """Any number of replicas may: what is gone already is no error."""

    def __init__(self, store: Store, objects: ObjectStore, executor: Executor) -> None:
        self._store = store
        self._objects = objects
        self._executor = executor

    def step(self) -> bool:
        """Cancels and removes; always False: it is done until the next time.

        Open runs are read after the work is listed: a run is claimed before it has work, so none of a run in hand is taken for an
        ended one's.
        """
        there = {*self._executor.list_work(), *list_work(self._objects)}
        for work in there.difference([work_name(run) for run in self._store.list_open()]):
            self._executor.cancel(work)
            Exchange(self._objects, work).remove()
        return False
