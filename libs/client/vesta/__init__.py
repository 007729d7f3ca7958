"""Vesta's Python SDK: `Vesta(address, api_key)` and the errors it raises."""

from vesta.client import Vesta
from vesta.errors import ApiError

__all__ = ["ApiError", "Vesta"]
