"""Every value of the chart, when it is broken, is refused before anything is changed, and the message names it.

The places come from values.schema.json. Faults of one kind are put into all places at once, for Helm reports each of them: what it
names there it also refuses alone. What the schema cannot know, an API server says: tests/cluster/test_wrong_values.py.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import chart
import jsonschema
import pytest
import yaml

Place = tuple[str | int, ...]
Node = dict[str, Any]

SCHEMA: Node = json.loads((chart.CHART / "values.schema.json").read_text())
KEY = "KEY"
"""A key of a map that takes any."""
NONSENSE = "Not valid!"
FAULTS: dict[str, Any] = {
    "text": NONSENSE,
    "number": 0.5,
    "map": {"nonesuch": True},
    "list": [[]],
    "minimum": -1,
    "maximum": 10**9,
}
FREE = {
    "annotations": "any text",
    "podAnnotations": "any text",
    "serviceAccountAnnotations": "any text",
    "value": "of a variable: any text",
    "command": "any words of a command",
    "settings": "the service itself refuses a wrong setting, by its name",
    "extraVolumes": "the API server knows what is in a volume",
    "extraVolumeMounts": "and in a mount",
}
"""Where texts may be anything, with the reason: the last name or the one before."""
OPEN = {
    "global": "Helm's own, which this chart does not read",
    "podTemplate": "a pod template: the API server refuses a wrong one when a run starts, and the run says so",
    "extraObjects": "objects of the operator's own: the API server refuses them",
    "valueFrom": "a reference, which the API server checks",
    "nodeAffinity": "rules, which the API server checks",
    "podAffinity": "rules, which the API server checks",
    "podAntiAffinity": "rules, which the API server checks",
    "clients": "NetworkPolicy peers, which the API server checks",
    "metrics": "NetworkPolicy peers, which the API server checks",
    "dns": "NetworkPolicy peers, which the API server checks",
    "sources": "NetworkPolicy rules, which the API server checks",
    "collector": "NetworkPolicy peers, which the API server checks",
    "parentRefs": "references to a Gateway, which the API server checks",
    "extraVolumes": "volumes, which the API server checks",
    "extraVolumeMounts": "mounts, which the API server checks",
}
"""Where maps may have any keys, with the reason."""


def resolved(node: Node) -> Node:
    while "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def places(node: Node, place: Place = ()) -> Iterator[tuple[Place, Node]]:
    """Every place that the schema knows, with what may be there."""
    node = resolved(node)
    yield place, node
    for name, child in node.get("properties", {}).items():
        yield from places(child, (*place, name))
    for keyword, step in (("additionalProperties", KEY), ("items", 0)):
        if isinstance(node.get(keyword), dict):
            yield from places(node[keyword], (*place, step))


PLACES = dict(places(SCHEMA))


def is_container(node: Node) -> bool:
    return node.get("type") in ("object", "array")  # a type may be a list of types


def is_refused(node: Node, value: Any) -> bool:
    return not jsonschema.Draft202012Validator({**node, "$defs": SCHEMA["$defs"]}).is_valid(value)


def with_all(wrong: dict[Place, Any]) -> Any:
    """Values that are wrong in these places, none of which holds another."""
    if () in wrong:
        return wrong[()]
    inner: dict[str | int, dict[Place, Any]] = {}
    for (first, *rest), value in wrong.items():
        inner.setdefault(first, {})[tuple(rest)] = value
    made = {first: with_all(below) for first, below in inner.items()}
    return [made[0]] if list(made) == [0] else made


def said_to(values: Any, folder: Path) -> str:
    (folder / "values.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(chart.ChartError) as refused:
        chart.rendered(options=["--values", str(folder / "values.yaml")])
    return str(refused.value)


def name_of(place: Place) -> str:
    return "/" + "/".join(map(str, place))


def unnamed(wrong: dict[Place, Any], folder: Path) -> list[str]:
    """The places that Helm does not name when they are wrong."""
    said = said_to(with_all(wrong), folder)
    return [f"{name_of(place)}={value!r}" for place, value in wrong.items() if f"at '{name_of(place)}'" not in said]


@cache
def leaves() -> dict[Place, Node]:
    """What is neither map nor list."""
    return {place: node for place, node in PLACES.items() if not is_container(node)}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_value_is_refused_by_its_name(fault: str, tmp_path: Path) -> None:
    wrong = {place: FAULTS[fault] for place, node in leaves().items() if is_refused(node, FAULTS[fault])}
    assert len(wrong) > len(leaves()) / 10
    assert unnamed(wrong, tmp_path) == []


def test_just_outside_of_its_range_is_refused_by_its_name(tmp_path: Path) -> None:
    for keyword, step in (("minimum", -1), ("maximum", 1)):
        wrong = {place: node[keyword] + step for place, node in leaves().items() if keyword in node}
        assert len(wrong) > 20
        assert unnamed(wrong, tmp_path) == []


def test_an_unknown_key_is_refused_by_its_name(tmp_path: Path) -> None:
    closed = {place for place, node in PLACES.items() if node.get("additionalProperties") is False}
    said = said_to(with_all({(*place, "nonesuch"): 1 for place in closed}), tmp_path)
    assert [name_of(place) for place in closed if f"at '{name_of(place).rstrip('/')}': additional" not in said] == []


@pytest.mark.parametrize(
    "depth", sorted({len(place) for place, node in PLACES.items() if place and is_container(node)})
)
def test_what_is_no_map_or_list_is_refused_where_one_belongs(depth: int, tmp_path: Path) -> None:
    wrong = {place: NONSENSE for place, node in PLACES.items() if is_container(node) and len(place) == depth}
    assert unnamed(wrong, tmp_path) == []


def test_nothing_takes_any_text_or_any_key_without_a_reason() -> None:
    for place, node in PLACES.items():
        names = [part for part in place if isinstance(part, str) and part != KEY]
        if not is_container(node):
            assert is_refused(node, NONSENSE) or set(names[-2:]) & FREE.keys(), name_of(place)
        elif node["type"] == "object" and node.get("additionalProperties", True) is True:
            assert set(names) & OPEN.keys(), name_of(place)


def test_every_value_of_the_chart_is_in_its_schema() -> None:
    def keys(values: Any, place: Place = ()) -> Iterator[Place]:
        if isinstance(values, dict):
            for key, value in values.items():
                yield (*place, key)
                yield from keys(value, (*place, key))

    open_maps = {place for place, node in PLACES.items() if "properties" not in node}
    known = yaml.safe_load((chart.CHART / "values.yaml").read_text())
    assert [place for place in keys(known) if place not in PLACES and place[:-1] not in open_maps] == []
