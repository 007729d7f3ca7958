"""RecipeService: the recipes of a project, and the built-in ones."""

import grpc
from google.protobuf import empty_pb2
from vesta_common.errors import FailedPrecondition
from vesta_common.ids import new_id
from vesta_common.resources.methods import create_once, revise, taken
from vesta_common.resources.page_keys import by_name
from vesta_common.resources.pages import read_page
from vesta_common.storage.postgres import Connection
from vesta_contracts.training.v1 import (
    CreateRecipeRequest,
    DeleteRecipeRequest,
    GetRecipeRequest,
    ListRecipesRequest,
    ListRecipesResponse,
    Recipe,
    RecipeServiceServicer,
    UpdateRecipeRequest,
)

from vesta_training.recipes.recipe import read_recipe
from vesta_training.recipes.recipe_book import RecipeBook, is_builtin
from vesta_training.store import Store


class RecipeService(RecipeServiceServicer):
    """Creates, reads, updates and deletes recipes."""

    def __init__(self, store: Store, book: RecipeBook) -> None:
        self._store = store
        self._book = book

    def CreateRecipe(self, request: CreateRecipeRequest, context: grpc.ServicerContext) -> Recipe:
        """Creates a recipe after validating its YAML."""
        name = f"{request.parent}/recipes/{request.recipe_id or new_id()}"
        read_recipe(name, request.recipe.yaml)
        if is_builtin(name):
            raise taken(name)

        def create(connection: Connection) -> Recipe:
            recipe = Recipe(name=name, display_name=request.recipe.display_name, yaml=request.recipe.yaml)
            self._store.recipes.insert(connection, recipe)
            return self._book.find(connection, name)

        return create_once(self._store.postgres, request, Recipe, name, create)

    def GetRecipe(self, request: GetRecipeRequest, context: grpc.ServicerContext) -> Recipe:
        return self._book.get(request.name)

    def ListRecipes(self, request: ListRecipesRequest, context: grpc.ServicerContext) -> ListRecipesResponse:
        """Lists the recipes of a project, including the built-in ones, ordered by name."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            rows = self._book.list_after(connection, request.parent, page.after, page.limit)
        recipes, token = page.cut(rows, by_name)
        return ListRecipesResponse(recipes=recipes, next_page_token=token)

    def UpdateRecipe(self, request: UpdateRecipeRequest, context: grpc.ServicerContext) -> Recipe:
        """Updates a recipe. Built-in recipes are read-only."""
        _check_not_builtin(request.recipe.name)
        with self._store.postgres.transaction() as connection:
            current = self._store.recipes.lock(connection, request.recipe.name)
            updated = revise(current, request.recipe, request.update_mask, ("display_name", "yaml"))
            read_recipe(updated.name, updated.yaml)
            self._store.recipes.update(connection, updated)
            return self._book.find(connection, updated.name)

    def DeleteRecipe(self, request: DeleteRecipeRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Deletes a recipe. Built-in recipes are read-only."""
        _check_not_builtin(request.name)
        with self._store.postgres.transaction() as connection:
            self._book.find(connection, request.name)
            self._store.recipes.delete(connection, request.name)
        return empty_pb2.Empty()


def _check_not_builtin(name: str) -> None:
    if is_builtin(name):
        raise FailedPrecondition(
            f"{name} is a built-in recipe; create your own recipe from its YAML", reason="RECIPE_BUILTIN"
        )
