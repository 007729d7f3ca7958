"""RecipeService: built-in recipes and recipes of a project."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from training_service import PROJECT, Training, refusal
from vesta_common.errors import Aborted, FailedPrecondition, InvalidArgument, VestaError
from vesta_common.messages import copy_of
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.training.v1 import (
    CreateRecipeRequest,
    DeleteRecipeRequest,
    GetModelRequest,
    GetRecipeRequest,
    ListRecipesRequest,
    Recipe,
    UpdateModelRequest,
    UpdateRecipeRequest,
)
from vesta_training.recipes.recipe import BUILTIN, builtin_yaml


def refused(error: type[VestaError], call: Callable[[], object]) -> bool:
    try:
        call()
    except error:
        return True
    return False


def test_a_project_has_the_builtin_recipes_and_its_own(training: Training) -> None:
    own = Recipe(yaml=builtin_yaml("classification"))
    training.recipes.CreateRecipe(CreateRecipeRequest(parent=PROJECT, recipe_id="mine", recipe=own))
    names = [
        one.name.rpartition("/")[2] for one in training.recipes.ListRecipes(ListRecipesRequest(parent=PROJECT)).recipes
    ]
    assert names == sorted([*BUILTIN, "mine"])
    mine = training.recipes.GetRecipe(GetRecipeRequest(name=f"{PROJECT}/recipes/mine"))
    assert mine.task_type == TaskType.TASK_TYPE_CLASSIFICATION
    broken = CreateRecipeRequest(parent=PROJECT, recipe_id="broken", recipe=Recipe(yaml="tusk: classification"))
    refusal(InvalidArgument, lambda: training.recipes.CreateRecipe(broken), "RECIPE_INVALID")
    shipped = DeleteRecipeRequest(name=f"{PROJECT}/recipes/embedding")
    refusal(FailedPrecondition, lambda: training.recipes.DeleteRecipe(shipped), "RECIPE_BUILTIN")


def test_builtin_and_own_recipes_are_listed_in_pages(training: Training) -> None:
    for recipe_id in ("aaa", "mine"):
        recipe = Recipe(yaml=builtin_yaml("classification"))
        training.recipes.CreateRecipe(CreateRecipeRequest(parent=PROJECT, recipe_id=recipe_id, recipe=recipe))
    names, token = [], ""
    while True:
        page = training.recipes.ListRecipes(ListRecipesRequest(parent=PROJECT, page_size=1, page_token=token))
        names += [recipe.name.rpartition("/")[2] for recipe in page.recipes]
        token = page.next_page_token
        if not token:
            break
    assert names == sorted([*BUILTIN, "aaa", "mine"])


def test_of_two_updates_with_the_same_etag_one_is_rejected(training: Training) -> None:
    training.a_run()
    training.worker.step()
    recipe = Recipe(yaml=builtin_yaml("classification"))
    own = training.recipes.CreateRecipe(CreateRecipeRequest(parent=PROJECT, recipe_id="mine", recipe=recipe))
    model = training.models.GetModel(GetModelRequest(name=f"{PROJECT}/models/vans"))

    def change(number: int) -> int:
        copies = copy_of(own, display_name=f"n{number}"), copy_of(model, display_name=f"n{number}")
        calls = (
            lambda: training.recipes.UpdateRecipe(UpdateRecipeRequest(recipe=copies[0])),
            lambda: training.models.UpdateModel(UpdateModelRequest(model=copies[1])),
        )
        return sum(not refused(Aborted, call) for call in calls)

    with ThreadPoolExecutor() as pool:
        assert sum(pool.map(change, range(8))) == 2
