"""gRPC: recipes."""

import grpc
import psycopg
from google.protobuf import empty_pb2
from vesta_common.errors import AlreadyExists, FailedPrecondition
from vesta_common.etags import check_etag
from vesta_common.idempotency import once
from vesta_common.ids import new_id
from vesta_common.masks import apply_update
from vesta_common.pages import read_page
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

from vesta_training.recipe import read_recipe
from vesta_training.recipe_book import RecipeBook, is_builtin
from vesta_training.store import Store


class RecipeService(RecipeServiceServicer):
    """Keeps Recipes."""

    def __init__(self, store: Store, book: RecipeBook) -> None:
        self._store = store
        self._book = book

    def CreateRecipe(self, request: CreateRecipeRequest, context: grpc.ServicerContext) -> Recipe:
        """Keeps a recipe that can be read."""
        name = f"{request.parent}/recipes/{request.recipe_id or new_id()}"
        read_recipe(name, request.recipe.yaml)

        def create() -> Recipe:
            recipe = Recipe(name=name, display_name=request.recipe.display_name, yaml=request.recipe.yaml)
            self._store.insert_recipe(connection, recipe)
            return self._book.find(connection, name)

        try:
            if is_builtin(name):
                raise _exists(name)
            with self._store.postgres.transaction() as connection:
                return once(connection, request, Recipe, create)
        except psycopg.errors.UniqueViolation as error:
            raise _exists(name) from error

    def GetRecipe(self, request: GetRecipeRequest, context: grpc.ServicerContext) -> Recipe:
        """One recipe."""
        return self._book.get(request.name)

    def ListRecipes(self, request: ListRecipesRequest, context: grpc.ServicerContext) -> ListRecipesResponse:
        """A project's recipes by name, those that ship with the platform among them."""
        page = read_page(request)
        after = page.cursor[0] if page.cursor else ""
        with self._store.postgres.transaction() as connection:
            found = [recipe for recipe in self._book.list_all(connection, request.parent) if recipe.name > after]
        kept, token = page.cut(found[: page.limit], lambda recipe: (recipe.name,))
        return ListRecipesResponse(recipes=kept, next_page_token=token)

    def UpdateRecipe(self, request: UpdateRecipeRequest, context: grpc.ServicerContext) -> Recipe:
        """Changes a project's own recipe."""
        _refuse_builtin(request.recipe.name)
        with self._store.postgres.transaction() as connection:
            current = self._book.find(connection, request.recipe.name)
            check_etag(request.recipe.etag, current)
            updated = apply_update(current, request.recipe, request.update_mask, ("display_name", "yaml"))
            read_recipe(updated.name, updated.yaml)
            self._store.update_recipe(connection, updated)
            return self._book.find(connection, updated.name)

    def DeleteRecipe(self, request: DeleteRecipeRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Removes a project's own recipe."""
        _refuse_builtin(request.name)
        with self._store.postgres.transaction() as connection:
            self._book.find(connection, request.name)
            self._store.delete_recipe(connection, request.name)
        return empty_pb2.Empty()


def _exists(name: str) -> AlreadyExists:
    return AlreadyExists(f"{name} is there already", reason="RESOURCE_EXISTS", metadata={"name": name})


def _refuse_builtin(name: str) -> None:
    if is_builtin(name):
        raise FailedPrecondition(
            f"{name} ships with the platform; create a recipe of your own from its YAML", reason="RECIPE_BUILTIN"
        )
