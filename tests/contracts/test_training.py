"""What the other services rely on of training: of the real one and of fakes."""

import hashlib

import pytest
from contract import contract
from peers import Peer, refused
from vesta_common.errors import InvalidArgument, NotFound
from vesta_common.ids import new_id
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.training.v1 import (
    CreateTrainingRunRequest,
    GetModelVersionRequest,
    GetRecipeRequest,
    GetTrainingRunRequest,
    ListTrainingRunsRequest,
    ModelServiceServicer,
    RecipeServiceServicer,
    TrainingRun,
    TrainingRunServiceServicer,
)

pytestmark = pytest.mark.no_events


def creation(peer: Peer, recipe: str = "embedding", **fields: str) -> CreateTrainingRunRequest:
    """Returns the request for a new run, of the recipe that needs the least time."""
    run = TrainingRun(
        recipe=f"{peer.has.project}/recipes/{recipe}", model=f"{peer.has.project}/models/{new_id()}", **fields
    )
    return CreateTrainingRunRequest(
        parent=peer.has.project, training_run_id=f"r{new_id()}", training_run=run, request_id=new_id()
    )


@contract(ModelServiceServicer.GetModelVersion)
def test_get_model_version_returns_the_version_and_its_task_type(peer: Peer) -> None:
    version = peer.models.GetModelVersion(GetModelVersionRequest(name=peer.has.model_version))
    assert (version.name, version.task_type) == (peer.has.model_version, TaskType.TASK_TYPE_CLASSIFICATION)


@contract(ModelServiceServicer.GetModelVersion)
def test_get_model_version_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.project}/models/vans/versions/99"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.models.GetModelVersion(GetModelVersionRequest(name=name))


@contract(ModelServiceServicer.GetModelVersion, of=("serving",))
def test_a_model_version_says_where_its_file_is_and_what_the_file_returns(peer: Peer) -> None:
    version = peer.models.GetModelVersion(GetModelVersionRequest(name=peer.has.model_version))
    file = peer.objects.get(version.onnx_key, checked=False)
    assert hashlib.sha256(file).hexdigest() == version.digest
    assert len(set(version.concepts)) == len(version.concepts) > 1
    assert not version.thresholds
    assert version.embedding_digest
    assert version.embedding_dimension > 0


@contract(ModelServiceServicer.GetModelVersion, TrainingRunServiceServicer.GetTrainingRun)
def test_a_run_that_succeeded_names_its_version_which_names_the_run(peer: Peer) -> None:
    version = peer.models.GetModelVersion(GetModelVersionRequest(name=peer.has.model_version))
    run = peer.runs.GetTrainingRun(GetTrainingRunRequest(name=version.training_run))
    assert (run.name, run.state) == (version.training_run, TrainingRun.SUCCEEDED)
    assert run.model_version == version.name
    assert version.name.startswith(f"{run.model}/versions/")
    assert not run.error


@contract(TrainingRunServiceServicer.ListTrainingRuns, TrainingRunServiceServicer.GetTrainingRun)
def test_list_training_runs_filters_by_model(peer: Peer) -> None:
    version = peer.models.GetModelVersion(GetModelVersionRequest(name=peer.has.model_version))
    run = peer.runs.GetTrainingRun(GetTrainingRunRequest(name=version.training_run))
    for model, names in ((run.model, [run.name]), (f"{run.model}-other", [])):
        request = ListTrainingRunsRequest(parent=peer.has.project, filter=f'model = "{model}"')
        assert [found.name for found in peer.runs.ListTrainingRuns(request).training_runs] == names


@contract(TrainingRunServiceServicer.GetTrainingRun)
def test_get_training_run_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.project}/trainingRuns/unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.runs.GetTrainingRun(GetTrainingRunRequest(name=name))


@contract(TrainingRunServiceServicer.CreateTrainingRun)
def test_a_new_run_is_queued_and_its_request_id_returns_the_first_response(peer: Peer) -> None:
    request = creation(peer)
    made = peer.runs.CreateTrainingRun(request)
    assert made.name == f"{peer.has.project}/trainingRuns/{request.training_run_id}"
    assert made.state == TrainingRun.QUEUED
    assert (made.recipe, made.model) == (request.training_run.recipe, request.training_run.model)
    assert peer.runs.CreateTrainingRun(request) == made

    request.training_run_id = f"r{new_id()}"
    with refused(InvalidArgument, "REQUEST_ID_REUSED", request_id=request.request_id):
        peer.runs.CreateTrainingRun(request)


@contract(TrainingRunServiceServicer.CreateTrainingRun)
def test_create_training_run_finds_no_unknown_recipe_snapshot_or_champion(peer: Peer) -> None:
    for field, name in (
        ("recipe", f"{peer.has.project}/recipes/unknown"),
        ("snapshot", f"{peer.has.dataset}/snapshots/unknown"),
        ("champion", f"{peer.has.project}/models/vans/versions/99"),
    ):
        request = creation(peer)
        setattr(request.training_run, field, name)
        with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
            peer.runs.CreateTrainingRun(request)


@contract(TrainingRunServiceServicer.CreateTrainingRun)
def test_create_training_run_requires_a_snapshot_for_a_recipe_that_learns_from_one(peer: Peer) -> None:
    with refused(InvalidArgument, "SNAPSHOT_MISSING"):
        peer.runs.CreateTrainingRun(creation(peer, recipe="classification"))


@contract(RecipeServiceServicer.GetRecipe)
@pytest.mark.parametrize(
    ("recipe", "task_type"),
    [
        ("classification", TaskType.TASK_TYPE_CLASSIFICATION),
        ("multilabel", TaskType.TASK_TYPE_MULTI_LABEL),
        ("embedding", TaskType.TASK_TYPE_UNSPECIFIED),
    ],
)
def test_get_recipe_returns_the_recipes_that_every_project_has(
    peer: Peer, recipe: str, task_type: TaskType.ValueType
) -> None:
    name = f"{peer.has.project}/recipes/{recipe}"
    found = peer.recipes.GetRecipe(GetRecipeRequest(name=name))
    assert (found.name, found.task_type) == (name, task_type)


@contract(RecipeServiceServicer.GetRecipe)
def test_get_recipe_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.project}/recipes/unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.recipes.GetRecipe(GetRecipeRequest(name=name))
