"""Crowds: annotations of several objects of a concept that are not separated, as in COCO (`iscrowd`).

A crowd is no object: models do not learn that there is nothing, and what they find in a crowd is neither right nor wrong.
"""

from typing import Final

from vesta_contracts.common.v1 import Annotation

CROWD: Final = "crowd"
"""The attribute of a crowd, with the value TRUE."""
TRUE: Final = "true"
INSIDE_MIN: Final = 0.5
"""An object of which at least this share lies in a crowd is one of the crowd."""


def is_crowd(annotation: Annotation) -> bool:
    """Returns whether an annotation is a crowd."""
    return annotation.attributes.get(CROWD) == TRUE
