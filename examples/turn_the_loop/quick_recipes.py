"""Recipes for a demo of some minutes: the default recipe of a task type with some values reduced."""

from collections.abc import Mapping
from typing import Any

import yaml
from vesta import Vesta
from vesta_contracts.training.v1 import CreateRecipeRequest, GetRecipeRequest, Recipe

BECAUSE = "The demo trains two models per round, and should take some minutes."


def create_quick_recipe(owner: Vesta, default: str, changes: Mapping[str, Any]) -> str:
    """Creates a recipe with changes to a default one, and returns its name.

    Args:
        default: the name of the default recipe; returned if there are no changes.
        changes: new values by their path in the recipe, such as `detection.views`.
    """
    if not changes:
        return default
    recipe = yaml.safe_load(owner.recipes.GetRecipe(GetRecipeRequest(name=default)).yaml)
    for path, value in changes.items():
        section, _, choice = path.partition(".")
        recipe[section][choice] = {"value": value, "because": BECAUSE}
    project, _, recipe_id = default.rpartition("/recipes/")
    request = CreateRecipeRequest(
        parent=project, recipe_id=f"{recipe_id}-quick", recipe=Recipe(yaml=yaml.safe_dump(recipe, sort_keys=False))
    )
    return owner.recipes.CreateRecipe(request).name
