"""The cards of imported detectors: YAML, or Markdown with a YAML header, as model cards on public hubs are."""

from dataclasses import dataclass
from typing import Any

import yaml
from vesta_common.errors import InvalidArgument, Violation

HEADER_LINE = "---"
LICENSE_LENGTH_MAX = 100
ORDERS = ("BGR", "RGB")
EXAMPLE = "license: Apache-2.0"


@dataclass(frozen=True, slots=True)
class Card:
    """The values of a card.

    Attributes:
        license: SPDX identifier of the licence of the weights.
        source: where the weights are from; can be empty.
        colour_order: of the input of the network, `BGR` or `RGB`.
    """

    license: str
    source: str
    colour_order: str


def read_card(text: str) -> Card:
    """Reads a card.

    Raises:
        InvalidArgument: DETECTOR_CARD_INVALID.
    """
    try:
        values = yaml.safe_load(_header(text))
    except yaml.YAMLError as error:
        raise _invalid(f"is not valid YAML ({' '.join(str(error).split())})") from error
    except RecursionError as error:
        raise _invalid("is nested too deeply") from error
    if not isinstance(values, dict):
        raise _invalid("has no keys")
    licence, source, order = (_text(values, key) for key in ("license", "source", "colour_order"))
    if not licence or len(licence) > LICENSE_LENGTH_MAX:
        raise _invalid(f"has no key license with the SPDX identifier of the licence of the weights: {EXAMPLE}")
    if order not in ("", *ORDERS):
        raise _invalid(f"has colour_order {order[:20]!r}, which is one of {', '.join(ORDERS)}")
    return Card(license=licence, source=source, colour_order=order or ORDERS[0])


def _header(text: str) -> str:
    """Returns the YAML of a card: its header, or all of it."""
    lines = text.strip().splitlines()
    if not lines or lines[0].rstrip() != HEADER_LINE:
        return text
    ends = [number for number, line in enumerate(lines[1:], 1) if line.rstrip() == HEADER_LINE]
    return "\n".join(lines[1 : ends[0]] if ends else lines[1:])


def _text(values: dict[Any, Any], key: str) -> str:
    value = values.get(key)
    return str(value).strip() if value is not None else ""


def _invalid(why: str) -> InvalidArgument:
    return InvalidArgument(
        f"the card {why}; write YAML with the key license, or Markdown that starts with such a header between two lines of {HEADER_LINE}",
        reason="DETECTOR_CARD_INVALID",
        violations=[Violation("card", why)],
    )
