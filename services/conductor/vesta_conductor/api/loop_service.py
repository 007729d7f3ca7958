"""The LoopService of the gRPC API."""

import grpc
from google.protobuf.empty_pb2 import Empty
from vesta_common.clock import Clock
from vesta_common.errors import AlreadyExists, InvalidArgument, Violation
from vesta_common.ids import new_id
from vesta_common.media.task_types import check_task_type
from vesta_common.messages import without
from vesta_common.resources.etags import check_etag, etag_of
from vesta_common.resources.masks import apply_update
from vesta_common.resources.methods import existing, find_answer, run_once
from vesta_common.resources.names import project_of
from vesta_common.resources.page_keys import by_name
from vesta_common.resources.pages import read_page
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.conductor.v1 import (
    CreateLoopRequest,
    DeleteLoopRequest,
    GetLoopRequest,
    ListDecisionsRequest,
    ListDecisionsResponse,
    ListLoopsRequest,
    ListLoopsResponse,
    Loop,
    LoopPolicy,
    LoopServiceServicer,
    LoopStatus,
    UpdateLoopRequest,
)
from vesta_contracts.datasets.v1 import Dataset, DatasetView, GetDatasetRequest
from vesta_contracts.training.v1 import GetRecipeRequest

from vesta_conductor import store
from vesta_conductor.api.project_service import get_active
from vesta_conductor.peers import Peers
from vesta_conductor.reconciliation.policy import Policy
from vesta_conductor.task_types import check_supported

MUTABLE = ("display_name", "paused", "policy")
FIXED = ("dataset", "annotators_per_task")  # fields of the policy that snapshots and the campaign depend on


class LoopService(LoopServiceServicer):
    """Implements LoopService. Background workers reconcile the Loops."""

    def __init__(self, postgres: Postgres, peers: Peers, clock: Clock) -> None:
        self._postgres = postgres
        self._peers = peers
        self._clock = clock

    def CreateLoop(self, request: CreateLoopRequest, context: grpc.ServicerContext) -> Loop:
        if answer := find_answer(self._postgres, request, Loop):
            return answer
        self._check_references(request.parent, request.loop.policy)
        return run_once(self._postgres, request, Loop, lambda connection: self._create(connection, request))

    def GetLoop(self, request: GetLoopRequest, context: grpc.ServicerContext) -> Loop:
        with self._postgres.transaction() as connection:
            return _with_etag(_found(store.find_loop(connection, request.name), request.name))

    def ListLoops(self, request: ListLoopsRequest, context: grpc.ServicerContext) -> ListLoopsResponse:
        page = read_page(request)
        with self._postgres.transaction() as connection:
            rows = store.list_loops(connection, request.parent, page.after, page.limit)
        loops, token = page.cut(rows, by_name)
        return ListLoopsResponse(loops=[_with_etag(loop) for loop in loops], next_page_token=token)

    def UpdateLoop(self, request: UpdateLoopRequest, context: grpc.ServicerContext) -> Loop:
        name = request.loop.name
        with self._postgres.transaction() as connection:
            before = _found(store.find_loop(connection, name), name)
        recipe = apply_update(before, request.loop, request.update_mask, MUTABLE).policy.recipe
        if recipe != before.policy.recipe:
            dataset = GetDatasetRequest(name=before.policy.dataset, view=DatasetView.DATASET_VIEW_BASIC)
            self._check_recipe(recipe, self._peers.datasets.GetDataset(dataset))

        def work(connection: Connection) -> Loop:
            current = _found(store.find_loop(connection, name, lock=True), name)
            check_etag(request.loop.etag, _covered(current))
            updated = apply_update(current, request.loop, request.update_mask, MUTABLE)
            updated.policy.dataset = updated.policy.dataset or current.policy.dataset
            _check_fixed(current.policy, updated.policy)
            changed = updated.policy != current.policy or updated.paused != current.paused
            store.update_loop(connection, updated, policy_changed=changed, now=self._clock.now())
            return _with_etag(_found(store.find_loop(connection, name), name))

        return self._postgres.run(work)

    def DeleteLoop(self, request: DeleteLoopRequest, context: grpc.ServicerContext) -> Empty:
        def work(connection: Connection) -> Empty:
            _found(store.find_loop(connection, request.name, lock=True), request.name)
            store.delete_loop(connection, request.name)
            return Empty()

        return self._postgres.run(work)

    def ListDecisions(self, request: ListDecisionsRequest, context: grpc.ServicerContext) -> ListDecisionsResponse:
        page = read_page(request)
        before = int(page.cursor[0]) if page.cursor else store.SEQUENCE_MAX
        with self._postgres.transaction() as connection:
            _found(store.find_loop(connection, request.parent), request.parent)
            rows = store.list_decisions(connection, request.parent, before, page.limit)
        decisions, token = page.cut(rows, lambda entry: (str(entry[0]),))
        return ListDecisionsResponse(decisions=[decision for _, decision in decisions], next_page_token=token)

    def _create(self, connection: Connection, request: CreateLoopRequest) -> Loop:
        get_active(connection, request.parent)
        name = f"{request.parent}/loops/{request.loop_id or _new_loop_id()}"
        loop = Loop(
            name=name,
            display_name=request.loop.display_name,
            policy=request.loop.policy,
            paused=request.loop.paused,
            status=LoopStatus(phase=LoopStatus.WAITING_FOR_ITEMS, message="The Loop was created."),
        )
        if not store.insert_loop(connection, loop, request.parent, self._clock.now()):
            raise AlreadyExists(
                f"{name} already exists; choose another loop_id", reason="LOOP_EXISTS", metadata={"name": name}
            )
        return _with_etag(_found(store.find_loop(connection, name), name))

    def _check_references(self, parent: str, policy: LoopPolicy) -> None:
        """Checks that the dataset and the recipe exist in the Loop's project."""
        if project_of(policy.dataset) != parent:
            raise InvalidArgument(
                f"{policy.dataset} is not in {parent}; choose a dataset of the project of the Loop",
                reason="DATASET_IN_OTHER_PROJECT",
                violations=[Violation("loop.policy.dataset", "is in another project")],
            )
        request = GetDatasetRequest(name=policy.dataset, view=DatasetView.DATASET_VIEW_BASIC)
        dataset = self._peers.datasets.GetDataset(request)
        check_supported(dataset)
        self._check_recipe(policy.recipe, dataset)

    def _check_recipe(self, recipe: str, dataset: Dataset) -> None:
        """Checks that the recipe, if any, exists in the Loop's project and is for the task type of the dataset."""
        if not recipe:
            return
        if project_of(recipe) != project_of(dataset.name):
            raise InvalidArgument(
                f"{recipe} is in another project; choose a recipe of the project of the Loop",
                reason="RECIPE_IN_OTHER_PROJECT",
                violations=[Violation("loop.policy.recipe", "is in another project")],
            )
        task_type = self._peers.recipes.GetRecipe(GetRecipeRequest(name=recipe)).task_type
        check_task_type(task_type, dataset, "loop.policy.recipe", recipe)


def _new_loop_id() -> str:
    """Returns a new id. It begins with a letter, unlike a ULID, because it also names the campaign, deployment, models and runs."""
    return f"l{new_id()}"


def _check_fixed(current: LoopPolicy, updated: LoopPolicy) -> None:
    for field in FIXED:
        if getattr(Policy.of(updated), field) != getattr(Policy.of(current), field):
            raise InvalidArgument(
                f"policy.{field} is immutable because the campaign of the Loop depends on it; create another Loop",
                reason="FIELD_IMMUTABLE",
                violations=[Violation(f"loop.policy.{field}", "cannot change")],
            )


def _covered(loop: Loop) -> Loop:
    """Returns the part of a Loop that its etag covers: without the status, so that a change of status makes no update stale."""
    return without(loop, "status")


def _with_etag(loop: Loop) -> Loop:
    loop.etag = etag_of(_covered(loop))
    return loop


def _found(loop: Loop | None, name: str) -> Loop:
    return existing(loop, name, "ListLoops lists the existing ones", reason="LOOP_NOT_FOUND")
