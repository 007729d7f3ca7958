"""Which default boxes have to predict which objects of a view."""

from typing import NamedTuple

import torch
from torchvision.ops import box_convert, box_iou

from vesta_training.tasks.detection.boxed_view import BoxedView
from vesta_training.tasks.detection.network import encode

# A default box must predict an object that it overlaps with this IoU, and the one that overlaps an object most must in any case.
MATCH_IOU_MIN = 0.5


class Matched(NamedTuple):
    """The P default boxes that have to predict an object.

    Attributes:
        cells: `(P,)` their numbers.
        classes: `(P,)` what they have to predict; class 0 is the background.
        offsets: `(P, 4)` what they have to predict; see `encode`.
    """

    cells: torch.Tensor
    classes: torch.Tensor
    offsets: torch.Tensor


class Matcher:
    """Matches default boxes to the objects of views, once for each view.

    Args:
        defaults: `(A, 4)`; see `default_boxes.lay_out`.
    """

    def __init__(self, defaults: torch.Tensor) -> None:
        self._defaults = defaults
        self._corners = box_convert(defaults, "cxcywh", "xyxy")
        self._of_view: dict[str, Matched] = {}

    def match(self, view: BoxedView) -> Matched:
        """Returns the default boxes that have to predict an object of the view."""
        if (matched := self._of_view.get(view.key)) is None:
            matched = self._of_view[view.key] = self.match_once(view)
        return matched

    def match_once(self, view: BoxedView) -> Matched:
        """Returns the same, and does not keep it: for views that do not return."""
        if not len(view.boxes):
            return Matched(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
        boxes = torch.from_numpy(view.boxes)
        overlap = box_iou(boxes, self._corners)
        best, number = overlap.max(dim=0)
        number[best < MATCH_IOU_MIN] = -1
        number[overlap.argmax(dim=1)] = torch.arange(len(boxes))
        cells = torch.nonzero(number >= 0)[:, 0]
        number = number[cells]
        classes = torch.from_numpy(view.numbers)[number] + 1
        return Matched(cells, classes, encode(boxes[number], self._defaults[cells]))
