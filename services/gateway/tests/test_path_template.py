"""Path templates: what they match, what they capture, and what they never let through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_gateway.contracts.path_template import PathTemplate, split_path


def match(template: str, path: str) -> dict[str, str] | None:
    return PathTemplate.parse(template).match(*split_path(path))


@pytest.mark.parametrize(
    ("template", "path", "captured"),
    [
        ("/v1/projects", "/v1/projects", {}),
        ("/v1/projects", "/v1/projects/acme", None),
        ("/v1/{name=projects/*}", "/v1/projects/acme", {"name": "projects/acme"}),
        ("/v1/{name=projects/*}", "/v1/projects/", None),
        ("/v1/{name=projects/*}", "/v1/projects", None),
        ("/v1/{name=projects/*}", "/v2/projects/acme", None),
        ("/v1/{name=projects/*/runs/*}:cancel", "/v1/projects/a/runs/b:cancel", {"name": "projects/a/runs/b"}),
        ("/v1/{name=projects/*/runs/*}:cancel", "/v1/projects/a/runs/b", None),
        ("/v1/{name=projects/*/runs/*}", "/v1/projects/a/runs/b:cancel", None),
        ("/v1/{parent=projects/*}/items:search", "/v1/projects/a/items:search", {"parent": "projects/a"}),
        ("/v1/{source.name=projects/*/sources/*}", "/v1/projects/a/sources/s", {"source.name": "projects/a/sources/s"}),
        ("/v1/{shelf}/books/{book}", "/v1/s/books/b", {"shelf": "s", "book": "b"}),
        ("/v1/{path=files/**}", "/v1/files/a/b", {"path": "files/a/b"}),
        ("/v1/{path=**}", "/v1/", {"path": ""}),
        ("/v1/{name=projects/*}", "/v1/projects/a%20b", {"name": "projects/a b"}),
        ("/v1/{name=projects/*}", "/v1/projects/%C3%A9", {"name": "projects/é"}),
        ("/v1/{name=projects/*}", "/v1/projects/a%2Fdatasets%2Fb", None),
        ("/v1/{name=projects/*}", "/v1/projects/%FF", {"name": "projects/\ufffd"}),
        ("/v1/{name=projects/*}", "/v1/projects/a:b:c", None),
    ],
)
def test_a_template_matches_and_captures(template, path, captured):
    assert match(template, path) == captured


@pytest.mark.parametrize("text", ["v1/x", "/v1//x", "/v1/{=x}", "/v1/{A=x}", "/v1/{a=**}/x", "/v1/{a=b", "/v1/{a={b}}"])
def test_an_invalid_template_is_rejected(text):
    with pytest.raises(ValueError, match=r"not a path template|not a field|slash"):
        PathTemplate.parse(text)


LITERALS = st.sampled_from(["v1", "projects", "datasets", "items"])
IDS = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=12)


@st.composite
def templates_with_values(draw):
    """A template of literals and variables, with values that fit it."""
    parts, values = [], {}
    for index in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            parts.append(draw(LITERALS))
            continue
        shape = draw(st.lists(st.one_of(LITERALS, st.just("*")), min_size=1, max_size=4))
        values[f"field{index}"] = "/".join(draw(IDS) if part == "*" else part for part in shape)
        parts.append(f"{{field{index}={'/'.join(shape)}}}")
    verb = draw(st.sampled_from(["", ":cancel"]))
    return "/" + "/".join(parts) + verb, values


@given(templates_with_values())
def test_a_template_captures_what_it_expanded(case):
    text, values = case
    template = PathTemplate.parse(text)

    path = template.expand(values)

    assert path.isascii()
    assert template.match(*split_path(path)) == values


@given(templates_with_values(), st.text(max_size=60))
def test_a_template_never_captures_more_segments_than_it_has(case, path):
    template = PathTemplate.parse(case[0])

    captured = template.match(*split_path("/" + path)) or {}

    for variable in template.variables:
        if variable.field_path in captured and variable.end is not None:
            assert captured[variable.field_path].count("/") == variable.end - variable.start - 1
