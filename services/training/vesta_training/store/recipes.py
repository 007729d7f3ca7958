"""Recipes of projects in PostgreSQL."""

from vesta_common.clock import Clock
from vesta_common.resources.methods import existing, resource_of
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection
from vesta_contracts.training.v1 import Recipe

from vesta_training.store.statements import queries


class Recipes:
    """The table of recipes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def insert(self, connection: Connection, recipe: Recipe) -> None:
        """Inserts a recipe. Raises psycopg.errors.UniqueViolation if the name exists."""
        queries.insert_recipe(
            connection,
            name=recipe.name,
            parent=parent_of(recipe.name),
            body=_recipe_body(recipe),
            now=self._clock.now(),
        )

    def find(self, connection: Connection, name: str) -> Recipe | None:
        """Returns a stored recipe; None if it does not exist."""
        row = queries.find_recipe(connection, name=name)
        return resource_of(Recipe, row) if row else None

    def lock(self, connection: Connection, name: str) -> Recipe:
        """Locks a stored recipe until the end of the transaction. Raises NotFound."""
        return resource_of(Recipe, existing(queries.lock_recipe(connection, name=name), name))

    def list_page(self, connection: Connection, parent: str, after: str, limit: int) -> list[Recipe]:
        """Lists the stored recipes of a project whose names are greater than `after`, ordered by name."""
        return [
            resource_of(Recipe, row)
            for row in queries.list_recipes(connection, parent=parent, after=after, limit=limit)
        ]

    def update(self, connection: Connection, recipe: Recipe) -> None:
        queries.update_recipe(connection, name=recipe.name, body=_recipe_body(recipe), now=self._clock.now())

    def delete(self, connection: Connection, name: str) -> None:
        queries.delete_recipe(connection, name=name)


def _recipe_body(recipe: Recipe) -> bytes:
    stored = Recipe(name=recipe.name, display_name=recipe.display_name, yaml=recipe.yaml)
    return stored.SerializeToString()
