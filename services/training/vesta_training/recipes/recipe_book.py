"""Lookup of recipes by name: the built-in recipes, which every project has, and the recipes of a project."""

from contextlib import suppress

from vesta_common.resources.etags import with_etag
from vesta_common.resources.methods import existing
from vesta_common.storage.postgres import Connection
from vesta_contracts.training.v1 import Recipe

from vesta_training.errors import RecipeError
from vesta_training.recipes.recipe import BUILTIN, builtin_recipe, builtin_yaml, read_recipe
from vesta_training.recipes.task_types import task_type_of
from vesta_training.store import Store


class RecipeBook:
    """Looks up built-in and stored recipes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, name: str) -> Recipe:
        """Returns a recipe. Raises NotFound."""
        with self._store.postgres.transaction() as connection:
            return self.find(connection, name)

    def find(self, connection: Connection, name: str) -> Recipe:
        """Returns a recipe, in the transaction of the caller. Raises NotFound."""
        if is_builtin(name):
            return builtin(name)
        hint = f"built-in recipes: {', '.join(BUILTIN)}"
        return _with_task_type(existing(self._store.recipes.find(connection, name), name, hint))

    def list_after(self, connection: Connection, project: str, after: str, limit: int) -> list[Recipe]:
        """Lists the recipes of a project whose names are greater than `after`, ordered by name."""
        builtin_recipes = [builtin(name) for recipe_id in BUILTIN if (name := f"{project}/recipes/{recipe_id}") > after]
        own = map(_with_task_type, self._store.recipes.list_page(connection, project, after, limit))
        return sorted([*builtin_recipes, *own], key=lambda recipe: recipe.name)[:limit]


def is_builtin(name: str) -> bool:
    """Whether the name is that of a built-in recipe."""
    return name.rpartition("/")[2] in BUILTIN


def builtin(name: str) -> Recipe:
    """Returns a built-in recipe as a resource of a project."""
    recipe_id = name.rpartition("/")[2]
    recipe = Recipe(
        name=name, display_name=builtin_recipe(recipe_id).summary[:200], yaml=builtin_yaml(recipe_id), builtin=True
    )
    return with_etag(_with_task_type(recipe))


def _with_task_type(recipe: Recipe) -> Recipe:
    """Sets the task type of a recipe, unless its YAML was valid for an earlier version only."""
    with suppress(RecipeError):
        recipe.task_type = task_type_of(read_recipe(recipe.name, recipe.yaml).task)
    return recipe
