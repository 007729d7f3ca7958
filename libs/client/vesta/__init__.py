"""Vesta's Python SDK: `Vesta(address, api_key)`, the errors it raises, and the objects of predictions."""

from vesta.client import Vesta
from vesta.detections import to_supervision
from vesta.errors import ApiError
from vesta.objects import predicted_objects

__all__ = ["ApiError", "Vesta", "predicted_objects", "to_supervision"]
